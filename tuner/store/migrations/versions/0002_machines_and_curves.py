"""Machines of workers, and the numbers that trials log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the column and the table; of the workers so far nobody knows the machine."""
    op.add_column(
        "tuner_workers",
        sa.Column("machine", sa.String(255), nullable=False, server_default=""),
    )
    op.create_table(
        "tuner_curves",
        sa.Column("study_uuid", sa.String(32), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True),
        sa.Column("value", sa.Float(53), nullable=False),
    )


def downgrade() -> None:
    """Drops both."""
    op.drop_table("tuner_curves")
    op.drop_column("tuner_workers", "machine")
