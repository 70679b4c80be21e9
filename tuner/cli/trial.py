"""``tuner trial``: the trials of a study, and one in full."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.options import (
    console,
    echo_json,
    examples,
    find_study,
    json_option,
    quiet_option,
    storage_option,
    tell,
)
from tuner.cli.words import OPTIMIZER_NAMES, SCHEDULE_NAMES, STUDY, Group
from tuner.domain.catalog.dimensions import format_value
from tuner.domain.names import suggest
from tuner.domain.printable import printable
from tuner.domain.trials import (
    PORTFOLIO,
    WARM_START,
    Outcome,
    TrialRecord,
    decode,
    ran_own_defaults,
    steps_at,
)
from tuner.errors import NotFoundError, SpecError
from tuner.report.trial_table import (
    SORTABLE,
    check_metrics,
    choose_trials,
    describe_trials,
    sort_trials,
    to_csv,
    trial_table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.domain.spec import StudySpec
    from tuner.store import Database, StudyHandle
    from tuner.store.events import Event

_SHOWN_ELSEWHERE = frozenset(
    {"config", "traceback", "groups", "metrics", "sampler", "places", "last_cost", "schedule_calls"}
)
"""Attributes of a trial that are for internal use, or shown in another form."""


def _complete_column(_ctx: click.Context, _option: click.Parameter, typed: str) -> list[str]:
    return [column for column in SORTABLE if column.startswith(typed)]


@click.group(
    cls=Group,
    epilog=examples(
        "tuner trial list digits --sort value",
        "tuner trial show digits 12",
        "tuner trial rerun digits 12",
    ),
)
def trial() -> None:
    """List the trials of a study, show one, or have it run again."""


@trial.command(
    "list",
    epilog=examples(
        "tuner trial list digits --sort value --limit 10",
        "tuner trial list digits --sort accuracy --reverse",
        "tuner trial list digits --optimizer adam --outcome diverged --outcome failed",
        "tuner trial list digits --csv > trials.csv",
    ),
)
@click.argument("study", type=STUDY)
@storage_option
@click.option(
    "--sort",
    metavar="COLUMN|METRIC",
    default="trial",
    show_default=True,
    shell_complete=_complete_column,
    help=f"{', '.join(SORTABLE)}, or a metric; by value, the best come first.",
)
@click.option("--metric", "metrics", multiple=True, help="Show it too, as a column. Repeatable.")
@click.option("--reverse", is_flag=True, help="Turn the order round.")
@click.option(
    "--optimizer", "optimizers", multiple=True, type=OPTIMIZER_NAMES, help="Only its. Repeatable."
)
@click.option(
    "--schedule", "schedules", multiple=True, type=SCHEDULE_NAMES, help="Only its. Repeatable."
)
@click.option(
    "--outcome",
    "outcomes",
    multiple=True,
    type=click.Choice([outcome.value for outcome in Outcome]),
    help="Only those that stand so. Repeatable.",
)
@click.option("--limit", type=click.IntRange(1), help="The first so many of them.")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with all settings and metrics.")
def list_(
    study: str,
    storage: str | None,
    sort: str,
    metrics: tuple[str, ...],
    reverse: bool,
    optimizers: tuple[str, ...],
    schedules: tuple[str, ...],
    outcomes: tuple[str, ...],
    limit: int | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """List the trials of STUDY: how each ended, its value, learning rate and duration."""
    from tuner.service.summaries import read_shown

    if as_json and as_csv:
        raise SpecError("--json and --csv: choose one of the two.")
    database, handle = find_study(study, storage)
    _check_known("optimizer", optimizers, handle.spec.space.optimizers)
    _check_known("schedule", schedules, handle.spec.space.schedules)
    records = describe_trials(handle.spec, read_shown(database, handle))
    check_metrics(records, metrics, "--metric")
    chosen = choose_trials(records, optimizers=optimizers, schedules=schedules, outcomes=outcomes)
    found = sort_trials(handle.spec, chosen, sort, backwards=reverse)[:limit]
    if as_json:
        echo_json(found)
    elif as_csv:
        click.echo(to_csv(found), nl=False)
    else:
        from tuner.report.terminal import FittedTable

        named = (*metrics, *(() if sort in SORTABLE else (sort,)), *handle.spec.study.show)
        console().print(FittedTable(trial_table(handle.spec, found, named)))
        if len(found) < len(records):
            click.echo(f"{len(found)} of {len(records)} trials")


def _check_known(kind: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Refuses names that no trial of the study can have.

    Raises:
        NotFoundError: With the nearest one that it has.
    """
    for name in names:
        if name not in known:
            raise NotFoundError(f"--{kind} {name}: the study has none such: {suggest(name, known)}")


