"""Proposes the trials of a comparison: every optimizer is searched alone, and trains as much."""

from __future__ import annotations

import functools
import itertools
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.domain.catalog.dimensions import Dimension, Fixed, Value
from tuner.domain.lengths import share_trained
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.domain.trials import RANDOM, Outcome, Proposal, TrialRecord, default_proposals
from tuner.errors import ExhaustedError
from tuner.search.distributions import to_distribution
from tuner.search.knowledge import Knowledge
from tuner.search.mixture import ROOT, draw_evenly
from tuner.search.proposer import Proposer


class Comparer(Proposer):
    """Proposes the trials of a study that compares optimizers.

    It opens with the defaults of each and with points drawn evenly from each one's whole range,
    about half of its trials. The others come from one sampler for each optimizer, which knows that
    one's trials alone; the next trial is for the optimizer that has trained least. A trial that
    failed counts as a whole one: whatever always fails would else take all that is left.

    Args:
        spec: The resolved spec.
        seed: The worker's seed.
        knowledge: The priors; None for those that ship with tuner.
    """

    def __init__(self, spec: StudySpec, seed: int, knowledge: Knowledge | None = None) -> None:
        super().__init__(spec, seed, knowledge)
        seeds = np.random.SeedSequence(seed).generate_state(len(spec.space.optimizers))
        self._searches = {
            name: Proposer(_restrict(spec, name), int(own), knowledge)
            for name, own in zip(spec.space.optimizers, seeds, strict=True)
        }
        self._trained: dict[int, tuple[str, float]] = {}
        self._opening_trials = [self.template(one) for one in list_openings(spec)]
        for trial in self._opening_trials:
            self._searches[trial.params["optimizer"]].history.tried.plan(trial.params)

    def learn(self, news: Iterable[TrialRecord]) -> None:
        """Takes in trials that started, were evaluated or finished.

        Args:
            news: Their records, each as it is by now; one that is known already replaces itself.
        """
        news = list(news)
        super().learn(news)
        for record in news:
            self._searches[record.optimizer].learn([record])
            counts_whole = not record.outcome.is_over or record.outcome is Outcome.FAILED
            trained = 1.0 if counts_whole else share_trained(record.attributes)
            self._trained[record.number] = record.optimizer, trained

    def closing(self) -> None:
        """Returns nothing: all defaults are openings."""

    def propose(self) -> FrozenTrial:
        """Returns the next trial of the optimizer that has trained least.

        Raises:
            ExhaustedError: If nothing of it is left to try.
        """
        return self.propose_many(1)[0]

    def propose_many(self, count: int) -> list[FrozenTrial]:
        """Returns trials for the store to start and train together, learnt from the same past.

        Args:
            count: The number of trials, at least 1.

        Returns:
            As many, or fewer where hardly any have the fuse key of the first, or few are left.

        Raises:
            ExhaustedError: If nothing is left to try of the optimizer that has trained least.
        """
        found: list[FrozenTrial] = []
        for name, trials in Counter(self._allot(count)).items():
            try:
                drawn = self._searches[name].propose_many(trials)
            except ExhaustedError as error:
                raise ExhaustedError(f"of {name}, {error}") from None
            found += [self._adopt(trial) for trial in drawn]
        fuse_key = self._fuse_key(found[0])
        return [trial for trial in found if self._fuse_key(trial) == fuse_key]

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing was left to try of an optimizer, when last asked for."""
        return any(search.is_exhausted for search in self._searches.values())

    def suggest(
        self, name: str, axis: Dimension, proposal: Proposal | None = None
    ) -> tuple[Value, BaseDistribution]:
        """Returns a hyperparameter that a training loop asks for, from its optimizer's search.

        Args:
            name: The hyperparameter's name.
            axis: The range that the loop asks for it in.
            proposal: The trial that asks; without one, any search of this study may answer.

        Returns:
            The value, and the range as Optuna keeps it.
        """
        if proposal is None:
            return super().suggest(name, axis)
        return self._searches[str(proposal.params["optimizer"])].suggest(name, axis, proposal)

    def _allot(self, count: int) -> Iterator[str]:
        """Yields the optimizers of the next trials: whichever has trained least by then."""
        trained = dict.fromkeys(self._searches, 0.0)
        for name, share in self._trained.values():
            trained[name] += share
        for _ in range(count):
            name = min(trained, key=lambda name: round(trained[name], 6))
            trained[name] += 1.0
            yield name

    def _adopt(self, trial: FrozenTrial) -> FrozenTrial:
        """Returns a trial of one optimizer's search as one of the whole space."""
        return create_trial(
            state=TrialState.RUNNING,
            params=trial.params,
            distributions=self.history.distributions.of(trial.params),
            user_attrs=trial.user_attrs,
        )


def list_openings(spec: StudySpec) -> list[Proposal]:
    """Returns the trials that a comparison starts with, round by round over all optimizers.

    First come the defaults of each, then points drawn evenly: as many as there are for half of the
    training, or for all of it with ``search.sampler = "random"``. A larger budget only adds to
    them, and so does another optimizer, since each point has a seed of its own.

    Args:
        spec: The resolved spec.
    """
    size = spec.budget.trials if spec.budget.full_trials is None else spec.budget.full_trials
    each = int(size // len(spec.space.optimizers))
    even = each - 1 if spec.search.sampler == "random" else each // 2
    draws = [_draw_points(spec, name) for name in spec.space.optimizers]
    rounds = [next(draw, None) for _ in range(even) for draw in draws]
    points = [Proposal(point, RANDOM) for point in rounds if point is not None]
    return [*default_proposals(spec), *points]


def _draw_points(spec: StudySpec, optimizer: str) -> Iterator[dict[str, Value]]:
    """Yields points of an optimizer, drawn evenly, none twice; no more where few are left."""
    taken: list[dict[str, Value]] = []
    for index in itertools.count():
        own = (spec.search.seed, zlib.crc32(optimizer.encode()), index)
        rng = np.random.default_rng(own)
        for _ in range(_TRIES):
            point = walk(spec, functools.partial(_draw, optimizer, rng))
            if point not in taken:
                break
        else:
            return
        taken.append(point)
        yield point


_TRIES = 100
"""Draws in a row of points that were drawn before, after which there are taken to be no others."""


def _draw(optimizer: str, rng: np.random.Generator, name: str, axis: Dimension) -> Value:
    """Returns a value of an axis; all are as likely, on the scale that it is searched on."""
    if name == ROOT:
        return optimizer
    if isinstance(axis, Fixed):
        return axis.value
    value: Value = draw_evenly(to_distribution(axis), rng)
    return value


def _restrict(spec: StudySpec, optimizer: str) -> StudySpec:
    """Returns the spec of a search of one of its optimizers alone."""
    networks = {
        name: {optimizer: tables[optimizer]} if optimizer in tables else {}
        for name, tables in spec.network.items()
    }
    return spec.model_copy(
        update={
            "space": spec.space.model_copy(update={"optimizers": (optimizer,)}),
            "optimizer": {optimizer: spec.optimizer[optimizer]},
            "network": networks,
        }
    )
