"""``tuner study``: create, look at, run, report, export and delete studies."""

from __future__ import annotations

import dataclasses
import math
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli.options import (
    TEXT,
    Group,
    allow_option,
    console,
    device_option,
    echo_json,
    echo_toml,
    examples,
    find_study,
    fuse_option,
    json_option,
    load_spec,
    open_storage,
    spec_options,
    storage_option,
    workers_option,
)
from tuner.cli.results import export, report
from tuner.cli.run import create_or_resume, train
from tuner.domain.search import COMPARE, check_comparison
from tuner.domain.states import StudyState
from tuner.errors import NotFoundError, SpecError
from tuner.service.ranks import refuse_ranks

if TYPE_CHECKING:
    from tuner.domain.spec import StudySpec
    from tuner.service.open_study import StudyCheck
    from tuner.store import Database, StudyHandle
    from tuner.store.studies import StudyOverview


@click.group(
    cls=Group,
    epilog=examples(
        "tuner study create studies/digits.toml",
        "tuner study run digits",
        "tuner study report digits",
    ),
)
def study() -> None:
    """Create, list, run, pause, stop, repair, report, export and delete studies."""


@study.command(
    epilog=examples(
        "tuner study create studies/digits.toml",
        "tuner study create studies/digits.toml --name digits-seed1 --set search.seed=1",
    )
)
@spec_options
@storage_option
@partial(device_option, purpose="Where the workload is tried before the study is created.")
@click.option("--no-check", is_flag=True, help="Do not try the workload on this machine first.")
@json_option
def create(
    spec: str | None,
    name: str | None,
    workload: str | None,
    optimizers: str | None,
    warm_start: str | None,
    settings: tuple[str, ...],
    storage: str | None,
    device: str,
    no_check: bool,
    as_json: bool,
) -> None:
    """Create a study, or change the budget of one; nothing is trained yet."""
    parsed = load_spec(
        spec,
        name=name,
        workload=workload,
        optimizers=optimizers,
        warm_start=warm_start,
        settings=settings,
        storage=storage,
    )

    def try_workload(resolved: StudySpec, looks: bool) -> StudyCheck:
        from tuner.service.workload_check import check_study
        from tuner.training.device import resolve_device

        return check_study(resolved, resolve_device(device), looks=looks)[0]

    check = None if no_check else try_workload
    database, handle = create_or_resume(parsed, storage, settings, check)
    if as_json:
        echo_json({"study": handle.name, "storage": database.name, "spec": handle.spec.to_json()})
    else:
        click.echo(f"Train it: tuner study run {shlex.quote(handle.name)}")


@study.command("list", epilog=examples("tuner study list", "tuner study list --json"))
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


@study.command(epilog=examples("tuner study show digits", "tuner study show digits --json"))
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


@study.command(
    epilog=examples(
        "tuner study run digits",
        "tuner study run digits --workers 2",
        "tuner study run digits --trials 120",
    )
)
@click.argument("name", type=TEXT)
@storage_option
@workers_option
@device_option
@fuse_option
@allow_option
@click.option(
    "--trials",
    type=click.IntRange(1, 10**6),
    help="Raise the number of trials that the study may start.",
)
def run(
    name: str, storage: str | None, workers: int, device: str, fuse: str, trials: int | None
) -> None:
    """Train a study that exists on this machine, and report.

    A study that was paused or stopped is left alone until 'tuner study resume'.
    """
    refuse_ranks()
    database, handle = find_study(name, storage)
    if trials is not None:
        handle = _raise_trials(database, handle, trials)
    train(database, handle, workers=workers, device=device, fuse=fuse)


def _raise_trials(database: Database, handle: StudyHandle, trials: int) -> StudyHandle:
    """Returns a study that may start so many trials, and says so; it never lowers their number."""
    from tuner.store import Studies

    if handle.spec.confirmation is not None:
        raise SpecError(f"{handle.name!r} confirms another study, which says how many runs it has.")
    if handle.spec.search.mode == COMPARE:
        try:
            budget = handle.spec.budget.model_copy(update={"trials": trials})
            check_comparison(budget, handle.spec.space.optimizers)
        except ValueError as error:
            raise SpecError(f"--trials {trials}: {error}.") from None
    raised = Studies(database).extend(
        handle, lambda budget: {"trials": trials} if trials > budget.trials else {}
    )
    if raised.spec.budget.trials == handle.spec.budget.trials:
        click.echo(f"Study {handle.name!r} stays at {raised.spec.budget.trials} trials.", err=True)
    else:
        click.echo(f"Study {handle.name!r} now has a budget of {trials} trials", err=True)
    return raised


