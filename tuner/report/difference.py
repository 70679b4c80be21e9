"""Two studies side by side: the settings in which they differ, and what each has found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tuner.analysis.summary import StudySummary
from tuner.domain.catalog.dimensions import format_value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.objective import tell_aim, tell_objective, tell_value
from tuner.domain.printable import cut
from tuner.domain.states import Activity
from tuner.domain.trials import Outcome, TrialConfig
from tuner.report.tables import TextTable, duration, number

Pair = tuple[Any, Any]

_OWN = ("study.name", "written")
"""Keys that tell a study from another, and not how it is searched."""


def compare_settings(one: StudySummary, other: StudySummary) -> dict[str, Pair]:
    """Returns the settings in which two studies differ, by key; None where a study has none such.

    A range stays whole, so that both its ends are seen. The hyperparameters of what only one of
    them searches are left out.
    """
    left, right = dict(_flatten(one.spec.to_json())), dict(_flatten(other.spec.to_json()))
    keys = dict.fromkeys((*left, *right))
    return {
        key: (left.get(key), right.get(key))
        for key in keys
        if key not in _OWN and left.get(key) != right.get(key) and not _is_of_one(key, one, other)
    }


def _is_of_one(key: str, one: StudySummary, other: StudySummary) -> bool:
    """Tells whether a key is of an optimizer or schedule that only one of two studies has."""
    table, _, rest = key.partition(".")
    kinds = {"optimizer": "optimizers", "schedule": "schedules"}
    if table not in kinds:
        return False
    both = (getattr(each.spec.space, kinds[table]) for each in (one, other))
    names = [{name for name in known if rest.startswith(f"{name}.")} for known in both]
    return bool(names[0]) != bool(names[1])


def _flatten(table: Mapping[str, Any], *path: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        is_range = isinstance(value, dict) and ("low" in value or "choices" in value)
        if isinstance(value, dict) and not is_range:
            yield from _flatten(value, *path, key)
        elif value is not None:
            yield ".".join((*path, key)), value


def compare_results(one: StudySummary, other: StudySummary) -> dict[str, Pair]:
    """Returns what two studies have found, by what it is; None where a study has none such."""
    results = {name: (read(one), read(other)) for name, read in _RESULTS.items()}
    found = [{row.optimizer: row.best_value for row in each.optimizers} for each in (one, other)]
    for optimizer in dict.fromkeys(name for values in found for name in values):
        pair = found[0].get(optimizer), found[1].get(optimizer)
        if pair != (None, None):
            results[f"best of {optimizer}"] = pair
    return results


def _find_rate(config: TrialConfig) -> Any:
    return config.optimizer_values.get(OPTIMIZERS[config.optimizer].rate)


def _tell_state(summary: StudySummary) -> str:
    if summary.exhausted is not None:
        return summary.exhausted
    going = sum(summary.counts[outcome] for outcome in Outcome if not outcome.is_over)
    if not going and sum(summary.counts.values()) >= summary.spec.budget.trials:
        return Activity.DONE.value
    return summary.state.value


_RESULTS: dict[str, Callable[[StudySummary], Any]] = {
    "state": _tell_state,
    "trials": lambda s: sum(s.counts.values()),
    "complete": lambda s: s.counts[Outcome.COMPLETE],
    "pruned": lambda s: s.counts[Outcome.PRUNED],
    "diverged": lambda s: s.counts[Outcome.DIVERGED],
    "failed": lambda s: s.counts[Outcome.FAILED],
    "best": lambda s: s.best and s.best.record.value,
    "fresh seeds": lambda s: s.best and s.best.seeds,
    "trial": lambda s: s.best and s.best.record.number,
    "optimizer": lambda s: s.best and s.best.config.optimizer,
    "schedule": lambda s: s.best and s.best.config.schedule,
    "lr": lambda s: s.best and _find_rate(s.best.config),
    "steps": lambda s: s.steps,
    "wall time": lambda s: s.wall_s,
    "training": lambda s: s.training_s,
}
_LONGEST = 60  # characters of a setting in a table; JSON has all of it
_LABELS = {"best": "value of the winner"}  # a mean, where fresh seeds have confirmed it
_VALUES, _TIMES = ("best",), ("wall time", "training")


def difference_tables(one: StudySummary, other: StudySummary) -> list[TextTable]:
    """Returns the tables of settings and of results of two studies."""
    names = (one.name, other.name)
    settings = compare_settings(one, other)
    same = "Settings: none differs" if not settings else "Settings that differ"
    results = tuple(
        (_LABELS.get(name, name), _tell_result(one, name, left), _tell_result(other, name, right))
        for name, (left, right) in compare_results(one, other).items()
    )
    rows = tuple(
        (key, *(cut(_tell(value), _LONGEST) for value in pair)) for key, pair in settings.items()
    )
    return [
        TextTable(same, ("setting", *names), rows),
        TextTable("Results", ("result", *names), results),
    ]


def to_difference_json(one: StudySummary, other: StudySummary) -> dict[str, Any]:
    """Returns two studies side by side as JSON."""
    return {
        "studies": [one.name, other.name],
        "settings": compare_settings(one, other),
        "results": compare_results(one, other),
        "comparable": warn_of_difference(one, other) is None,
    }


def warn_of_difference(one: StudySummary, other: StudySummary) -> str | None:
    """Returns why the values of two studies cannot be compared, or None where they can be."""
    aims = tell_aim(one.spec.study), tell_aim(other.spec.study)
    if aims[0] != aims[1]:
        return (
            f"Their values are of different things: {one.name!r} is to {aims[0]}, {other.name!r} "
            f"to {aims[1]}."
        )
    if one.spec.study.workload != other.spec.study.workload:
        return (
            f"Their values of {tell_objective(one.spec.study)} are of different workloads, and say "
            "nothing of each other."
        )
    return None


def _tell_result(summary: StudySummary, name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name in _VALUES or name.startswith("best of "):
        return tell_value(summary.spec.study, value)
    if name in _TIMES:
        return duration(value)
    return number(value) if isinstance(value, float) else str(value)


def _tell(value: Any) -> str:
    """Returns a setting in one line, a range as the catalog writes it."""
    if value is None:
        return "–"
    if isinstance(value, dict) and "low" in value:
        kind = "log" if value.get("log") else ""
        return f"{kind}[{value['low']:g}, {value['high']:g}]"
    if isinstance(value, list):
        return ", ".join(map(_tell, value)) or "none"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return format_value(value)
