"""``tuner run``: create or resume a study, train it on this machine, report."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from tuner.cli.options import (
    allow_option,
    console,
    device_option,
    echo_json,
    examples,
    fuse_option,
    load_spec,
    open_display,
    open_storage,
    processes_option,
    quiet_option,
    report_json_option,
    spec_options,
    storage_option,
    tell,
    workers_option,
)
from tuner.cli.outlets import notify_option, notifying, targets_option
from tuner.service.ranks import refuse_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tuner.domain.spec import StudySpec
    from tuner.service.notices import Recipient
    from tuner.service.open_study import StudyCheck
    from tuner.service.pools.standby import Crew
    from tuner.service.study_run import RunEnd
    from tuner.sinks.targets import Target
    from tuner.store import Database, StudyHandle

INTERRUPTED = 130


@click.command(
    epilog=examples(
        "tuner run studies/digits.toml",
        "tuner run studies/digits.toml --set budget.trials=200 --workers 2",
        "tuner run --workload models.parabola:Parabola --optimizers sgd,adam",
    )
)
@spec_options
@storage_option
@workers_option
@device_option
@fuse_option
@processes_option
@allow_option
@targets_option("--log-to")
@notify_option
@quiet_option
@report_json_option
def run(
    spec: str | None,
    name: str | None,
    workload: str | None,
    command: str | None,
    optimizers: str | None,
    warm_start: str | None,
    settings: tuple[str, ...],
    storage: str | None,
    workers: int,
    device: str,
    fuse: str,
    targets: tuple[Target, ...],
    notify: tuple[Recipient, ...],
    as_json: bool,
) -> None:
    """Create or resume a study, train it on this machine, and report.

    Ctrl-C saves the trials in training; the same command continues them. A study that was paused
    or stopped is left alone until 'tuner study resume'. A study file can raise the budget of a
    study that exists; only --set, such as --set budget.trials=20, lowers it.
    """
    refuse_ranks()
    parsed = load_spec(
        spec,
        name=name,
        workload=workload,
        command=command,
        optimizers=optimizers,
        warm_start=warm_start,
        settings=settings,
        storage=storage,
    )
    from tuner.service.launch import try_workload
    from tuner.service.pools.pool import slots_on
    from tuner.service.pools.standby import Crew

    # The workers load torch while this process opens the database; one of them tries the workload.
    with Crew(slots_on([device], workers), fuse, storage) as crew:
        check = partial(try_workload, crew)
        database, study = create_or_resume(parsed, storage, settings, check)
        train(
            database,
            study,
            workers=workers,
            device=device,
            fuse=fuse,
            crew=crew,
            as_json=as_json,
            targets=targets,
            notify=notify,
        )


def create_or_resume(
    spec: StudySpec,
    storage: str | None,
    settings: tuple[str, ...],
    check: Callable[[StudySpec, bool], StudyCheck] | None,
) -> tuple[Database, StudyHandle]:
    """Creates a study once its workload has been seen to run, or finds it, and says so.

    Args:
        spec: The study file with the settings applied.
        storage: The database's URL, or None for the default one.
        settings: The ``key=value`` texts that were set beside the study file.
        check: Tries the workload of a new study, as :func:`open_study` has it done.
    """
    from tuner.service.open_study import open_study

    opened = open_study(
        lambda create: open_storage(storage, create=create),
        spec,
        {text.partition("=")[0].strip() for text in settings},
        check,
    )
    for line in opened.announcements():
        tell(line)
    return opened.database, opened.study


def train(
    database: Database,
    study: StudyHandle,
    *,
    workers: int,
    device: str,
    fuse: str,
    crew: Crew | None = None,
    reported: StudyHandle | None = None,
    as_json: bool = False,
    targets: Sequence[Target] = (),
    notify: Sequence[Recipient] = (),
) -> None:
    """Trains a study on workers of this machine, shows how it goes, and reports.

    They go on with the study that confirms it, once the search is over.

    Args:
        database: The database that holds the study.
        study: The study.
        workers: How many processes there are, at least 1.
        device: Where they train, as ``--device`` takes it.
        fuse: How many trials train as one, as ``--fuse`` takes it.
        crew: As many processes that were started for them beforehand.
        reported: The study that is reported, if it is another one.
        as_json: Whether to report as JSON.
        targets: Where curves are sent to meanwhile.
        notify: Whom to tell how it ended.
    """
    told = reported or study
    with notifying(database, told, notify):
        train_trials(
            *(database, study),
            workers=workers,
            device=device,
            fuse=fuse,
            crew=crew,
            targets=targets,
        )
        conclude(database, told, as_json=as_json)


def train_trials(
    database: Database,
    study: StudyHandle,
    *,
    workers: int,
    device: str,
    fuse: str,
    crew: Crew | None = None,
    targets: Sequence[Target] = (),
) -> None:
    """Trains a study as :func:`train` does, without a report; exits with 130 if it was stopped.

    Args:
        database: The database that holds the study.
        study: The study.
        workers: As for :func:`train`, like the others.
        device: Likewise.
        fuse: Likewise.
        crew: Likewise.
        targets: Likewise.
    """
    from tuner.service.sending_process import sending
    from tuner.service.study_run import run_study

    display = open_display()
    with sending(database, study, targets, say=display.say, warn=display.warn):
        end = run_study(
            database, study, display, device=device, workers=workers, fuse=fuse, crew=crew
        )
    if end is not None:
        tell_end(end)


def tell_end(end: RunEnd) -> None:
    """Prints how a run ended; exits with 130 if it was stopped."""
    for line in end.announcements(_as_typed()):
        click.echo(line, err=True)
    if end.stopped_by:
        click.get_current_context().exit(INTERRUPTED)


def conclude(database: Database, study: StudyHandle, *, as_json: bool = False) -> None:
    """Prints the report of a study, and where to find more; exits with 1 if it has no winner.

    Args:
        database: The database that holds the study.
        study: The study.
        as_json: Whether to report as JSON.
    """
    from tuner.report.terminal import print_report
    from tuner.service.summaries import read_results

    summary = read_results(database, study)
    if as_json:
        from tuner.report.json import to_json

        echo_json(to_json(summary))
    else:
        print_report(summary, console())
    if summary.exhausted is not None:
        tell(f"\nThe study has ended: {summary.exhausted}.")
    if summary.best is None:
        click.get_current_context().exit(1)
    name = shlex.quote(study.name)
    confirm = f"tuner study confirm {name}"
    advised = any(advice.command == confirm for advice in summary.advice)
    if summary.confirmed is None and study.spec.confirmation is None and not advised:
        tell(f"\nTo see whether it wins on fresh seeds: {confirm}")
    tell(
        f"\nMore: tuner study report {name} --format html --open\n"
        f"      tuner study export {name}\n"
        "      tuner dashboard"
    )


def _as_typed() -> str:
    """Returns the command that this process runs, without passwords."""
    from tuner.store.connection.urls import hide_known_secrets

    return hide_known_secrets(shlex.join(("tuner", *sys.argv[1:])))
