"""Workers and leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates both tables."""
    op.create_table(
        "tuner_workers",
        sa.Column("worker_id", sa.String(32), primary_key=True),
        sa.Column("study_uuid", sa.String(32), nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("seed", sa.String(20), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("last_seen", sa.Float(53), nullable=False),
    )
    op.create_index("ix_tuner_workers_study", "tuner_workers", ["study_uuid"])
    op.create_table(
        "tuner_leases",
        sa.Column("study_uuid", sa.String(32), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("worker_id", sa.String(32)),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    """Drops both tables."""
    op.drop_table("tuner_leases")
    op.drop_table("tuner_workers")
