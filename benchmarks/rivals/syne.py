"""Syne Tune's asynchronous successive halving, drawing evenly or by quantile regression."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping

from syne_tune import config_space
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.baselines import ASHA, ASHACQR
from syne_tune.optimizer.scheduler import SchedulerDecision

from benchmarks.rivals.asking import Searched, searched_axes
from benchmarks.search.spaces import EVALUATIONS
from tuner.domain.catalog.dimensions import Choice, Value
from tuner.domain.spec import StudySpec
from tuner.search.knowledge import Knowledge

logging.getLogger("syne_tune").setLevel(logging.ERROR)


_REFIT = 8
"""Trials after which quantile regression is fitted anew; the library fits it for each, which takes
minutes a search. SMAC3 refits as often."""


class SyneTune:
    """Holds a search with a stopping rule, which is told every evaluation of its one trial.

    Args:
        scheduler: The class of the library's search.
        spec: The space, given flat: Syne Tune knows no conditions.
        seed: Its seed.
    """

    def __init__(self, scheduler: type[ASHA | ASHACQR], spec: StudySpec, seed: int) -> None:
        self.scheduler = scheduler(
            {name: _to_domain(axis) for name, axis in searched_axes(spec).items()},
            metric="loss",
            time_attr="evaluation",
            max_t=EVALUATIONS,
            random_seed=seed,
        )
        self._trial: Trial | None = None
        self._started = 0
        self._place = 0

    def ask(self) -> tuple[Mapping[str, Value], int]:
        """Returns the next evaluation of the trial that goes on, else the first of a new one."""
        if self._trial is None:
            config = self.scheduler.suggest().config
            self._trial = Trial(self._started, config, dt.datetime.now(dt.UTC))
            self.scheduler.on_trial_add(self._trial)
            self._started += 1
            self._place = 0
        self._place += 1
        return self._trial.config, self._place

    def tell(self, loss: float) -> None:
        """Takes a loss; the trial is over where the library says so."""
        told = {"loss": loss, "evaluation": self._place}
        if self.scheduler.on_trial_result(self._trial, told) == SchedulerDecision.STOP:
            self.scheduler.on_trial_remove(self._trial)
            self._trial = None


def start_asha(spec: StudySpec, seed: int, knowledge: Knowledge) -> SyneTune:
    """Returns ASHA: random draws, rungs after 1, 3 and 9 evaluations."""
    return SyneTune(ASHA, spec, seed)


def start_cqr(spec: StudySpec, seed: int, knowledge: Knowledge) -> SyneTune:
    """Returns ASHA that draws by conformal quantile regression (Salinas et al., ICML 2023)."""
    search = SyneTune(ASHACQR, spec, seed)
    search.scheduler.searcher.update_frequency = _REFIT
    return search


def _to_domain(axis: Searched) -> config_space.Domain:
    if isinstance(axis, Choice):
        return config_space.choice([*axis.choices])
    draw = config_space.loguniform if axis.log else config_space.uniform
    return draw(axis.low, axis.high)
