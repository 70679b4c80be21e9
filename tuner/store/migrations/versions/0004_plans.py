"""How trials of a study train on each kind of device."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "tuner_plans",
        sa.Column("study_uuid", sa.String(32), primary_key=True),
        sa.Column("place", sa.String(255), primary_key=True),
        sa.Column("plan", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Takes it back."""
    op.drop_table("tuner_plans")