@trial.command(epilog=examples("tuner trial show digits 12", "tuner trial show digits 12 --json"))
@click.argument("study", type=STUDY)
@click.argument("number", type=click.IntRange(0, 2**31 - 1))
@storage_option
@json_option
def show(study: str, number: int, storage: str | None, as_json: bool) -> None:
    """Show trial NUMBER of STUDY: its settings, its curve, its history, and how it ended."""
    from tuner.service.summaries import show_waiting
    from tuner.store.curves import read_curves
    from tuner.store.events import read_events
    from tuner.store.records import read_record

    database, handle = find_study(study, storage)
    record = read_record(database, handle, number)
    if record is None:
        raise NotFoundError(
            f"The study {study!r} has no trial {number}; "
            f"see what it has with 'tuner trial list {shlex.quote(study)}'."
        )
    [record] = show_waiting(database, handle, [record])
    curves = read_curves(database, handle, number)
    events = read_events(database, handle.uuid, number)
    places = _find_places(database, handle, record)
    if as_json:
        echo_json(_describe(handle, record, curves, events) | places)
    else:
        _print(handle, record, curves, events)
        for name, place in places.items():
            if place is not None:
                click.echo(printable(f"{name}: {place}"))


@trial.command(
    epilog=examples("tuner trial rerun digits 12", "tuner trial rerun digits 12 --extend")
)
@click.argument("study", type=STUDY)
@click.argument("number", type=click.IntRange(0, 2**31 - 1))
@storage_option
@click.option(
    "--extend", is_flag=True, help="If all trials of the budget have started, allow one more."
)
@quiet_option
@json_option
def rerun(study: str, number: int, storage: str | None, extend: bool, as_json: bool) -> None:
    """Queue trial NUMBER of STUDY again, as a new trial of the same configuration.

    It has the same seed too, so on the same kind of device it repeats the trial bit by bit, unless
    it is pruned: that checks a result, and says nothing about other seeds. It counts in the
    study's budget. The next worker that asks for work takes it.
    """
    from tuner.store.leases import reruns

    started = reruns.rerun(*find_study(study, storage), number, extend=extend)
    if as_json:
        echo_json({"study": study, "trial": started, "repeats": number})
        return
    tell(
        f"Trial {started} is trial {number} again; a worker takes it next, or start one: "
        f"tuner study run {shlex.quote(study)}",
        err=False,
    )


def _find_places(
    database: Database, study: StudyHandle, record: TrialRecord
) -> dict[str, str | None]:
    """Returns the folder of a command's trial, and the file with its output: None if not here."""
    from tuner.service.folders import trial_folder
    from tuner.service.ownership import find_folder
    from tuner.training.processes.output import LOG

    places: dict[str, str | None] = {"folder": None, "output": None}
    if study.spec.study.command is None:
        return places
    folder = trial_folder(find_folder(database, study)[0], record.number)
    for name, path in (("folder", folder), ("output", folder / LOG)):
        if path.exists():
            places[name] = str(path)
    return places


