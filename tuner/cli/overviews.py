"""``tuner study list``, ``show`` and ``watch``: looks at studies that change nothing."""

from __future__ import annotations

import dataclasses
import fnmatch
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from tuner.cli.options import (
    console,
    echo_json,
    echo_toml,
    examples,
    find_study,
    json_option,
    open_display,
    open_storage,
    quiet_option,
    storage_option,
    tell,
)
from tuner.cli.words import STUDY, TEXT
from tuner.domain.states import Activity, StudyState
from tuner.domain.trials import Outcome
from tuner.errors import NotFoundError, SpecError

if TYPE_CHECKING:
    from tuner.domain.trials import TrialRecord
    from tuner.report.tables import TextTable
    from tuner.store import StudyHandle
    from tuner.store.overviews import StudyOverview

_SORTED: dict[str, Callable[[StudyOverview], str]] = {
    "name": lambda overview: overview.name,
    "created": lambda overview: overview.created_at,
    "active": lambda overview: overview.active_at,
}
"""The keys that studies can be sorted by."""


@click.command(
    "list",
    epilog=examples(
        "tuner study list",
        "tuner study list 'digits*' --state idle --state paused",
        "tuner study list --sort active --json",
    ),
)
@click.argument("pattern", required=False, type=TEXT)
@storage_option
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([activity.value for activity in Activity]),
    help="Only studies in this state. Repeatable.",
)
@click.option("--workload", type=TEXT, help="Only those whose workload has this in its name.")
@click.option(
    "--sort",
    type=click.Choice([*_SORTED]),
    default="name",
    show_default=True,
    help="By created and active, the latest come first.",
)
@json_option
def list_(
    pattern: str | None,
    storage: str | None,
    states: tuple[str, ...],
    workload: str | None,
    sort: str,
    as_json: bool,
) -> None:
    """List the studies of a database: all, or those whose names hold PATTERN, or match its *."""
    from tuner.service.liveness import is_dead
    from tuner.store import Studies

    try:
        studies = Studies(open_storage(storage))
        overviews, others = studies.list(is_dead), studies.count_others()
    except NotFoundError:
        overviews, others = [], 0
    glob = pattern if pattern and set(pattern) & set("*?[") else f"*{pattern or ''}*"
    chosen = [
        overview
        for overview in overviews
        if fnmatch.fnmatchcase(overview.name, glob)
        and (not states or overview.activity.value in states)
        and (workload or "") in overview.workload
    ]
    if sort != "name":
        chosen.sort(key=_SORTED[sort], reverse=True)
    if as_json:
        echo_json([dataclasses.asdict(overview) for overview in chosen])
    elif chosen:
        _print_list(chosen)
    elif overviews:
        click.echo(f"None of {len(overviews)} studies is so.")
    else:
        click.echo("No studies yet. Start one: tuner run studies/digits.toml")
    if others:
        are = "other study is" if others == 1 else "other studies are"
        why = "since not made by tuner. To see what else is there: tuner dashboard"
        click.echo(f"{others} {are} not listed, {why}", err=True)


def _print_list(overviews: list[StudyOverview]) -> None:
    from tuner.report.tables import TextTable, tell_training
    from tuner.report.terminal import FittedTable

    bounded = any(o.full_trials is not None for o in overviews)
    rows = tuple(
        (
            *(o.name, o.activity.value, f"{o.started}/{o.trials}"),
            *((tell_training(o.used, o.full_trials, by="/"),) if bounded else ()),
            *(_tell_best(o), _tell_age(o.active_at), _tell_day(o.created_at)),
            *(str(o.running), str(o.waiting), o.workload),
        )
        for o in overviews
    )
    full = ("full trials",) if bounded else ()
    columns = ("best", "active", "created", "running", "waiting", "workload")
    table = TextTable("Studies", ("study", "state", "trials", *full, *columns), rows)
    console().print(FittedTable(table))
    for overview in overviews:
        if overview.damage is not None:
            click.echo(f"Warning: {overview.name}: {overview.damage}", err=True)


def _tell_best(overview: StudyOverview) -> str:
    """Returns the best value of a study, with its unit if it is a time to a target."""
    from tuner.report.tables import number

    best = number(overview.best_value)
    return (
        best if overview.unit is None or overview.best_value is None else f"{best} {overview.unit}"
    )


