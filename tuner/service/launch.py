"""The launch of a new study: its workers load, and one tries its workload, before it exists.

Only what is needed to start processes is imported here; the rest loads while they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.domain.spec import StudySpec
from tuner.service.interruption import holding_signals
from tuner.service.pools.standby import Crew

if TYPE_CHECKING:
    from tuner.service.open_study import StudyCheck


def try_workload(crew: Crew, resolved: StudySpec, looks: bool) -> StudyCheck:
    """Orders a worker to try a study's workload, and imports the next modules meanwhile.

    Args:
        crew: Workers that stand by.
        resolved: The study, resolved.
        looks: Whether to look if its model arrives with trained weights.

    Raises:
        SpecError: If it does not run as the study says.
        WorkloadError: If its code raises.
    """
    crew.begin_check(resolved, looks=looks)
    with holding_signals():
        import alembic.command  # noqa: F401 (to make the database's tables)

        import tuner.service.display.progress
        import tuner.service.study_run  # noqa: F401
        from tuner.domain.regimes import Arrival
        from tuner.service.open_study import StudyCheck

    answer = crew.end_check()
    return StudyCheck(answer.asks_nothing, Arrival(answer.arrival), answer.ends_at_once)