def _describe(
    study: StudyHandle,
    record: TrialRecord,
    curves: dict[str, dict[int, float]],
    events: list[Event],
) -> dict[str, Any]:
    config = decode(study.spec, record.proposal)
    return {
        "study": study.name,
        "trial": record.number,
        "outcome": record.outcome.value,
        "value": record.value,
        "optimizer": config.optimizer,
        "schedule": config.schedule,
        "preset": record.proposal.preset,
        "params": config.to_json(),
        "searched": record.proposal.params,
        "evaluations": {str(k): v for k, v in record.evaluations.items()},
        "curves": curves,
        "started_at": record.started_at and f"{record.started_at.isoformat()}Z",
        "finished_at": record.finished_at and f"{record.finished_at.isoformat()}Z",
        "attributes": {k: v for k, v in record.attributes.items() if k != "config"},
        "events": [dataclasses.asdict(event) for event in events],
    }


def _print(
    study: StudyHandle,
    record: TrialRecord,
    curves: dict[str, dict[int, float]],
    events: list[Event],
) -> None:
    from tuner.domain.objective import tell_metric, tell_objective, tell_value
    from tuner.report.tables import groups
    from tuner.report.terminal import FittedTable

    config, metric = decode(study.spec, record.proposal), study.spec.study.metric
    section = study.spec.study
    ranked_by = tell_metric(section)
    value = "" if record.value is None else f", {ranked_by} {record.value:.6g}"
    if section.target is not None:
        value = f", {tell_objective(section)}: {tell_value(section, record.value)}"
    head = f"Trial {record.number} of {printable(study.name)}: {record.outcome.value}{value}"
    console().print(head, style="bold", soft_wrap=True)
    click.echo(
        f"{config.optimizer} with the {config.schedule} schedule{_tell_preset(study, record)}"
    )
    for key, setting in config.to_json().items():
        click.echo(printable(f"  {key} = {format_value(setting)}"))
    if record.attributes.get("groups"):
        console().print(FittedTable(groups(record.attributes["groups"])))
    if record.evaluations:
        unit, evaluations = _by_step(study.spec, record)
        click.echo(f"{ranked_by} by {unit}:")
        for at, evaluation in evaluations.items():
            click.echo(f"  {at:>8}  {evaluation:.6g}")
    for name, curve in curves.items():
        if name != metric or section.rank_by == "best":
            last = max(curve)
            logged = f"{curve[last]:.6g} at step {last}, {len(curve)} logged"
            click.echo(f"{printable(name)}: {logged}")
    for event in events:
        click.echo(str(event))
    for key, attribute in record.attributes.items():
        if key not in _SHOWN_ELSEWHERE:
            click.echo(f"{printable(key)}: {_indent(attribute)}")
    if "traceback" in record.attributes:
        click.echo(f"\n{record.attributes['traceback']}")


def _by_step(spec: StudySpec, record: TrialRecord) -> tuple[str, Mapping[int, float]]:
    """Returns a trial's evaluations by the steps it had taken, with the word for these.

    They come by their own number while a trial trains whose length is counted in epochs or
    examples, since its steps are recorded as it ends.
    """
    attributes = record.attributes
    total = attributes.get("total_steps", attributes.get("steps"))
    if spec.budget.steps is None and not total:
        return "evaluation", record.evaluations
    return "step", {steps_at(spec, at, total or 0): v for at, v in record.evaluations.items()}


def _indent(value: object) -> str:
    """Indents the further lines of a workload's text, so that none looks like a line of ours."""
    return str(value).replace("\n", "\n  ")


def _tell_preset(study: StudyHandle, record: TrialRecord) -> str:
    """Returns where a configuration comes from that no sampler has drawn, to follow its names."""
    if record.proposal.preset == PORTFOLIO:
        return ", one that did well on other workloads"
    if record.proposal.preset == WARM_START and study.spec.warm_start is not None:
        return f", one of the best of the study {printable(study.spec.warm_start.study)!r}"
    if not record.is_default:
        return ""
    own = ran_own_defaults(study.spec, record)
    return ", its own defaults" if own else ", its defaults as far as the study file lets them"
