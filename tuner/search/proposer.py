"""What to try next: the defaults of every optimizer first, then what the sampler thinks best."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.domain.dimensions import Choice, Dimension, Fixed, Float, Int, Value
from tuner.domain.samplers import SAMPLERS
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Proposal, decode, default_proposals, walk
from tuner.errors import SpecError
from tuner.search.batches import BatchSampler
from tuner.search.distributions import distributions_of, to_distribution
from tuner.search.history import SAMPLER_STATE, History
from tuner.search.samplers import build_sampler

_DRAWS = 20
"""Draws for each trial of a cohort, before a cohort is left smaller than it was asked for."""


class Proposer:
    """Proposes trials of a study.

    Args:
        spec: The resolved spec.
        seed: The worker's seed; two workers with one seed would propose alike.

    Attributes:
        spec: The study.
        history: The past it learns from; whoever asks keeps it up to date.

    Raises:
        SpecError: If the user's own sampler cannot be built.
    """

    def __init__(self, spec: StudySpec, seed: int) -> None:
        self.spec = spec
        self.history = History(spec, build_sampler(spec, seed))
        self._open: list[optuna.Trial] = []

    def defaults(self) -> list[FrozenTrial]:
        """Returns the trials the study starts with."""
        return [template_of(self.spec, proposal) for proposal in default_proposals(self.spec)]

    def propose(self) -> FrozenTrial:
        """Returns a trial for the store to start, with parameters and attributes."""
        return next(self._draw_one_by_one())

    def propose_many(self, count: int) -> list[FrozenTrial]:
        """Returns trials for the store to start and train together, learnt from the same past.

        All have the company of the first one drawn (see :class:`TrialConfig`).

        Args:
            count: How many, at least 1.

        Returns:
            As many, or fewer where hardly any draw has that company.
        """
        sampler = self.history.asked.sampler
        if isinstance(sampler, BatchSampler):
            drawn = self._draw_at_once(sampler)
        else:
            drawn = self._draw_one_by_one()
        first = next(drawn)
        company = self._company(first)
        others = (t for t in itertools.islice(drawn, _DRAWS * count) if self._company(t) == company)
        return [first, *itertools.islice(others, count - 1)]

    def _company(self, trial: FrozenTrial) -> tuple[Hashable, ...]:
        return decode(self.spec, Proposal(trial.params)).company

    def suggest(self, name: str, axis: Dimension) -> tuple[Value, BaseDistribution]:
        """Returns a hyperparameter that a training loop asks for, drawn with the last proposal.

        Args:
            name: Its name.
            axis: Where it is searched.
        """
        if not self._open:
            self._ask()
        return self._suggest(name, axis), to_distribution(axis)

    def _draw_one_by_one(self) -> Iterator[FrozenTrial]:
        """Yields trials; those drawn before stay open, so that samplers take them for running."""
        self._close()
        while True:
            question = self._ask()
            proposal = Proposal(walk(self.spec, self._suggest))
            asked = self.history.asked.get_trials(deepcopy=False)[question.number]
            # TPE notes its draw there, which the trial says anyway.
            state = {} if self.spec.search.sampler == "tpe" else asked.system_attrs
            yield template_of(self.spec, proposal, state)

    def _draw_at_once(self, sampler: BatchSampler) -> Iterator[FrozenTrial]:
        for point in sampler.draw_many(self.history.asked):
            yield template_of(self.spec, Proposal(walk(self.spec, point)))

    def _ask(self) -> optuna.Trial:
        with self._explained():
            self._open.append(self.history.asked.ask())
        return self._open[-1]

    def _close(self) -> None:
        # A trial enters the history when it comes back from the database; these were only
        # questions, and a failed trial is one that samplers do not look at.
        for question in self._open:
            self.history.asked.tell(question, state=TrialState.FAIL)
        self._open = []

    def _suggest(self, name: str, axis: Dimension) -> Value:
        with self._explained():
            return self._draw(self._open[-1], name, axis)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Says of what a sampler of the user's own raises that it is theirs."""
        sampler = self.spec.search.sampler
        try:
            yield
        except Exception as error:
            if sampler in SAMPLERS:
                raise
            raise SpecError(
                f"search.sampler = {sampler!r} raised {type(error).__name__}: {error}. "
                "Mend it, or take one of " + ", ".join(SAMPLERS) + "."
            ) from error

    @staticmethod
    def _draw(trial: optuna.Trial, name: str, axis: Dimension) -> Value:
        match axis:
            case Float():
                return trial.suggest_float(name, axis.low, axis.high, log=axis.log)
            case Int():
                return trial.suggest_int(name, axis.low, axis.high, log=axis.log)
            case Choice():
                return cast("Value", trial.suggest_categorical(name, axis.choices))
            case Fixed():
                return axis.value


def template_of(
    spec: StudySpec, proposal: Proposal, sampler_state: Mapping[str, Any] | None = None
) -> FrozenTrial:
    """Returns a proposal as a trial to start; its torch-form values go along as an attribute.

    Args:
        spec: The resolved spec.
        proposal: Where the trial lies.
        sampler_state: What the sampler wants to find with the trial later, as JSON can hold it.
    """
    config = decode(spec, proposal)
    attributes: dict[str, object] = {"config": config.to_json()}
    if proposal.preset is not None:
        attributes["preset"] = proposal.preset
    if sampler_state:
        attributes[SAMPLER_STATE] = dict(sampler_state)
    return create_trial(
        state=TrialState.RUNNING,
        params=dict(proposal.params),
        distributions=distributions_of(spec, proposal.params),
        user_attrs=attributes,
    )
