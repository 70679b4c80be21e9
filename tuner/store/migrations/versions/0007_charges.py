"""What each trial takes of a budget in full trials."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Makes the table; no budget so far is one in full trials."""
    op.create_table(
        "tuner_charges",
        sa.Column("study_uuid", sa.String(32), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("reached", sa.Float(53), nullable=False),
        sa.Column("lost", sa.Float(53), nullable=False, server_default="0"),
        sa.Column("loss", sa.String(64)),
    )


def downgrade() -> None:
    """Takes it back: older versions count trials alone."""
    op.drop_table("tuner_charges")
