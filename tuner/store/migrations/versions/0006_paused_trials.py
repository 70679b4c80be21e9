"""Where a paused trial waits to be promoted."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds the column; no trial so far is paused."""
    op.add_column(
        "tuner_leases", sa.Column("paused", sa.Integer, nullable=False, server_default="0")
    )


def downgrade() -> None:
    """Drops it: paused trials become released ones, which any worker takes."""
    op.drop_column("tuner_leases", "paused")