@study.command(
    epilog=examples("tuner study confirm digits", "tuner study confirm digits --seeds 20 --top 5")
)
@click.argument("name", type=TEXT)
@storage_option
@workers_option
@device_option
@fuse_option
@allow_option
@click.option("--top", type=click.IntRange(1, 8), help="Best configurations that run again. [3]")
@click.option("--seeds", type=click.IntRange(5, 100), help="Fresh seeds for each, at most. [10]")
@click.option(
    "--cost",
    type=click.FloatRange(0, 100, min_open=True),
    help="Share of the search's training that it may take. [0.5]",
)
def confirm(
    name: str,
    storage: str | None,
    workers: int,
    device: str,
    fuse: str,
    top: int | None,
    seeds: int | None,
    cost: float | None,
) -> None:
    """Run the best configurations of a study again on fresh seeds, and say which one wins.

    The winner, the best of another optimizer and the defaults of AdamW get five seeds at least.
    What is clearly beaten is dropped. The runs are trials of a study NAME.confirm; the same command
    continues them.
    """
    from tuner.service.confirmation import open_confirmation
    from tuner.store.companions import find_companion

    refuse_ranks()
    database, handle = find_study(name, storage)
    asked = {"top": top, "seeds": seeds, "cost": cost}
    given = {key: value for key, value in asked.items() if value is not None}
    if cost is not None and not math.isfinite(cost):
        raise SpecError(f"--cost {cost}: give a share of the search's training, such as 0.5.")
    companion = find_companion(database, handle)
    if given and companion is not None and not companion.waits:
        click.echo(
            f"{', '.join(f'--{key}' for key in given)}: of no effect, since {name!r} has been "
            "confirmed already. To begin anew, delete the study that confirms it.",
            err=True,
        )
    settings = (companion or handle).spec.confirm.model_copy(update=given)
    companion = open_confirmation(database, handle, settings)
    train(database, companion, workers=workers, device=device, fuse=fuse, reported=handle)


@study.command(
    epilog=examples(
        "tuner study widen digits && tuner run digits.wider.toml",
        "tuner study widen digits --output studies/next.toml",
    )
)
@click.argument("name", type=TEXT)
@storage_option
@click.option("--output", type=click.Path(path_type=Path), help="The file. [NAME.wider.toml]")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def widen(name: str, storage: str | None, output: Path | None, force: bool) -> None:
    """Write the study file that follows a study: wider where its best trials end a range.

    The new study starts with the best of this one. Each wider range has its reason beside it.
    """
    from tuner.report.files import write_file
    from tuner.report.wider_file import wider_name, write_wider
    from tuner.service.summaries import read_summary

    database, handle = find_study(name, storage)
    text = write_wider(read_summary(database, handle))
    path = Path(f"{wider_name(name)}.toml") if output is None else output
    write_file(path, text, force=force, is_study=True)
    click.echo(f"Wrote {path}. Search on: {shlex.join(('tuner', 'run', str(path)))}")


@study.command(epilog=examples("tuner study pause digits", "tuner study resume digits"))
@click.argument("name", type=TEXT)
@storage_option
def pause(name: str, storage: str | None) -> None:
    """Pause a study: its workers save their trials and wait.

    They hear of it within seconds, and do so at the next step or evaluation of each trial. Nothing
    is lost: after 'tuner study resume' they go on where they were.
    """
    _set_state(name, storage, StudyState.PAUSED)


@study.command(epilog=examples("tuner study resume digits"))
@click.argument("name", type=TEXT)
@storage_option
def resume(name: str, storage: str | None) -> None:
    """Resume a paused or stopped study.

    Workers that wait go on by themselves; if there are none, start some with 'tuner study run'.
    """
    _set_state(name, storage, StudyState.RUNNING)


@study.command(epilog=examples("tuner study stop digits", "tuner study report digits"))
@click.argument("name", type=TEXT)
@storage_option
def stop(name: str, storage: str | None) -> None:
    """Stop a study before its budget is used up.

    No new trial starts. Trials end with the metric they have, and the workers end. The results can
    be reported and exported; 'tuner study resume' has the study go on.
    """
    _set_state(name, storage, StudyState.STOPPED)


