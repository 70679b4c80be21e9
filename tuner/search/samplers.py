"""The samplers that draw the points to try: Optuna's, and tuner's own over records of the past.

The Gaussian process, CMA-ES and the Sobol sequence model the parameters that every trial has, so
they are told the space instead of guessing it from the past. The state of a sampler lies in the
attributes of its trials, which come back with the records: any worker, after any interruption,
sees the same.
"""

from __future__ import annotations

import bisect
import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.domain.catalog.hyperparameters import LogNormalPrior
from tuner.domain.search import COMPARE
from tuner.domain.spec import StudySpec
from tuner.errors import SpecError
from tuner.search.batches import BatchSampler
from tuner.search.distributions import joint_space
from tuner.search.knowledge import priors_of
from tuner.search.mixture import MixtureSampler
from tuner.search.plugins import build_plugin
from tuner.search.unit_cube import UnitCube

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def build_sampler(
    spec: StudySpec, seed: int, priors: Mapping[str, LogNormalPrior] | None = None
) -> optuna.samplers.BaseSampler:
    """Returns the sampler of a study.

    TPE models all hyperparameters of one optimizer jointly, which the default would sample
    independently, since the space depends on the optimizer.

    Args:
        spec: The resolved spec.
        seed: The worker's seed.
        priors: Beliefs about good values, by parameter; None for the catalog's.

    Raises:
        SpecError: If the user's own sampler cannot be built, or is Optuna's CMA-ES, which unpickles
            values of the database.
    """
    seed %= 2**32
    if spec.search.sampler == "mixture":
        # A comparison opens with even draws of its own, so its sampler need draw none.
        evenly, near = (0.0, 0.5) if spec.search.mode == COMPARE else (0.25, 0.25)
        beliefs = priors_of(spec) if priors is None else priors
        return MixtureSampler(seed, beliefs, evenly=evenly, near=near)
    if spec.search.sampler in _BUILDERS:
        return _BUILDERS[spec.search.sampler](spec, seed)
    own = spec.search.sampler
    sampler: optuna.samplers.BaseSampler = build_plugin(
        own, optuna.samplers.BaseSampler, "search.sampler", seed=seed
    )
    if isinstance(sampler, optuna.samplers.CmaEsSampler):
        raise SpecError(
            f"search.sampler = {own!r}: Optuna's CMA-ES keeps its state with the trials as "
            "a pickle, so that whoever may write to the database could run code in every "
            'worker. Use search.sampler = "cmaes", which keeps numbers.'
        )
    return sampler


def _build_tpe(spec: StudySpec, seed: int) -> BatchSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return BatchSampler(seed)


class JointSampler(optuna.samplers.BaseSampler):
    """A sampler that draws all parameters of a trial together, from a space it is told.

    Args:
        space: The distributions by name.
        seed: The worker's seed.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], seed: int) -> None:
        self._space = dict(space)
        self._seed = seed
        self._single = optuna.samplers.RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns the space it was told."""
        return self._space

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Returns a random value for a parameter outside the space it was told."""
        return self._single.sample_independent(study, trial, param_name, param_distribution)


class SobolSampler(JointSampler):
    """A scrambled Sobol sequence: points that fill the space more evenly than random ones.

    Every worker follows a sequence of its own, scrambled by its seed, so that no two of them
    draw one point twice without having to agree. A worker goes on from the last of its points
    that was started or is proposed beside, so none is skipped when a proposal is dropped.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the next point of the sequence."""
        from scipy.stats.qmc import Sobol  # noqa: PLC0415 (takes half a second)

        if not search_space:
            return {}
        taken = [
            past.system_attrs["point"]
            for past in study.get_trials(deepcopy=False)
            if past.system_attrs.get("sequence") == self._seed
        ]
        point = max(taken, default=-1) + 1
        sequence = Sobol(len(search_space), scramble=True, rng=self._seed)
        if point:
            sequence.fast_forward(point)
        _remember(study, trial, "point", point)
        _remember(study, trial, "sequence", self._seed)
        return UnitCube(search_space).to_params(sequence.random(1)[0])


class GaussianProcessSampler(JointSampler):
    """Optuna's Gaussian process, fitted to all trials that ended.

    Optuna's alone looks at complete trials, and would propose a point again that had diverged.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(space, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._model = optuna.samplers.GPSampler(seed=seed)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the point of greatest expected improvement; at first, a random one."""
        if not search_space:
            return {}
        past = study.get_trials(deepcopy=False, states=(*_FINISHED, TrialState.RUNNING))
        joint = [t for t in past if search_space.keys() <= t.params.keys()]
        ended = [t for t in joint if t.state in _FINISHED]
        model = optuna.create_study(
            storage=optuna.storages.InMemoryStorage(), sampler=self._model, direction="minimize"
        )
        for cost, t in zip(capped_costs(ended, study.direction), ended, strict=True):
            model.add_trial(_reduced(t, search_space, TrialState.COMPLETE, cost))
        for t in joint:
            if t.state is TrialState.RUNNING:
                model.add_trial(_reduced(t, search_space, TrialState.RUNNING))
        return model.ask(fixed_distributions=search_space).params


