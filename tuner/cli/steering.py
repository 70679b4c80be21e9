"""``tuner study pause``, ``resume``, ``stop``, ``repair``, ``clean`` and ``delete``."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tuner.cli.options import (
    console,
    echo_json,
    examples,
    find_study,
    is_quiet,
    json_option,
    open_storage,
    quiet_option,
    storage_option,
    tell,
)
from tuner.cli.words import STUDY
from tuner.domain.states import StudyState

if TYPE_CHECKING:
    from tuner.service.cleaning import Holding, Remnant


@click.command(epilog=examples("tuner study pause digits", "tuner study resume digits"))
@click.argument("name", type=STUDY)
@storage_option
@quiet_option
@json_option
def pause(name: str, storage: str | None, as_json: bool) -> None:
    """Pause a study: its workers save their trials and wait.

    They hear of it within seconds, and do so at the next step or evaluation of each trial. Nothing
    is lost: after 'tuner study resume' they go on where they were.
    """
    _set_state(name, storage, StudyState.PAUSED, as_json=as_json)


@click.command(epilog=examples("tuner study resume digits"))
@click.argument("name", type=STUDY)
@storage_option
@quiet_option
@json_option
def resume(name: str, storage: str | None, as_json: bool) -> None:
    """Resume a paused or stopped study.

    Workers that wait go on by themselves; if there are none, start some with 'tuner study run'.
    """
    _set_state(name, storage, StudyState.RUNNING, as_json=as_json)


@click.command(epilog=examples("tuner study stop digits", "tuner study report digits"))
@click.argument("name", type=STUDY)
@storage_option
@quiet_option
@json_option
def stop(name: str, storage: str | None, as_json: bool) -> None:
    """Stop a study before its budget is used up.

    No new trial starts. Trials end with the metric they have, and the workers end. The results can
    be reported and exported; 'tuner study resume' has the study go on.
    """
    _set_state(name, storage, StudyState.STOPPED, as_json=as_json)


@click.command(epilog=examples("tuner study repair digits", "tuner study repair digits --json"))
@click.argument("name", type=STUDY)
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


@click.command(
    epilog=examples("tuner study clean", "tuner study clean --yes", "tuner study clean digits")
)
@click.argument("names", nargs=-1, type=STUDY)
@storage_option
@click.option("--yes", is_flag=True, help="Free the room, and do not ask.")
@quiet_option
@json_option
def clean(names: tuple[str, ...], storage: str | None, yes: bool, as_json: bool) -> None:
    """Show the room that studies hold on disk for nobody, and free it.

    That is the checkpoints of finished studies, which are done, or stopped without a trial that
    waits: none of their trials goes on from a checkpoint. Where a command trained them, it is the
    folders of their trials as well, with all that the command wrote there. Without NAMES it is also
    the folders of studies that have been deleted from this database. All other files stay. With
    --json nothing is freed without --yes.
    """
    from tuner.service.cleaning import free, read_holdings, read_remnants

    database = open_storage(storage)
    holdings = read_holdings(database, names, frees=yes)
    remnants = [] if names else read_remnants(database)
    remnants = free(remnants) if yes else remnants
    if as_json:
        studies = [dataclasses.asdict(holding) for holding in holdings]
        echo_json({"studies": studies, "gone": [dataclasses.asdict(one) for one in remnants]})
        return
    if not holdings and not remnants:
        tell("No study holds checkpoints or folders of trials here.")
        return
    if not is_quiet():
        _print_holdings(holdings)
        _print_remnants(remnants)
    finished = [holding for holding in holdings if holding.is_free]
    gone = [remnant for remnant in remnants if remnant.is_free]
    if not finished and not gone:
        if holdings:
            tell("None of these studies is finished: their trials go on from what they hold.")
        return
    if not yes:
        size = sum(holding.size for holding in finished) + sum(remnant.size for remnant in gone)
        click.confirm(f"Free {_tell_size(size)} of {_tell_whose(finished, gone)}?", abort=True)
        if finished:
            finished = read_holdings(database, [one.study for one in finished], frees=True)
        gone = free(gone)
    freed = sum(holding.freed for holding in finished) + sum(remnant.freed for remnant in gone)
    tell(f"Freed {_tell_size(freed)}.")


def _tell_whose(finished: Sequence[Holding], gone: Sequence[Remnant]) -> str:
    parts = [(len(finished), "finished"), (len(gone), "deleted")]
    told = " and ".join(f"{count} {what}" for count, what in parts if count)
    return f"{told} {'study' if len(finished) + len(gone) == 1 else 'studies'}"


def _print_holdings(holdings: Sequence[Holding]) -> None:
    from tuner.report.tables import TextTable
    from tuner.report.terminal import FittedTable

    rows = tuple(
        (
            h.study,
            h.activity.value,
            str(h.files),
            str(h.folders),
            _tell_size(h.size),
            "yes" if h.is_free else "no",
        )
        for h in holdings
    )
    if rows:
        columns = ("study", "state", "checkpoints", "trial folders", "size", "finished")
        console().print(FittedTable(TextTable("What trials hold", columns, rows)))


def _print_remnants(remnants: Sequence[Remnant]) -> None:
    from tuner.report.tables import TextTable
    from tuner.report.terminal import FittedTable

    rows = tuple(
        (r.folder, str(r.files), _tell_size(r.size), "yes" if r.is_free else "no") for r in remnants
    )
    if rows:
        columns = ("folder", "files", "size", "ours")
        title = "Folders of studies that are not in this database"
        console().print(FittedTable(TextTable(title, columns, rows)))
    for remnant in remnants:
        if not remnant.is_free:
            click.echo(f"{remnant.folder} stays: {remnant.reason}.")


def _tell_size(size: float) -> str:
    """Returns bytes in the largest unit of which there is one."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}"


@click.command(epilog=examples("tuner study delete digits", "tuner study delete digits --yes"))
@click.argument("name", type=STUDY)
@storage_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@quiet_option
@json_option
def delete(name: str, storage: str | None, yes: bool, as_json: bool) -> None:
    """Delete a study with its trials, checkpoints and logs, and the study that confirms it."""
    from tuner.service.steering import delete_study, find_doomed

    database, handle = find_study(name, storage)
    doomed = find_doomed(database, handle)
    counts = {each.study.name: each.trials for each in doomed if each.told}
    if not yes:
        told = " and ".join(f"{each!r} and its {count} trials" for each, count in counts.items())
        click.confirm(f"Delete {told} from {database.name}?", abort=True, err=as_json)
    for each in doomed:
        kept = delete_study(database, each.study)
        if kept is not None:
            tell(f"{kept} stays: this database has not used it. Remove it if nobody does.")
        if each.told and not as_json:
            tell(f"Deleted {each.study.name!r} and its {each.trials} trials.", err=False)
    if as_json:
        echo_json([{"study": each, "trials": count} for each, count in counts.items()])


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


def _set_state(name: str, storage: str | None, state: StudyState, *, as_json: bool) -> None:
    from tuner.service.steering import steer

    before = steer(*find_study(name, storage), state)
    if as_json:
        echo_json({"study": name, "state": state.value, "state_before": before.value})
    elif before is state:
        tell(f"{name!r} was {state} already.", err=False)
    else:
        tell(f"{name!r} {_ORDERED[state].format(name=shlex.quote(name))}", err=False)
