"""How many trials of a study trained fused, how full their cohorts were, and their speedup."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuner.domain.fuse_plan import FusePlan
from tuner.domain.trials import TrialRecord


@dataclass(frozen=True)
class FusingSummary:
    """How many trials of a study trained fused, many as one, and how well that worked.

    Attributes:
        trials: Trials that trained fused.
        lanes: The most trials that trained as one.
        compiled: Whether their steps were compiled.
        occupancy: Share of a cohort's trials that trained, on average over its steps, above 0 and
            at most 1; the others were over, and cost nothing more. None without any.
        speedup: How many times as many steps a second they took as one trial at a time, both
            measured before the first cohort; None where that was not.
        reason: The plan's reason for so many lanes, or for one trial at a time.
    """

    trials: int
    lanes: int
    compiled: bool
    occupancy: float | None
    speedup: float | None
    reason: str


def summarize_fusing(
    records: Sequence[TrialRecord], plans: Iterable[FusePlan]
) -> FusingSummary | None:
    """Returns how many trials of a study trained fused, and how well that worked.

    Args:
        records: The trials of a study.
        plans: The decisions how to train them, one for each kind of device and request.

    Returns:
        The summary, or None where nothing was fused or planned.
    """
    plans = list(plans)
    fused = [record for record in records if _get(record, "lanes") > 1]
    chosen = sorted(plans, key=lambda plan: plan.lanes, reverse=True)
    if not fused and not chosen:
        return None
    steps = math.fsum(_get(record, "steps") for record in fused)
    places = math.fsum(_get(record, "places") for record in fused)
    ratios = [plan.single_s / plan.lane_s for plan in chosen if plan.lanes > 1 and plan.lane_s > 0]
    return FusingSummary(
        trials=len(fused),
        lanes=max((int(_get(record, "lanes")) for record in fused), default=1),
        compiled=any(plan.compiled for plan in chosen),
        occupancy=min(1.0, steps / places) if places else None,
        speedup=ratios[0] if fused and ratios else None,
        reason=chosen[0].reason if chosen else "",
    )


def _get(record: TrialRecord, name: str) -> float:
    value = record.attributes.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
