"""The opening of a study: it is created, or found by its name if only the budget differs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

from tuner.domain.budget import Budget
from tuner.domain.points import count_configurations
from tuner.domain.printable import cut
from tuner.domain.regimes import FINETUNE, Arrival
from tuner.domain.spec import StudySpec
from tuner.domain.trial_settings import unit_of
from tuner.domain.trials import bent_defaults, default_proposals, has_closing
from tuner.domain.warm_start import AUTO
from tuner.errors import DeniedError, NotFoundError, SpecError
from tuner.report.tables import duration
from tuner.service.confirmation import prepare_confirmation
from tuner.service.warm_start import ENOUGH, add_warm_start
from tuner.store import Database, Studies, StudyHandle
from tuner.store.studies import Limit

_LIMITS = ("trials", "full_trials", "wall_time", "stop")
_EXTENDABLE = {f"budget.{name}" for name in _LIMITS}


@dataclass(frozen=True)
class StudyCheck:
    """The findings of the check of a study's workload, before the study is created.

    Attributes:
        asks_nothing: Whether it is known to ask for no hyperparameters of its own.
        arrival: The weights that its model has as a trial begins.
        ends_at_once: Whether the first evaluation of a command counted as its last.
    """

    asks_nothing: bool = False
    arrival: Arrival = Arrival.FRESH
    ends_at_once: bool = False


@dataclass(frozen=True)
class Opened:
    """A study that was created or opened, and how its budget changed.

    Attributes:
        database: The database that holds the study; its opener closes it.
        study: The study.
        created: Whether it is new.
        changed: Budgets that have changed, by key.
        kept: Budgets that stay above the study file's, by key: the study's own and the file's.
        seen: What was seen of its workload, if that was tried.
        denied: Why its confirmation stays as it is: who opens it may not make or change that. Empty
            if nothing was to be made or changed, or it was.
    """

    database: Database
    study: StudyHandle
    created: bool = False
    changed: dict[str, Limit] = field(default_factory=dict)
    kept: dict[str, tuple[Limit, Limit]] = field(default_factory=dict)
    seen: StudyCheck = StudyCheck()
    denied: str = ""

    def announcements(self) -> Iterator[str]:
        """Yields lines that tell a person how the study and its budget have changed."""
        name, spec = self.study.name, self.study.spec
        if self.created:
            yield f"Created study {name!r} in {self.database.name}"
        for key, limit in self.changed.items():
            has = "has" if key == "stop" else "has a budget of"
            yield f"Study {name!r} now {has} {_tell_limit(key, limit)}"
        if self.created or self.changed:
            yield from _announce_small_space(spec, certain=self.seen.asks_nothing)
        if self.created:
            yield from self._announce_arrival()
            if self.seen.ends_at_once and spec.search.pruner != "none":
                yield _tell_unprunable(spec)
            yield from _announce_warm_start(spec)
            yield from _announce_bent_defaults(spec)
        if self.denied:
            yield (
                f"The confirmation of {name!r} stays as it is. {self.denied} There, 'tuner study "
                f"confirm {shlex.quote(name)}' makes one once the search is over."
            )
        for key, (limit, said) in self.kept.items():
            yield (
                f"Study {name!r} stays at {_tell_limit(key, limit)} (the file says "
                f"{_tell_limit(key, said)}; to lower it: --set budget.{key}={said})"
            )

    def _announce_arrival(self) -> Iterator[str]:
        """Yields a line if the model is the same under any seed, and what follows from that."""
        if self.seen.arrival is Arrival.TRAINED:
            yield (
                "The model arrives with trained weights, which no seed changes: space.regime = "
                '"finetune" searches lower learning rates, with a warmup. For those of training '
                "from scratch: --set space.regime=scratch"
            )
        if self.seen.arrival is Arrival.REPEATED:
            yield (
                "The model has the same weights under any seed, and they look freshly drawn, as if "
                "its code seeded itself: it is searched as from scratch. If they are trained: "
                "--set space.regime=finetune"
            )


def _tell_unprunable(spec: StudySpec) -> str:
    unit, metric = unit_of(spec).removesuffix("s"), spec.study.metric
    example = f"such as '{metric}=0.31 {unit}=3'"
    if spec.process is not None and spec.process.pattern is not None:
        example = f"which process.pattern finds as (?P<{unit}>\\d+)"
    return (
        f"Warning: no trial can be pruned: the command's first evaluation counts as its last. Have "
        f"it print its {unit}, which is what [budget] counts, on the line of {metric}, {example}, "
        "and evaluate before the end."
    )


def open_study(
    connect: Callable[[bool], Database],
    spec: StudySpec,
    settings: Collection[str] = (),
    check: Callable[[StudySpec, bool], StudyCheck] | None = None,
) -> Opened:
    """Creates the study that a spec describes, or finds it and changes its budget.

    So is the study that is to confirm it made, and how that does it changed, until it begins.

    A setting such as ``budget.trials`` replaces the budget of trials, full trials or wall time. A
    study file only raises it, since the file may be older than the study's budget.

    Args:
        connect: Opens the database; where there is none, it makes one if given True, and else
            raises a NotFoundError. Called once where there is one.
        spec: The study file with the settings applied, not resolved.
        settings: The keys that were set beside the file, such as ``budget.trials``.
        check: Tries the workload of a new study before anything is created, and returns what it has
            seen; given the study, resolved, and whether to look if its model arrives with trained
            weights. It does where the spec names no regime, which then follows from that.

    Returns:
        The study, in its database that was opened.

    Raises:
        NotFoundError: If the earlier study that it is to start from does not exist.
        SpecError: If a study of this name differs in anything but its budget, or cannot start from
            the earlier one.
    """
    opened = _open_study(connect, spec, settings, check)
    confirm = spec.confirm if "confirm" in spec.model_fields_set else None
    try:
        prepare_confirmation(opened.database, opened.study, confirm)
    except DeniedError as error:  # of an earlier version, or with another [confirm] by now
        return replace(opened, denied=str(error))
    return opened


def _open_study(
    connect: Callable[[bool], Database],
    spec: StudySpec,
    settings: Collection[str],
    check: Callable[[StudySpec, bool], StudyCheck] | None,
) -> Opened:
    """Creates a study, or finds it and changes its budget; see :func:`open_study`."""
    database = _connect_if_there(connect)
    study = None if database is None else Studies(database).get(spec.study.name)
    if database is not None and study is not None:
        return _change_budget(Opened(database, study), spec, settings)
    resolved = add_warm_start(spec.resolve(), database)
    open_regime = spec.space.regime is None
    seen = StudyCheck() if check is None else check(resolved, open_regime)
    if seen.arrival is Arrival.TRAINED and open_regime:
        resolved = add_warm_start(spec.resolve(regime=FINETUNE), database)
    database = database or connect(True)
    try:
        study = Studies(database).create(resolved)
    except SpecError:
        # Another process created it in between; then it is compared like any other.
        study = Studies(database).get(spec.study.name)
        if study is None:
            raise
        opened = Opened(database, study, seen=seen)
        return _change_budget(opened, spec, settings)
    return Opened(database, study, created=True, seen=seen)


def _connect_if_there(connect: Callable[[bool], Database]) -> Database | None:
    try:
        return connect(False)
    except NotFoundError:
        return None


def _change_budget(opened: Opened, spec: StudySpec, settings: Collection[str]) -> Opened:
    """Gives a study that exists the budget that a spec asks for; see :func:`open_study`."""
    database, study = opened.database, opened.study
    wanted = spec.resolve(study.spec.space.breadth, study.spec.space.regime)
    if "warm_start" not in spec.search.model_fields_set:
        stored = {"warm_start": study.spec.search.warm_start}
        wanted = wanted.model_copy(update={"search": wanted.search.model_copy(update=stored)})
    differences = study.spec.differences(wanted)
    if any(key not in _EXTENDABLE for key in differences):
        raise SpecError(_describe(study.name, differences))
    # A default of a file that says nothing asks for nothing.
    written = spec.budget.model_fields_set
    asked = {name: getattr(spec.budget, name) for name in _LIMITS if name in written}
    forced = {name for name in asked if {"budget", f"budget.{name}"} & set(settings)}
    if "full_trials" in asked and "trials" not in asked:
        asked["trials"] = spec.budget.trials  # it follows from the other
        forced |= {"trials"} if "full_trials" in forced else set()
    before = study.spec.budget

    def change(budget: Budget) -> dict[str, Limit]:
        nonlocal before
        before = budget
        return {
            name: limit
            for name, limit in asked.items()
            if limit != getattr(budget, name)
            and (name in forced or _is_more(limit, getattr(budget, name)))
        }

    if change(before):
        study = Studies(database).extend(study, change)
    changed = change(before)
    kept = {
        name: (getattr(before, name), limit)
        for name, limit in asked.items()
        if name in written and name not in changed and limit != getattr(before, name)
    }
    return replace(opened, study=study, changed=changed, kept=kept)


def _announce_bent_defaults(spec: StudySpec) -> Iterator[str]:
    """Yields a line for each default that the study file does not allow the study's last trial."""
    if not has_closing(spec.budget):
        return
    bent = (b for p in default_proposals(spec) for b in bent_defaults(spec, p.params))
    for line in dict.fromkeys(map(str, bent)):
        yield f"{line[0].upper()}{line[1:]}."


