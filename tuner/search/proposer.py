"""Proposes trials: those that did well before first, then the points that a sampler draws."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.domain.catalog.dimensions import Dimension, Value
from tuner.domain.samplers import SAMPLERS, sampler_row
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.domain.trials import (
    WARM_START,
    Decoder,
    Proposal,
    TrialRecord,
    default_proposal,
    has_closing,
)
from tuner.domain.warm_start import OwnValue
from tuner.errors import ExhaustedError, SpecError
from tuner.search.batches import DrawsMany, draw_evenly
from tuner.search.distributions import suggest, to_distribution
from tuner.search.history import SAMPLER_STATE, History
from tuner.search.knowledge import Knowledge
from tuner.search.portfolio import choose_openings
from tuner.search.samplers import build_sampler
from tuner.search.tried import Remainder, key_of

_DRAWS = 20
"""Draws for each trial of a cohort, before a cohort is left smaller than it was asked for."""

_REDRAWS = 5
"""Draws in a row of tried configurations, after which the sampler is not asked again."""

_OWN_REDRAWS = 100
"""The same for a sampler of the user's own, which nothing stands in for."""


class Proposer:
    """Proposes trials of a study.

    Args:
        spec: The resolved spec.
        seed: The worker's seed; two workers with one seed would propose alike.
        knowledge: The configurations to start with and the priors; None for those that ship with
            tuner.

    Attributes:
        spec: The study.
        history: The past it learns from; the caller keeps it up to date.

    Raises:
        SpecError: If the user's own sampler cannot be built.
    """

    def __init__(self, spec: StudySpec, seed: int, knowledge: Knowledge | None = None) -> None:
        self.spec = spec
        knowledge = knowledge or Knowledge.shipped(spec)
        openings = choose_openings(spec, knowledge.portfolio)
        points = [opening.params for opening in openings]
        self.history = History(spec, build_sampler(spec, seed, knowledge.priors_for(spec)), points)
        self._sampler = sampler_row(spec.search.sampler)
        self._decoder = Decoder(spec)
        self._open: list[optuna.Trial] = []
        self._opening_trials = [self.template(opening) for opening in openings]
        self._fallback = optuna.samplers.RandomSampler(seed=seed % 2**32)
        self._remainder = Remainder(spec, self.history.tried)
        self._exhausted_at: int | None = None

    def learn(self, news: Iterable[TrialRecord]) -> None:
        """Takes in trials that started, were evaluated or finished.

        Args:
            news: Their records, each as it is by now; one that is known already replaces itself.
        """
        self.history.add(news)

    def openings(self) -> list[FrozenTrial]:
        """Returns the trials the study starts with."""
        return self._opening_trials

    def together(self, count: int) -> int:
        """Returns how many trials to start together.

        Args:
            count: How many can train as one.
        """
        return count

    def closing(self) -> FrozenTrial | None:
        """Returns the trial the study ends with: the own defaults of the leading optimizer.

        They tell how much the search has gained. A study of few trials spends none on them.
        """
        best = self.history.past.best
        if best is None or not has_closing(self.spec.budget):
            return None
        return self.template(default_proposal(self.spec, best.params["optimizer"]))

    def propose(self) -> FrozenTrial:
        """Returns a trial for the store to start, with parameters and attributes.

        Raises:
            ExhaustedError: If nothing is left to try.
        """
        return next(self._untried(self._draw_one_by_one()))

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing was left to try when last asked, and nothing has changed since."""
        return self._exhausted_at == self.history.version

    def propose_many(self, count: int) -> list[FrozenTrial]:
        """Returns trials for the store to start and train together, learnt from the same past.

        All have the fuse key of the first one drawn (see :class:`TrialConfig`).

        Args:
            count: The number of trials, at least 1.

        Returns:
            As many, or fewer where hardly any draw has that fuse key, or few are left to try.

        Raises:
            ExhaustedError: If nothing is left to try.
        """
        sampler = self.history.asked.sampler
        if isinstance(sampler, DrawsMany):
            drawn = self._untried(self._draw_at_once(sampler))
        else:
            drawn = self._untried(self._draw_one_by_one())
        first = next(drawn)
        fuse_key = self._fuse_key(first)
        others = (
            t for t in itertools.islice(drawn, _DRAWS * count) if self._fuse_key(t) == fuse_key
        )
        return [first, *itertools.islice(others, count - 1)]

    def _untried(self, drawn: Iterator[FrozenTrial]) -> Iterator[FrozenTrial]:
        """Yields trials that are new to the study, and to each other, as long as there are any.

        Raises:
            ExhaustedError: If there is not even one.
        """
        self._close()
        self._tell_ended()
        self.history.forget_least()
        tried, taken = self.history.tried, set[Hashable]()

        def is_new(params: Mapping[str, Value]) -> bool:
            return tried.open_ended or (key_of(params) not in taken and params not in tried)

        while (found := self._find(drawn, is_new)) is not None:
            taken.add(key_of(found.params))
            yield found
        if not taken:
            self._exhausted_at = self.history.version
            raise ExhaustedError(self._describe_end())

    def _find(
        self, drawn: Iterator[FrozenTrial], is_new: Callable[[Mapping[str, Value]], bool]
    ) -> FrozenTrial | None:
        """Returns a trial that is new, if there is one.

        Where a sampler draws only configurations that have been tried, points are drawn evenly, and
        then the first that is left is taken. A sampler of the user's own is not stood in for.
        """
        study = self.history.asked
        is_over = study.stopped or self._exhausted_at == self.history.version
        if is_over or self._is_used_up:
            return None
        own = self._sampler.own
        for trial in itertools.islice(drawn, _OWN_REDRAWS if own else _REDRAWS):
            if is_new(trial.params):
                return trial
        if own:
            return None
        for draw in itertools.islice(draw_evenly(self._fallback, study), _REDRAWS):
            if is_new(point := walk(self.spec, draw)):
                return self.template(Proposal(point))
        left = self._remainder.find(is_new)
        return None if left is None else self.template(Proposal(left))

    @property
    def _is_used_up(self) -> bool:
        """Whether every point of the space has been tried, and trials draw nothing of their own."""
        return self._remainder.is_empty and not self.history.tried.open_ended

    def _describe_end(self) -> str:
        sampler = self._sampler.name
        if self._is_used_up:
            count = self._remainder.count
            if count == 1:
                return "the one configuration of the space has been tried"
            return f"all {count} configurations of the space have been tried"
        if self.history.asked.stopped:
            return f"search.sampler = {sampler!r} is through with what it searches"
        return f"search.sampler = {sampler!r} proposes nothing that has not been tried"

    def _fuse_key(self, trial: FrozenTrial) -> tuple[Hashable, ...]:
        return self._decoder.decode(Proposal(trial.params)).fuse_key

    def suggest(
        self, name: str, axis: Dimension, proposal: Proposal | None = None
    ) -> tuple[Value, BaseDistribution]:
        """Returns a hyperparameter that a training loop asks for, drawn with the last proposal.

        A trial that comes from an earlier study has the value it had there, if its loop was asked
        for it alike.

        Args:
            name: Its name.
            axis: The axis it is searched on.
            proposal: The point of the trial that it is for; None for any.
        """
        if proposal is not None and proposal.preset == WARM_START:
            known = self._own_values(proposal).get(name)
            if known is not None and known.axis == axis:
                return cast("Value", known.value), to_distribution(axis)
        if not self._open:
            self._ask()
        return self._suggest(name, axis), to_distribution(axis)

    def _own_values(self, proposal: Proposal) -> Mapping[str, OwnValue]:
        """Returns what the training loop of an earlier study asked for in a trial taken over."""
        taken = () if self.spec.warm_start is None else self.spec.warm_start.openings
        for opening in taken:
            if opening.params.items() <= proposal.params.items():
                return opening.own
        return {}

    def _draw_one_by_one(self) -> Iterator[FrozenTrial]:
        """Yields trials; those drawn before stay open, so that samplers take them for running."""
        while True:
            question = self._ask()
            proposal = Proposal(walk(self.spec, self._suggest))
            # TPE notes its draw there, which is the trial's parameters anyway.
            state = {} if self._sampler.grouped else self.history.notes_on(question)
            yield self.template(proposal, state)

    def _draw_at_once(self, sampler: DrawsMany) -> Iterator[FrozenTrial]:
        for point in sampler.draw_many(self.history.asked):
            yield self.template(Proposal(walk(self.spec, point)))

    def _ask(self) -> optuna.Trial:
        with self._explained():
            self._open.append(self.history.asked.ask())
        return self._open[-1]

    def _close(self) -> None:
        # A trial enters the history when it comes back from the database; these were only
        # questions, which samplers must not take for trials any longer.
        for question in self._open:
            self.history.forget(question)
        self._open = []

    def _tell_ended(self) -> None:
        """Tells a sampler of the user's own which trials have ended, as Optuna would."""
        ended, self.history.ended = self.history.ended, []
        study = self.history.asked
        for trial in ended if self._sampler.own else ():
            with self._explained():
                study.sampler.after_trial(study, trial, trial.state, trial.values)

    def _suggest(self, name: str, axis: Dimension) -> Value:
        with self._explained():
            return suggest(self._open[-1], name, axis)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns an error of a sampler of the user's own into one that names it."""
        try:
            yield
        except Exception as error:
            if not self._sampler.own:
                raise
            raise SpecError(
                f"search.sampler = {self._sampler.name!r} raised {type(error).__name__}: {error}. "
                "Mend it, or take one of " + ", ".join(SAMPLERS) + "."
            ) from error

    def template(
        self,
        proposal: Proposal,
        sampler_state: Mapping[str, Any] | None = None,
        notes: Mapping[str, object] | None = None,
    ) -> FrozenTrial:
        """Returns a proposal as a trial to start; its torch-form values go along as an attribute.

        Args:
            proposal: The trial's point in the search space.
            sampler_state: The notes that the sampler reads with the trial later, plain as in JSON.
            notes: Other attributes of the trial.
        """
        config = self._decoder.decode(proposal).to_json()
        attributes: dict[str, object] = {"config": config, **(notes or {})}
        if proposal.preset is not None:
            attributes["preset"] = proposal.preset
        if sampler_state:
            attributes[SAMPLER_STATE] = dict(sampler_state)
        return create_trial(
            state=TrialState.RUNNING,
            params=dict(proposal.params),
            distributions=self.history.distributions.of(proposal.params),
            user_attrs=attributes,
        )