def _tell_minute(at: str) -> str:
    """Returns a time on record in UTC, to the minute."""
    moment = _parse_time(at)
    return "–" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _tell_age(at: str) -> str:
    """Returns how long ago a time was, in its largest unit."""
    moment = _parse_time(at)
    if moment is None:
        return "–"
    seconds = max(0, round((datetime.now(UTC) - moment).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def _tell_day(at: str) -> str:
    moment = _parse_time(at)
    return "–" if moment is None else f"{moment:%Y-%m-%d}"


def _parse_time(at: str) -> datetime | None:
    """Returns a stored time, None where it is none."""
    try:
        moment = datetime.fromisoformat(at)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.command(
    epilog=examples(
        "tuner study show digits",
        "tuner study show digits --spec > again.toml",
        "tuner study show digits --json",
    )
)
@click.argument("name", type=STUDY)
@storage_option
@click.option(
    "--spec", "as_file", is_flag=True, help="Print its study file, with every default filled in."
)
@json_option
def show(name: str, storage: str | None, as_file: bool, as_json: bool) -> None:
    """Show how a study stands: its state, trials, best value and budget."""
    from tuner.service.liveness import is_dead
    from tuner.service.summaries import find_readable_companion, read_shown, read_shown_state
    from tuner.store import Studies
    from tuner.store.leases.charges import read_used

    if as_file and as_json:
        raise SpecError("--spec and --json: choose one of the two; --json has the settings, too.")
    database, handle = find_study(name, storage)
    if as_file:
        echo_toml(handle.spec.to_json())
        return
    records, state = read_shown(database, handle), read_shown_state(database, handle)
    companion = find_readable_companion(database, handle)
    if as_json:
        trials = [
            {
                "trial": record.number,
                "outcome": record.outcome.value,
                "value": record.value,
                "optimizer": record.optimizer,
                "schedule": record.schedule,
            }
            for record in records
        ]
        described: dict[str, object] = {"study": name, "state": state.value}
        described["full_trials_used"] = read_used(database, handle)
        described["spec"] = handle.spec.to_json()
        confirmation = {"study": companion.name, "waits": companion.waits} if companion else None
        described |= {"confirmation": confirmation, "trials": trials}
        echo_json(described)
        return
    from tuner.report.terminal import FittedTable

    overview = Studies(database).look(handle, is_dead)
    console().print(FittedTable(_tell_study(handle, overview, records, companion)))
    quoted = shlex.quote(name)
    click.echo(
        f"Its trials: tuner trial list {quoted}\nIts settings: tuner study show {quoted} --spec\n"
        f"What it found: tuner study report {quoted}"
    )
    if state is not StudyState.RUNNING:
        click.echo(f"The study is {state}; it goes on with: tuner study resume {quoted}")


def _tell_study(
    handle: StudyHandle,
    overview: StudyOverview,
    records: Sequence[TrialRecord],
    companion: StudyHandle | None,
) -> TextTable:
    from tuner.analysis.summary import best_of
    from tuner.domain.objective import tell_aim, tell_value
    from tuner.report.tables import TextTable, tell_training

    spec = handle.spec
    counts = Counter(record.outcome for record in records)
    ended = ", ".join(f"{counts[o]} {o.value}" for o in Outcome if counts[o]) or "none has started"
    best = best_of(spec, records)
    told = "–"
    if best is not None:
        told = f"{tell_value(spec.study, best.value)}, trial {best.number}, "
        told += f"{best.optimizer} with {best.schedule}"
    full = spec.budget.full_trials
    rows = [
        ("workload", spec.study.workload),
        ("aim", tell_aim(spec.study)),
        ("state", overview.activity.value),
        ("trials", f"{overview.started} of {spec.budget.trials}: {ended}"),
        *([("full trials", tell_training(overview.used, full))] if full is not None else []),
        ("best", told),
        ("optimizers", ", ".join(spec.space.optimizers)),
        ("schedules", ", ".join(spec.space.schedules)),
        ("search", f"{spec.search.sampler}, {spec.search.pruner}, seed {spec.search.seed}"),
        ("created", _tell_minute(overview.created_at)),
        ("last active", f"{_tell_minute(overview.active_at)} ({_tell_age(overview.active_at)})"),
    ]
    if companion is not None:
        waits = "waits for the search" if companion.waits else f"the study {companion.name!r}"
        rows.append(("confirmation", waits))
    return TextTable(handle.name, ("fact", "value"), tuple(rows))


@click.command(epilog=examples("tuner study watch digits", "tuner study watch digits --json"))
@click.argument("name", type=STUDY)
@storage_option
@quiet_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print how it stands now, as JSON, and do not wait."
)
def watch(name: str, storage: str | None, as_json: bool) -> None:
    """Watch a study that others train, from any machine: what 'tuner run' shows, until it is over.

    It changes nothing in the database, so a role that may only read can watch. Ctrl-C ends the
    watch, and not the study. Where no terminal shows it, it prints a line for each trial that ends.
    """
    from tuner.service.confirmation import find_current
    from tuner.service.study_progress import StudyProgress
    from tuner.service.study_run import watch_study

    database, handle = find_study(name, storage)
    if as_json:
        from tuner.service.display.live import describe_progress

        echo_json(describe_progress(StudyProgress(database, find_current(database, handle))))
    elif watch_study(database, handle, open_display()):
        tell(f"{name!r} is over. See what was found with: tuner study report {shlex.quote(name)}")