def _announce_warm_start(spec: StudySpec) -> Iterator[str]:
    """Yields a line on the earlier study that a new one starts from, or that there is none."""
    taken = spec.warm_start
    if taken is None:
        if spec.search.warm_start == AUTO:
            yield (
                "No earlier study in this database has the same workload, metric and direction, "
                f"{ENOUGH} complete trials, and an optimizer of this one: it starts cold."
            )
        return
    count = min(len(taken.openings), spec.budget.trials // 3)
    many = "no configuration" if not count else f"{count} configuration{'s' * (count > 1)}"
    rescaled = (
        f", learning rates times {taken.rescaled:.2g} since trials have another length"
        if taken.rescaled != 1
        else ""
    )
    yield (
        f"Starts from the best of {taken.study!r} ({taken.trials} complete, best {taken.best}): "
        f"{many}{rescaled}."
    )


def _announce_small_space(spec: StudySpec, *, certain: bool) -> Iterator[str]:
    """Yields a line if the space has fewer configurations than the budget has trials.

    Args:
        spec: The study, resolved.
        certain: Whether its workload is known to ask for no hyperparameters of its own.
    """
    count = count_configurations(spec)
    if count is not None:
        unless = "" if certain else ", unless its loop asks for hyperparameters of its own"
        noun = "configuration" if count == 1 else "configurations"
        yield (
            f"The space has {count} {noun}, fewer than budget.trials = "
            f"{spec.budget.trials}: the study ends after {count}{unless}."
        )


def _tell_limit(key: str, limit: Limit) -> str:
    if isinstance(limit, str):
        return f"{key} = {limit}"
    if key == "trials":
        return f"{limit:.0f} trials"
    if key == "full_trials":
        return "no limit of full trials" if limit is None else f"{limit:g} full trials"
    return "no limit of wall time" if limit is None else f"{duration(limit)} of wall time"


def _is_more(limit: Limit, other: Limit) -> bool:
    if isinstance(limit, str) or isinstance(other, str):
        return limit == "never"
    return other is not None and (limit is None or limit > other)


def _describe(name: str, differences: dict[str, tuple[object, object]]) -> str:
    fixed = {key: pair for key, pair in differences.items() if key not in _EXTENDABLE}
    # An optimizer that joins or leaves takes its hyperparameters along: they are not told.
    telling = {key: pair for key, pair in fixed.items() if not _follows(key, fixed)}
    lines = [
        f"The study {name!r} exists and differs:",
        *(
            f"  {key}: {_show(stored)} in the database, {_show(given)} now"
            for key, (stored, given) in telling.items()
        ),
    ]
    if any(key.startswith("budget.") for key in fixed):
        lines.append("Trials of different lengths cannot be ranked against each other.")
    if any(key.startswith("space.") for key in fixed):
        lines.append(
            "The study was searched for what it names: what joins late has had fewer trials, and "
            "a ranking of both would not be fair."
        )
    lines.append(
        "Only budget.trials, budget.full_trials, budget.wall_time and budget.stop can change in an "
        "existing study. Give the new one another --name, or delete the old one: "
        f"tuner study delete {shlex.quote(name)}"
    )
    return "\n".join(lines)


def _follows(key: str, differences: dict[str, tuple[object, object]]) -> bool:
    """Tells whether a difference follows from an optimizer or schedule that joins or leaves."""
    table, _, rest = key.partition(".")
    if table == "average":
        return "train.average" in differences
    chosen = differences.get(f"space.{table}s")
    if chosen is None:
        return False
    branch = rest.partition(".")[0]
    return not all(isinstance(names, list) and branch in names for names in chosen)


def _show(value: object) -> str:
    return "nothing" if value is None else cut(str(value), 200)
