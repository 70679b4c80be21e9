"""The order of all trials of a study, from the best to the worst, those that ended early too."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tuner.domain.lengths import share_trained, split_by_length
from tuner.domain.objective import sign_of
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord

Standing = tuple[float, float]
"""The standing of a trial: the smaller, the better; equal for trials that none is better of."""

_WORST = (math.inf, math.inf)

_STOPPED = (Outcome.PRUNED, Outcome.PAUSED)


def order_trials(
    spec: StudySpec, records: Iterable[TrialRecord]
) -> list[tuple[Standing, TrialRecord]]:
    """Returns the trials that tell something about their configurations, the best first.

    Complete trials come first, by value. Of those that were pruned or are paused, the one that got
    further comes first, since it was preferred to others where they stopped; among equals in that,
    the value decides. All that diverged are the worst alike. Left out are trials that failed, are
    in training, or have another length than the ranked ones.

    Args:
        spec: The study.
        records: Its trials.
    """
    records = list(records)
    sign = sign_of(spec.study.ranking)
    ordered: list[tuple[Standing, TrialRecord]] = [
        ((-1.0, sign * (record.value or 0.0)), record) for record in split_by_length(records)[0]
    ]
    for record in records:
        if record.outcome is Outcome.DIVERGED:
            ordered.append((_WORST, record))
        elif record.outcome in _STOPPED and record.value is not None:
            # Rounded: trials of other batch sizes stop at the same evaluation, not the same part.
            got = min(0.99, round(share_trained(record.attributes), 2))
            ordered.append(((-got, sign * record.value), record))
    return sorted(ordered, key=lambda pair: (pair[0], pair[1].number))
