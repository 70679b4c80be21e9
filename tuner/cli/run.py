"""``tuner run``: create or resume a study, train it on this machine, report."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import click

from tuner.cli.options import (
    allow_option,
    console,
    device_option,
    examples,
    load_spec,
    open_storage,
    spec_options,
    storage_option,
)
from tuner.errors import WorkloadError

if TYPE_CHECKING:
    from tuner.domain.spec import StudySpec
    from tuner.service.pools import Pool
    from tuner.service.worker_process import Job
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
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Processes; they share the cores, unless OMP_NUM_THREADS says how many each takes.",
)
@device_option
@allow_option
def run(
    spec: str | None,
    name: str | None,
    workload: str | None,
    optimizers: str | None,
    settings: tuple[str, ...],
    storage: str | None,
    workers: int,
    device: str,
) -> None:
    """Create or resume a study, train it on this machine, and report.

    Ctrl-C saves the trials in training; the same command continues them.
    """
    parsed = load_spec(spec, name=name, workload=workload, optimizers=optimizers, settings=settings)
    database, study = create_or_resume(parsed, storage, device)
    train(database, study, workers=workers, device=device)


def create_or_resume(
    spec: StudySpec,
    storage: str | None,
    device: str,
    *,
    check: bool = True,
) -> tuple[Database, StudyHandle]:
    """Creates the study after its workload has been seen to run, or finds it.

    Args:
        spec: What the study file says.
        storage: The database's URL, or None for the default one.
        device: Where the workload is tried.
        check: Whether to try the workload of a new study.
    """
    from tuner.service.resume import find_study, open_study

    existing = find_study(storage, spec.study.name)
    if check and not existing:
        check_workload(spec, device)
    database = open_storage(storage, create=True)
    opened = open_study(database, spec)
    budget, study_name = opened.study.spec.budget, opened.study.name
    if opened.created:
        click.echo(f"Created study {study_name!r} in {database.name}", err=True)
    elif opened.extended:
        click.echo(f"Study {study_name!r} now has a budget of {budget.trials} trials", err=True)
    return database, opened.study


def check_workload(spec: StudySpec, device: str) -> None:
    """Trains a workload for a step and evaluates it once, before anything is created.

    Raises:
        SpecError: If it does not run as the study says, or a sampler or pruner of the user's own
            cannot be built.
    """
    from tuner.search import Proposer, build_pruner
    from tuner.training.device import resolve_device
    from tuner.training.prepare import prepare_checked

    resolved = spec.resolve()
    Proposer(resolved, seed=0).propose()
    build_pruner(resolved)
    prepare_checked(resolved, resolve_device(device))


def train(database: Database, study: StudyHandle, *, workers: int, device: str) -> None:
    """Trains a study on local workers, shows how it goes, and prints the report."""
    from tuner.report.terminal import print_report
    from tuner.service.local_pool import LocalPool
    from tuner.service.pools import slots_on
    from tuner.service.summaries import read_summary

    if read_summary(database, study).finished < study.spec.budget.trials:
        _resume(database, study)
        train_on(LocalPool(job_on(database, study), slots_on([device], workers)), database, study)
    summary = read_summary(database, study)
    print_report(summary, console())
    if summary.best is None:
        click.get_current_context().exit(1)
    name = shlex.quote(study.name)
    click.echo(
        f"\nMore: tuner study report {name} --format html --output report.html, "
        f"tuner study export {name}, tuner dashboard",
        err=True,
    )


def _resume(database: Database, study: StudyHandle) -> None:
    from tuner.domain.states import StudyState
    from tuner.store.control import set_state

    before = set_state(database, study, StudyState.RUNNING)
    if before is not StudyState.RUNNING:
        click.echo(f"Study {study.name!r} was {before} and goes on", err=True)


def job_on(database: Database, study: StudyHandle) -> Job:
    """Returns what the workers of a pool are started with."""
    from tuner.domain.imports import ALLOW
    from tuner.service.checkpoints import study_folder
    from tuner.service.worker_process import Job

    return Job(
        study=study.name,
        url=database.url,
        logs=study_folder(database.url, study) / "logs",
        environment={key: value for key, value in os.environ.items() if key == ALLOW},
    )


def train_on(
    pool: Pool, database: Database, study: StudyHandle, *, show_workers: bool = False
) -> None:
    """Runs a pool to its end and shows how the study goes.

    Args:
        pool: Workers on the study.
        database: Where the study is.
        study: The study.
        show_workers: Whether to show each worker, too.

    Raises:
        WorkloadError: If the workers have ended and the study is not done.
    """
    from tuner.cli.progress import watch
    from tuner.service.interruption import Interruption
    from tuner.store.ledger import is_done

    with Interruption() as interruption:
        watched = watch(database, study, pool, interruption, show_workers=show_workers)
    if interruption.requested or _were_asked_to_leave(database, study, pool):
        fate = "lost since their last checkpoints" if watched.lost else "saved"
        name = shlex.quote(study.name)
        click.echo(
            f"Stopped; unfinished trials are {fate}. Continue: tuner study run {name}", err=True
        )
        click.get_current_context().exit(INTERRUPTED)
    if not is_done(database, study):
        messages = [failure.message for failure in watched.failures if failure.message]
        raise WorkloadError(
            messages[-1] if messages else "The workers ended before the study was done."
        )
    for failure in watched.failures:
        click.echo(f"Worker {failure.index} died (exit code {failure.code}).", err=True)


def _were_asked_to_leave(database: Database, study: StudyHandle, pool: Pool) -> bool:
    from tuner.store.workers import read_workers

    leaving = {(row.host, row.pid) for row in read_workers(database, study) if row.leaving}
    return any((seat.host, seat.pid) in leaving for seat in pool.seats)
