"""Proposes the runs that confirm a study: its finalists, again and again, on fresh seeds."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from tuner.analysis.heats import Heats
from tuner.analysis.race import Race
from tuner.analysis.runs import list_runs, name_runs, read_arms, run_confirmation
from tuner.domain.catalog.dimensions import Dimension, Value
from tuner.domain.confirmation import CONFIRM, CONFIRMS, REPEAT, Confirmation
from tuner.domain.search import COMPARE
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Proposal, TrialRecord
from tuner.errors import ExhaustedError
from tuner.search import Comparer, Proposer
from tuner.search.distributions import to_distribution


class Confirmer(Proposer):
    """Proposes the runs of a race between finalists, each as an opening of its study.

    The runs follow from the trials that are over, so all workers propose the same; the ledger
    starts each once.

    Args:
        spec: The resolved spec of the study that confirms another one.
        confirmation: Its finalists.
        seed: The worker's seed.
    """

    def __init__(self, spec: StudySpec, confirmation: Confirmation, seed: int) -> None:
        super().__init__(spec, seed)
        self._confirmation = confirmation
        self._axes = spec.axes()
        self._records: dict[int, TrialRecord] = {}

    def learn(self, news: Iterable[TrialRecord]) -> None:
        """Takes in runs that started or finished."""
        news = list(news)
        super().learn(news)
        self._records |= {record.number: record for record in news}

    def openings(self) -> list[FrozenTrial]:
        """Returns all runs that may start by now, those that have started too, in their order."""
        finalists = {finalist.trial: finalist for finalist in self._confirmation.finalists}
        return [
            self.template(
                Proposal(dict(finalists[run.trial].params), CONFIRM),
                notes={CONFIRMS: run.trial, REPEAT: run.repeat},
            )
            for run in list_runs(*self._stand())
        ]

    def together(self, count: int) -> int:
        """Returns how many runs to start together: those that share a seed, as lanes have to."""
        _, race = self._stand()
        return min(count, max(1, len(race.going)))

    def closing(self) -> None:
        """Returns nothing: what the study ends with are its finalists."""

    def propose(self) -> FrozenTrial:
        """Raises an error: all runs are openings.

        Raises:
            ExhaustedError: Always.
        """
        raise ExhaustedError("the finalists have run on as many seeds as it takes")

    def propose_many(self, count: int) -> list[FrozenTrial]:
        """Raises an error, likewise.

        Raises:
            ExhaustedError: Always.
        """
        return [self.propose()]

    @property
    def is_exhausted(self) -> bool:
        """Whether the race is over."""
        _, race = self._stand()
        return race.settled

    def _stand(self) -> tuple[Heats, Race]:
        """Returns the finalists with their values, and how their race stands."""
        runs = name_runs(self._confirmation, self.spec, self._records.values())
        heats = read_arms(self._confirmation, self.spec, runs)
        return heats, run_confirmation(self._confirmation, self.spec, heats)

    def suggest(
        self, name: str, axis: Dimension, proposal: Proposal | None = None
    ) -> tuple[Value, BaseDistribution]:
        """Returns the value that a finalist has of a hyperparameter its training loop asks for.

        Args:
            name: Its name.
            axis: The axis it is searched on.
            proposal: The point of the trial that it is for.
        """
        params = {} if proposal is None else proposal.params
        # Defaults have a part of another finalist's parameters, so all have to be the same.
        point = {key: value for key, value in params.items() if key in self._axes}
        own = {f.trial: f.own for f in self._confirmation.finalists if f.params == point}
        for known in (values[name] for values in own.values() if name in values):
            if known.axis == axis and known.value is not None:
                return known.value, to_distribution(axis)
        return super().suggest(name, axis, proposal)


def propose_for(spec: StudySpec, seed: int) -> Proposer:
    """Returns what proposes the trials of a study.

    Args:
        spec: The resolved spec.
        seed: The worker's seed.
    """
    if spec.confirmation is not None:
        return Confirmer(spec, spec.confirmation, seed)
    return Comparer(spec, seed) if spec.search.mode == COMPARE else Proposer(spec, seed)
