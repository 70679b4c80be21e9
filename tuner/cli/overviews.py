"""``tuner study list`` and ``show``: the studies of a database, and one of them."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING

import click

from tuner.cli.options import (
    TEXT,
    console,
    echo_json,
    echo_toml,
    examples,
    find_study,
    json_option,
    open_storage,
    quiet_option,
    storage_option,
    tell,
)
from tuner.domain.states import StudyState
from tuner.errors import NotFoundError

if TYPE_CHECKING:
    from tuner.store.overviews import StudyOverview


@click.command("list", epilog=examples("tuner study list", "tuner study list --json"))
@storage_option
@json_option
def list_(storage: str | None, as_json: bool) -> None:
    """List the studies of a database."""
    from tuner.service.liveness import is_dead
    from tuner.store import Studies

    try:
        overviews = Studies(open_storage(storage)).list(is_dead)
    except NotFoundError:
        overviews = []
    if as_json:
        echo_json([dataclasses.asdict(overview) for overview in overviews])
    elif not overviews:
        click.echo("No studies yet. Start one: tuner run studies/digits.toml")
    else:
        from tuner.report.tables import TextTable, tell_training
        from tuner.report.terminal import FittedTable

        bounded = any(o.full_trials is not None for o in overviews)
        rows = tuple(
            (
                *(o.name, f"{o.started}/{o.trials}"),
                *((tell_training(o.used, o.full_trials, by="/"),) if bounded else ()),
                *(str(o.running), str(o.waiting), _tell_best(o), o.activity.value, o.workload),
            )
            for o in overviews
        )
        full = ("full trials",) if bounded else ()
        columns = ("study", "trials", *full, "running", "waiting", "best", "state", "workload")
        console().print(FittedTable(TextTable("Studies", columns, rows)))
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


@click.command(epilog=examples("tuner study show digits", "tuner study show digits --json"))
@click.argument("name", type=TEXT)
@storage_option
@json_option
def show(name: str, storage: str | None, as_json: bool) -> None:
    """Show a study's settings, with every default filled in, and its trials."""
    from tuner.service.summaries import find_readable_companion, read_shown, read_shown_state
    from tuner.store.leases.charges import read_used

    database, handle = find_study(name, storage)
    records, state = read_shown(database, handle), read_shown_state(database, handle)
    used = read_used(database, handle)
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
        described |= {"full_trials_used": used, "spec": handle.spec.to_json()}
        confirmation = {"study": companion.name, "waits": companion.waits} if companion else None
        described |= {"confirmation": confirmation}
        echo_json(described | {"trials": trials})
        return
    from tuner.domain.objective import tell_objective, tell_value
    from tuner.report.tables import TextTable, tell_training
    from tuner.report.terminal import FittedTable

    section = handle.spec.study
    echo_toml(handle.spec.to_json())
    rows = tuple(
        (str(r.number), r.optimizer, r.schedule, r.outcome.value, tell_value(section, r.value))
        for r in records
    )
    columns = ("trial", "optimizer", "schedule", "outcome", tell_objective(section))
    console().print(FittedTable(TextTable("Trials", columns, rows)))
    if used is not None:
        click.echo(f"Full trials: {tell_training(used, handle.spec.budget.full_trials)}")
    if companion is not None:
        waits = "waits for the search" if companion.waits else f"the study {companion.name!r}"
        click.echo(f"Confirmation: {waits}")
    if state is not StudyState.RUNNING:
        click.echo(f"The study is {state}; it goes on with: tuner study resume {shlex.quote(name)}")


@click.command(epilog=examples("tuner study watch digits", "tuner study watch digits --json"))
@click.argument("name", type=TEXT)
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
    from tuner.cli.progress import open_display
    from tuner.service.confirmation import find_current
    from tuner.service.study_progress import StudyProgress
    from tuner.service.study_run import watch_study

    database, handle = find_study(name, storage)
    if as_json:
        from tuner.cli.live import describe_progress

        echo_json(describe_progress(StudyProgress(database, find_current(database, handle))))
    elif watch_study(database, handle, open_display()):
        tell(f"{name!r} is over. See what was found with: tuner study report {shlex.quote(name)}")