class CmaEsSampler(JointSampler):
    """CMA-ES: a normal distribution that moves to the better half of its draws.

    Hansen, "The CMA Evolution Strategy: A Tutorial", 2016, by the package cmaes.

    A trial carries the generation it was drawn in. The distribution is worked out anew from all
    trials each time, generation after generation, which takes milliseconds and needs no state
    that a worker could lose or workers could disagree about.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(space, seed)
        self._random = np.random.RandomState(seed)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns a draw from the distribution as it is after the last full generation."""
        import cmaes  # noqa: PLC0415 (takes half a second)

        cube = UnitCube(search_space)
        strategy = cmaes.CMA(
            mean=np.full(len(search_space), 0.5),
            sigma=0.25,  # a quarter of the range, as Hansen's tutorial advises
            bounds=np.tile([0.0, 1.0], (len(search_space), 1)),
        )
        generations: dict[int, list[FrozenTrial]] = {}
        for past in study.get_trials(deepcopy=False, states=_FINISHED):
            if (generation := past.system_attrs.get("generation")) is not None:
                generations.setdefault(generation, []).append(past)
        # Workers draw more than a generation where they wait for none; the first drawn count,
        # not the first finished, which would favour what was pruned.
        size = strategy.population_size
        while len(drawn := generations.get(strategy.generation, [])) >= size:
            drawn = sorted(drawn, key=lambda t: int(t.user_attrs["number"]))[:size]
            points = [cube.to_point(t.params) for t in drawn]
            strategy.tell(list(zip(points, ranks(drawn, study.direction), strict=True)))
        strategy.reseed_rng(self._random.randint(2**31))
        _remember(study, trial, "generation", strategy.generation)
        return cube.to_params(strategy.ask())


_BUILDERS: dict[str, Callable[[StudySpec, int], optuna.samplers.BaseSampler]] = {
    "tpe": _build_tpe,
    "random": lambda spec, seed: optuna.samplers.RandomSampler(seed=seed),
    "qmc": lambda spec, seed: SobolSampler(joint_space(spec), seed),
    "gp": lambda spec, seed: GaussianProcessSampler(joint_space(spec), seed),
    "cmaes": lambda spec, seed: CmaEsSampler(joint_space(spec), seed),
}


def ranks(trials: Sequence[FrozenTrial], direction: StudyDirection) -> list[float]:
    """Returns the rank of each finished trial, from 0 for the best; equal trials share theirs.

    Complete trials come first, then pruned ones, those that got further before the others, then
    diverged ones.
    """
    sign = 1.0 if direction is StudyDirection.MINIMIZE else -1.0
    keys = [_order_of(trial, sign) for trial in trials]
    ordered = sorted(keys)
    return [
        (bisect.bisect_left(ordered, key) + bisect.bisect_right(ordered, key) - 1) / 2
        for key in keys
    ]


def capped_costs(trials: Sequence[FrozenTrial], direction: StudyDirection) -> list[float]:
    """Returns each finished trial's value, the smaller the better, up to a largest cost.

    The largest cost is as far behind the median as twice the best lies before it. Diverged trials
    have it too. Without it, one loss of 1e6 would make all others look alike.
    """
    sign = 1.0 if direction is StudyDirection.MINIMIZE else -1.0
    values = [sign * t.value for t in trials if t.value is not None and not _has_diverged(t)]
    if not values:
        return [0.0] * len(trials)
    median = statistics.median(values)
    cap = median + 2 * (median - min(values))
    return [
        cap if t.value is None or _has_diverged(t) else min(cap, sign * t.value) for t in trials
    ]


def _has_diverged(trial: FrozenTrial) -> bool:
    return any(math.isnan(value) for value in trial.intermediate_values.values())


def _order_of(trial: FrozenTrial, sign: float) -> tuple[int, int, float]:
    if trial.value is None or _has_diverged(trial):
        return (2, 0, 0.0)
    if trial.state is TrialState.PRUNED:
        return (1, -len(trial.intermediate_values), sign * trial.value)
    return (0, 0, sign * trial.value)


def _reduced(
    trial: FrozenTrial,
    space: Mapping[str, BaseDistribution],
    state: TrialState,
    value: float | None = None,
) -> FrozenTrial:
    params = {name: trial.params[name] for name in space}
    return create_trial(state=state, value=value, params=params, distributions=dict(space))


def _remember(study: Study, trial: FrozenTrial, key: str, value: int) -> None:
    study._storage.set_trial_system_attr(trial._trial_id, key, value)  # noqa: SLF001
