"""The import of a plain Optuna study: its trials become those of a study here, by names of ours.

What is known of an optimizer, a schedule or a batch size is mapped; all else stays what it is, as
a hyperparameter of the workload's own.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from tuner.domain.adoption import OWN, Target, find_optimizer, find_schedule, map_names
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Int, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.names import is_keepable, suggest
from tuner.domain.passed import IMPORTED, Passed
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import set_value
from tuner.domain.study_section import NAME
from tuner.errors import SpecError
from tuner.search.distributions import to_distribution
from tuner.service.description import describe_study
from tuner.store import Database, Studies, StudyHandle
from tuner.store.optuna.foreign import ForeignStudy

_ENDED = {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
_METRIC = r"^[A-Za-z_][\w./-]*$"


@dataclass(frozen=True)
class Wishes:
    """The choices of a person who imports a study.

    Attributes:
        name: The study's name here; None for the same.
        told: What parameters are here, by their names.
        optimizer: The optimizer of trials that name none.
        workload: The import string of what trains it; None if it is only looked at.
        metric: The name of its value; None for its own, else ``value``.
        settings: Further ``key=value`` texts of the study file.
    """

    name: str | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    optimizer: str | None = None
    workload: str | None = None
    metric: str | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adopted:
    """A study that was imported.

    Attributes:
        study: The study here.
        targets: What each parameter of theirs is here.
        trials: How many trials came along.
        left_out: Why others did not, and how many.
    """

    study: StudyHandle
    targets: Mapping[str, Target]
    trials: int
    left_out: Mapping[str, int]


def adopt_study(foreign: ForeignStudy, database: Database, wishes: Wishes) -> Adopted:
    """Creates a study here from one of Optuna's, with its trials; all of it or nothing.

    Args:
        foreign: The study, as it was read.
        database: The database that gets it.
        wishes: What a person says about it.

    Raises:
        SpecError: If there is a study of that name, nothing says which optimizer trained, or a
            name that was told is unknown.
    """
    adopter = _Adopter(foreign, wishes)
    spec = adopter.describe()
    study = Studies(database).create(spec, [adopter.convert(spec, one) for one in adopter.kept])
    return Adopted(study, adopter.targets, len(adopter.kept), adopter.left_out)


class _Adopter:
    """Maps a study of Optuna's to one here.

    Args:
        foreign: The study.
        wishes: What a person says about it.
    """

    def __init__(self, foreign: ForeignStudy, wishes: Wishes) -> None:
        self._foreign, self._wishes = foreign, wishes
        ended = [trial for trial in foreign.trials if trial.state in _ENDED]
        names = dict.fromkeys(name for trial in ended for name in trial.params)
        self.targets = map_names(names, wishes.told)
        self.left_out: Counter[str] = Counter()
        unfinished = len(foreign.trials) - len(ended)
        if unfinished:
            self.left_out["not over yet"] = unfinished
        self._refuse_unknown_optimizer(names)
        self._drop_schedules(ended)
        self.kept = [trial for trial in ended if self._is_kept(trial)]
        if not self.kept:
            raise SpecError(
                f"{foreign.name!r} has no trial that can be imported: "
                + (", ".join(f"{n} {why}" for why, n in self.left_out.items()) or "it is empty")
                + "."
            )
        self._axes = self._find_axes()
        steps = [step for trial in self.kept for step in trial.intermediate_values]
        self._shift = 1 if steps and min(steps) == 0 else 0
        self._length = max([1, *(step + self._shift for step in steps)])

    def describe(self) -> StudySpec:
        """Returns the spec of the study here, resolved."""
        foreign, wishes = self._foreign, self._wishes
        if wishes.name is None and re.fullmatch(NAME, foreign.name) is None:
            raise SpecError(
                f"{foreign.name!r} cannot be the name of a study here: one must not start with "
                "'-' or a space, nor hold a slash or a line break. Give it another one with "
                "--as NAME."
            )
        metric = wishes.metric or foreign.metric or "value"
        passed = Passed(
            module=IMPORTED, qualname=foreign.name, kind="objective", file=foreign.source
        )
        tables: dict[str, Any] = {
            "study": {
                "name": wishes.name or foreign.name,
                "workload": wishes.workload or f"{IMPORTED}:objective",
                "metric": metric if re.fullmatch(_METRIC, metric) else "value",
                "direction": "maximize" if foreign.maximizes else "minimize",
            },
            "budget": {"trials": len(self.kept), "steps": self._length},
            "search": {"sampler": "random", "pruner": "none", "portfolio": False, "spare": 0},
            "space": {
                "optimizers": list(dict.fromkeys(map(self._optimizer_of, self.kept))),
                "schedules": list(dict.fromkeys(map(self._schedule_of, self.kept))),
                "breadth": 1,
            },
        }
        if wishes.workload is None:
            tables |= {"confirm": {"top": 0}, "passed": passed.model_dump(mode="json")}
        for (optimizer, key), axis in self._axes.items():
            name = "train.batch_size" if optimizer is None else f"optimizer.{optimizer}.{key}"
            value = axis.value if isinstance(axis, Fixed) else axis.model_dump(mode="json")
            set_value(tables, name, value)
        origin = f"the study {foreign.name!r} of {foreign.source}"
        return describe_study(tables, {}, wishes.settings, origin=origin).resolve()

    def convert(self, spec: StudySpec, trial: FrozenTrial) -> FrozenTrial:
        """Returns a trial with its parameters, steps and attributes as they are here."""
        optimizer = self._optimizer_of(trial)
        chosen: dict[str, Value] = {"optimizer": optimizer, "schedule": self._schedule_of(trial)}
        known = spec.axes()
        params, distributions = dict[str, Any](), dict[str, BaseDistribution]()
        for name, choice in chosen.items():
            params[name], distributions[name] = choice, to_distribution(known[name])
        for theirs, given in trial.params.items():
            ours = self._name_of(theirs, optimizer)
            if ours is None:
                own = theirs if theirs not in known else f"their_{theirs}"
                params[own] = given
                distributions[own] = _tell_single(trial.distributions[theirs], given)
            elif ours not in chosen and not isinstance(axis := known.get(ours), Fixed | None):
                params[ours] = float(given) if isinstance(axis, Float) else given
                distributions[ours] = to_distribution(axis)
        reports = {
            step + self._shift: value
            for step, value in trial.intermediate_values.items()
            if math.isfinite(value)
        }
        state, value = trial.state, trial.value if trial.state is not TrialState.FAIL else None
        attributes = self._attributes(trial, reports)
        if value is not None and not math.isfinite(value):
            state, value = TrialState.PRUNED, None
            attributes["diverged_step"] = attributes["steps"]
        if state is TrialState.PRUNED and value is None and reports:
            value = reports[max(reports)]
        return FrozenTrial(
            number=trial.number,
            state=state,
            value=value,
            datetime_start=_to_utc(trial.datetime_start),
            datetime_complete=_to_utc(trial.datetime_complete),
            params=params,
            distributions=distributions,
            user_attrs=attributes,
            system_attrs={},
            intermediate_values=reports,
            trial_id=trial.number,
        )

    def _attributes(self, trial: FrozenTrial, reports: Mapping[int, float]) -> dict[str, Any]:
        """Returns what is recorded of a trial here; numbers of theirs are metrics."""
        full = trial.state is TrialState.COMPLETE
        attributes: dict[str, Any] = {
            "steps": self._length if full else max(reports, default=0),
            "total_steps": self._length,
            "imported_number": trial.number,
        }
        metrics = {}
        for name, value in trial.user_attrs.items():
            if not is_keepable(f"their.{name}"):
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and math.isfinite(value):
                metrics[name] = value
            else:
                attributes[f"their.{name}"] = value
        if metrics:
            attributes["metrics"] = metrics
        if trial.state is TrialState.FAIL:
            attributes["error"] = str(trial.system_attrs.get("fail_reason", "It failed there."))
        return attributes

    def _refuse_unknown_optimizer(self, names: Iterable[str]) -> None:
        given = self._wishes.optimizer
        if given is not None and given not in OPTIMIZERS:
            raise SpecError(
                f"--optimizer {given}: there is no optimizer of this name: "
                f"{suggest(given, OPTIMIZERS)}"
            )
        named = any(self.targets[name].key == "optimizer" for name in names)
        if not named and given is None:
            raise SpecError(
                f"Nothing in {self._foreign.name!r} says which optimizer trained. Say it with "
                "--optimizer adamw, or which of its parameters names it: --map THEIRS=optimizer. "
                f"It has {', '.join(names) or 'no parameters'}."
            )

    def _drop_schedules(self, trials: Sequence[FrozenTrial]) -> None:
        """Leaves a schedule that the catalog does not know as a hyperparameter of their own."""
        for name, target in self.targets.items():
            values = {trial.params[name] for trial in trials if name in trial.params}
            if target.key == "schedule" and None in map(find_schedule, values):
                self.targets[name] = Target(OWN)

    def _is_kept(self, trial: FrozenTrial) -> bool:
        for name, value in trial.params.items():
            if self.targets[name].key == "optimizer" and find_optimizer(value, ()) is None:
                self.left_out[f"with the optimizer {value}, which is not in the catalog"] += 1
                return False
        if trial.state is TrialState.COMPLETE and trial.value is None:
            self.left_out["without a value"] += 1
            return False
        return True

    def _optimizer_of(self, trial: FrozenTrial) -> str:
        given = [self.targets[name].key for name in trial.params]
        for name, value in trial.params.items():
            if self.targets[name].key == "optimizer":
                return find_optimizer(value, given) or ""
        return self._wishes.optimizer or ""

    def _schedule_of(self, trial: FrozenTrial) -> str:
        for name, value in trial.params.items():
            if self.targets[name].key == "schedule":
                return find_schedule(value) or "constant"
        return "constant"

    def _name_of(self, theirs: str, optimizer: str) -> str | None:
        """Returns our name of a parameter in a trial, None if it stays their own."""
        target = self.targets[theirs]
        if target.key in ("optimizer", "schedule", "batch_size"):
            return target.key
        if target.key == OWN or target.optimizer not in (None, optimizer):
            return None
        return f"{optimizer}.{target.key}" if (optimizer, target.key) in self._axes else None

    def _find_axes(self) -> dict[tuple[str | None, str], Dimension]:
        """Returns the axes of what is mapped, by optimizer and key, None for all optimizers.

        A parameter whose values are none that a hyperparameter here can have stays their own.
        """
        found: dict[tuple[str | None, str], list[tuple[str, BaseDistribution]]] = {}
        for trial in self.kept:
            optimizer = self._optimizer_of(trial)
            for name, distribution in trial.distributions.items():
                target = self.targets[name]
                if target.key in (OWN, "optimizer", "schedule"):
                    continue
                if target.key == "batch_size":
                    found.setdefault((None, target.key), []).append((name, distribution))
                elif target.optimizer in (None, optimizer) and target.key in _keys_of(optimizer):
                    found.setdefault((optimizer, target.key), []).append((name, distribution))
        axes = {}
        for (branch, key), ranges in found.items():
            axis = _join([distribution for _, distribution in ranges])
            fits = axis is not None and (
                _are_counts(axis) if branch is None else _fits(branch, key, axis)
            )
            if fits and axis is not None:
                axes[branch, key] = axis
            elif branch is None:
                self.targets |= {name: Target(OWN) for name, _ in ranges}
        return axes


def _keys_of(optimizer: str) -> set[str]:
    return {one.name for one in OPTIMIZERS[optimizer].hyperparameters}


def _fits(optimizer: str, key: str, axis: Dimension) -> bool:
    [hyperparameter] = [h for h in OPTIMIZERS[optimizer].hyperparameters if h.name == key]
    try:
        hyperparameter.fit(key, axis)
    except ValueError:
        return False
    return True


def _are_counts(axis: Dimension) -> bool:
    match axis:
        case Int():
            return axis.low >= 1
        case Choice():
            return all(type(value) is int and value >= 1 for value in axis.choices)
        case Fixed():
            return type(axis.value) is int and axis.value >= 1
        case _:
            return False


def _join(distributions: Sequence[BaseDistribution]) -> Dimension | None:
    """Returns one axis that holds all values of some distributions; None if there is none."""
    if all(isinstance(one, CategoricalDistribution) for one in distributions):
        choices = dict.fromkeys(
            value
            for one in distributions
            if isinstance(one, CategoricalDistribution)
            for value in one.choices
        )
        numbers = [v for v in choices if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(choices):
            return None
        return Fixed(value=numbers[0]) if len(numbers) == 1 else Choice(choices=tuple(numbers))
    ranges = [one for one in distributions if isinstance(one, FloatDistribution | IntDistribution)]
    if len(ranges) < len(distributions):
        return None
    low, high = min(one.low for one in ranges), max(one.high for one in ranges)
    log = all(one.log for one in ranges)
    if low == high:
        return Fixed(value=low)
    if all(isinstance(one, IntDistribution) for one in ranges):
        return Int(low=int(low), high=int(high), log=log)
    return Float(low=float(low), high=float(high), log=log)


def _tell_single(distribution: BaseDistribution, value: Any) -> BaseDistribution:
    """Returns a distribution; one of a single value as a choice, since a range has two ends."""
    return CategoricalDistribution((value,)) if distribution.single() else distribution


def _to_utc(moment: datetime | None) -> datetime | None:
    """Returns a time of Optuna's, which is local, as it is kept here: naive UTC."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)
