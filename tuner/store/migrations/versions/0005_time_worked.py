"""How long workers have lived and studies been worked on, by clocks that only grow."""

from collections import defaultdict

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the columns; for the workers so far the database's clock has to do."""
    for name in ("worked_s", "study_s"):
        op.add_column(
            "tuner_workers", sa.Column(name, sa.Float(53), nullable=False, server_default="0")
        )
    names = ("worker_id", "study_uuid", "started_at", "last_seen", "worked_s", "study_s")
    workers = sa.table("tuner_workers", *(sa.column(name) for name in names))
    connection = op.get_bind()
    total_s: dict[str, float] = defaultdict(float)
    reached: dict[str, float] = defaultdict(lambda: float("-inf"))
    rows = connection.execute(sa.select(workers).order_by(workers.c.started_at)).all()
    for row in rows:
        study, end = row.study_uuid, max(row.started_at, row.last_seen)
        total_s[study] += max(0.0, end - max(row.started_at, reached[study]))
        reached[study] = max(reached[study], end)
        connection.execute(
            sa.update(workers)
            .where(workers.c.worker_id == row.worker_id)
            .values(worked_s=end - row.started_at, study_s=total_s[study])
        )


def downgrade() -> None:
    """Takes them back."""
    for name in ("study_s", "worked_s"):
        op.drop_column("tuner_workers", name)