@study.command(epilog=examples("tuner study repair digits", "tuner study repair digits --json"))
@click.argument("name", type=TEXT)
@storage_option
@json_option
def repair(name: str, storage: str | None, as_json: bool) -> None:
    """Free the trials of workers that died, and end those that cannot go on.

    Workers do that by themselves when they ask for work; this is for when none is left. A trial is
    free once its worker is known to have died, or has been silent until its lease expired. A trial
    that was tried three times without getting further fails, and so does one without a lease.
    """
    from tuner.service.liveness import is_dead
    from tuner.service.ownership import claim_folder, find_folder
    from tuner.service.worker.checkpoints import sweep
    from tuner.store import control

    database, handle = find_study(name, storage)
    repairs = control.repair(database, handle, is_dead)
    if find_folder(database, handle)[0].is_dir():
        sweep(claim_folder(database, handle), database, handle)
    if as_json:
        echo_json([dataclasses.asdict(done) for done in repairs])
        return
    for done in repairs:
        click.echo(f"Trial {done.number} {done.action}: {done.detail}")
    if not repairs:
        click.echo("Nothing to repair.")
    elif any(done.action == "freed" for done in repairs):
        click.echo(f"Train what was freed: tuner study run {shlex.quote(name)}")


@study.command(epilog=examples("tuner study delete digits", "tuner study delete digits --yes"))
@click.argument("name", type=TEXT)
@storage_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(name: str, storage: str | None, yes: bool) -> None:
    """Delete a study with its trials, checkpoints and logs, and the study that confirms it."""
    from tuner.service.summaries import find_readable_companion
    from tuner.store import Studies

    database, handle = find_study(name, storage)
    companion = find_readable_companion(database, handle)
    handles = [handle] if companion is None else [companion, handle]
    told_of = [each for each in handles if each is handle or not each.waits]
    counts = {each.name: Studies(database).count_trials(each) for each in told_of}
    if not yes:
        told = " and ".join(f"{each!r} and its {count} trials" for each, count in counts.items())
        click.confirm(f"Delete {told} from {database.name}?", abort=True)
    for each in handles:
        _delete(database, each)
        if each in told_of:
            click.echo(f"Deleted {each.name!r} and its {counts[each.name]} trials.")


def _delete(database: Database, handle: StudyHandle) -> None:
    from tuner.service.folders import remove_folder
    from tuner.service.ownership import find_folder
    from tuner.store import Studies

    folder, ours = find_folder(database, handle)
    if Studies(database).delete(handle) and ours:
        remove_folder(folder)
    if not ours and folder.is_dir():
        click.echo(f"{folder} stays: this database has not used it. Remove it if nobody does.")


_ORDERED = {
    StudyState.RUNNING: "goes on. Workers that wait see it by themselves; "
    "start some with: tuner study run {name}",
    StudyState.PAUSED: "is paused: nothing new starts. Trials in training will be saved and given "
    "back within seconds, at their next step or evaluation; then their workers wait. "
    "Go on with: tuner study resume {name}",
    StudyState.STOPPED: "is stopped: nothing new starts. Trials in training will end with what "
    "they have within seconds, at their next step or evaluation; then their workers end. "
    "See what was found with: tuner study report {name}",
}


def _set_state(name: str, storage: str | None, state: StudyState) -> None:
    from tuner.service.summaries import find_readable_companion
    from tuner.store.control import ask_to_leave, set_state

    database, handle = find_study(name, storage)
    stops = state is StudyState.STOPPED
    if stops and handle.spec.confirmation is not None:
        raise SpecError(
            f"{name!r} confirms another study: a run that is stopped in the middle tells nothing. "
            f"Pause it, with 'tuner study pause {shlex.quote(name)}', or delete it."
        )
    before = set_state(database, handle, state)
    # Looked for only now: no worker begins with it any more where the search is stopped.
    companion = find_readable_companion(database, handle)
    if companion is not None and not companion.waits:
        # Its runs are saved, and its workers end: a run that ended early would count as lost.
        set_state(database, companion, StudyState.PAUSED if stops else state)
        if stops:
            ask_to_leave(database, companion)
    if before is state:
        click.echo(f"{name!r} was {state} already.")
    else:
        click.echo(f"{name!r} {_ORDERED[state].format(name=shlex.quote(name))}")


study.add_command(report)
study.add_command(export)
