"""Where a report comes from: when, with which versions, on what, and how to repeat the study."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from typing import Any

import tomli_w

from tuner.domain.printable import printable
from tuner.report.charts.view import View
from tuner.report.files import to_file_name

_PACKAGES = ("tuner", "torch", "optuna", "numpy")
_NOT_WRITTEN = ("written", "warm_start", "confirmation")


def provenance(view: View, now: datetime) -> tuple[tuple[str, str], ...]:
    """Returns where a report comes from, as pairs of a fact and its value.

    Args:
        view: The study.
        now: When the report is made, in UTC.
    """
    summary = view.summary
    started = [r.started_at for r in summary.records if r.started_at]
    ended = [r.finished_at for r in summary.records if r.finished_at]
    devices = sorted({event.device for event in view.events if event.device})
    seeds = sorted({str(r.attributes["seed"]) for r in summary.records if "seed" in r.attributes})
    facts = {
        "report made": tell_time(now),
        "first trial started": tell_time(min(started)) if started else "–",
        "last trial ended": tell_time(max(ended)) if ended else "–",
        "versions, of this report": ", ".join(_versions()),
        "device": ", ".join(devices) or "not on record",
        "seed": ", ".join(seeds[:8]) or str(summary.spec.search.seed),
        "workload": summary.spec.study.workload,
        "database": summary.storage,
    }
    return tuple((name, printable(value)) for name, value in facts.items())


def study_file(view: View) -> str:
    """Returns the study file with every default filled in; it makes the same study again."""
    tree = view.summary.spec.to_json()
    kept = {key: _without_none(table) for key, table in tree.items() if key not in _NOT_WRITTEN}
    return printable(tomli_w.dumps(kept), lines=True).rstrip()


def commands(view: View) -> tuple[tuple[str, str], ...]:
    """Returns the commands to go on with a study and to repeat it, each with what it does."""
    summary = view.summary
    name = summary.name
    told = [
        ("Go on with this study", ("study", "run", name)),
        ("Repeat it elsewhere, from the file below", ("run", f"{to_file_name(name)}.toml")),
        ("Make this page again", ("study", "report", name, "--format", "html")),
        ("See one trial", ("trial", "show", name, "NUMBER")),
    ]
    return tuple((what, printable(shlex.join(("tuner", *words)))) for what, words in told)


def _versions() -> list[str]:
    found = [f"{name} {metadata.version(name)}" for name in _PACKAGES if _is_installed(name)]
    return [*found, f"Python {platform.python_version()}"]


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def tell_time(moment: datetime) -> str:
    """Returns a time in UTC, to the minute."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def _without_none(value: Any) -> Any:
    """Returns a table of a study file; a choice of None, which TOML does not know, as ``none``."""
    if isinstance(value, Mapping):
        return {key: _without_none(one) for key, one in value.items() if one != {}}
    if isinstance(value, list):
        return ["none" if one is None else _without_none(one) for one in value]
    return value
