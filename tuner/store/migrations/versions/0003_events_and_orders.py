"""Tables of events, columns for the checkpoint that counts, and for workers asked to leave."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the table and the columns; of the workers so far nobody knows the software."""
    op.create_table(
        "tuner_events",
        sa.Column("event_id", sa.Integer, primary_key=True),
        sa.Column("study_uuid", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer),
        sa.Column("worker_id", sa.String(32)),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text, nullable=False, server_default=""),
    )
    op.create_index("ix_tuner_events_study", "tuner_events", ["study_uuid", "number"])
    op.add_column("tuner_leases", sa.Column("checkpoint", sa.String(32)))
    op.add_column(
        "tuner_workers", sa.Column("software", sa.String(255), nullable=False, server_default="")
    )
    op.add_column(
        "tuner_workers", sa.Column("leaving", sa.Integer, nullable=False, server_default="0")
    )


def downgrade() -> None:
    """Drops all of it."""
    op.drop_column("tuner_workers", "leaving")
    op.drop_column("tuner_workers", "software")
    op.drop_column("tuner_leases", "checkpoint")
    op.drop_table("tuner_events")
