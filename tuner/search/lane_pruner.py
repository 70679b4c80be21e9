"""The interface of pruners that judge the trials of a cohort all at once."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from optuna.trial import FrozenTrial

from tuner.search.past import Past


class LanePruner(abc.ABC):
    """A pruner that ranks the lanes of a cohort against each other and against the past.

    A trial that trains alone is a cohort of one lane. A pruner serves one past, and takes in the
    trials that have ended since it was last asked.
    """

    @abc.abstractmethod
    def prune_lanes(self, past: Past, lanes: Sequence[FrozenTrial]) -> list[bool]:
        """Returns whether each lane is behind; of lanes that are over, the answer means nothing.

        Args:
            past: The past; trials in it that are lanes themselves do not count.
            lanes: All trials of the cohort; those with fewer evaluations than others are over.
        """
