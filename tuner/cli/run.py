"""``tuner run``: create or resume a study, train it on this machine, report."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tuner.cli.options import (
    allow_option,
    console,
    device_option,
    examples,
    fuse_option,
    load_spec,
    open_storage,
    spec_options,
    storage_option,
    workers_option,
)
from tuner.domain.fuse_plan import AUTO
from tuner.errors import ExhaustedError, SpecError, WorkloadError
from tuner.service.ranks import refuse_ranks

if TYPE_CHECKING:
    from tuner.domain.spec import StudySpec
    from tuner.service.pools.pool import Pool
    from tuner.service.pools.worker_process import Job
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
    fuse: str,
) -> None:
    """Create or resume a study, train it on this machine, and report.

    Ctrl-C saves the trials in training; the same command continues them. A study that was paused
    or stopped is left alone until 'tuner study resume'. A study file can raise the budget of a
    study that exists; only --set budget.trials or budget.wall_time lowers it.
    """
    refuse_ranks()
    parsed = load_spec(spec, name=name, workload=workload, optimizers=optimizers, settings=settings)
    database, study = create_or_resume(parsed, storage, device, settings)
    train(database, study, workers=workers, device=device, fuse=fuse)


def create_or_resume(
    spec: StudySpec,
    storage: str | None,
    device: str,
    settings: Sequence[str] = (),
    *,
    check: bool = True,
) -> tuple[Database, StudyHandle]:
    """Creates the study after its workload has been seen to run, or finds it.

    Args:
        spec: What the study file says.
        storage: The database's URL, or None for the default one.
        device: Where the workload is tried.
        settings: What was set beside the study file: ``key=value`` texts.
        check: Whether to try the workload of a new study.
    """
    from tuner.service.open_study import find_study, open_study

    existing = find_study(storage, spec.study.name)
    fusable = False
    if check and not existing:
        fusable = check_workload(spec, device)
    database = open_storage(storage, create=True)
    opened = open_study(database, spec, {text.partition("=")[0].strip() for text in settings})
    study = opened.study
    if opened.created:
        click.echo(f"Created study {study.name!r} in {database.name}", err=True)
    for key, limit in opened.changed.items():
        click.echo(f"Study {study.name!r} now has a budget of {_limit(key, limit)}", err=True)
    if opened.created or opened.changed:
        _announce_small_space(study.spec, certain=fusable)
    for line in _bent_defaults(study.spec) if opened.created else ():
        click.echo(f"{line[0].upper()}{line[1:]}.", err=True)
    for key, (limit, said) in opened.kept.items():
        click.echo(
            f"Study {study.name!r} stays at {_limit(key, limit)} (the file says "
            f"{_limit(key, said)}; to lower it: --set budget.{key}={said})",
            err=True,
        )
    return database, study


def _bent_defaults(spec: StudySpec) -> list[str]:
    """Returns, once each, which defaults are not tried since the study file does not allow them."""
    from tuner.domain.trials import bent_defaults, default_proposals

    proposals = default_proposals(spec)
    return list(dict.fromkeys(str(b) for p in proposals for b in bent_defaults(spec, p.params)))


def _announce_small_space(spec: StudySpec, *, certain: bool) -> None:
    """Tells the user when the space has fewer configurations than the budget has trials.

    Args:
        spec: The study, resolved.
        certain: Whether its workload is known to ask for no hyperparameters of its own.
    """
    from tuner.domain.points import count_configurations

    count = count_configurations(spec)
    if count is not None:
        unless = "" if certain else ", unless its loop asks for hyperparameters of its own"
        noun = "configuration" if count == 1 else "configurations"
        click.echo(
            f"The space has {count} {noun}, fewer than budget.trials = "
            f"{spec.budget.trials}: the study ends after {count}{unless}.",
            err=True,
        )


def _limit(key: str, limit: float | None) -> str:
    from tuner.report.tables import duration

    if key == "trials":
        return f"{limit:.0f} trials"
    return "no limit of wall time" if limit is None else f"{duration(limit)} of wall time"


def check_workload(spec: StudySpec, device: str) -> bool:
    """Trains a workload for a step and evaluates it once, before anything is created.

    Returns:
        Whether it is a workload class; a training loop may ask for hyperparameters of its own.

    Raises:
        SpecError: If it does not run as the study says, or a sampler or pruner of the user's own
            cannot be built.
    """
    from tuner.search import Proposer, build_pruner
    from tuner.training.device import resolve_device
    from tuner.training.loop import WorkloadLoop
    from tuner.training.rehearsal import prepare_checked

    resolved = spec.resolve()
    with contextlib.suppress(ExhaustedError):  # there may be no more than the defaults
        Proposer(resolved, seed=0).propose()
    build_pruner(resolved)
    return isinstance(prepare_checked(resolved, resolve_device(device)), WorkloadLoop)


def train(
    database: Database, study: StudyHandle, *, workers: int, device: str, fuse: str = AUTO
) -> None:
    """Trains a study on local workers, shows how it goes, and prints the report."""
    from tuner.service.pools.local import LocalPool
    from tuner.service.pools.pool import slots_on
    from tuner.service.summaries import read_summary
    from tuner.store.leases.budget import is_done

    summary = read_summary(database, study)
    exhausted = summary.exhausted is not None and is_done(database, study)
    if summary.finished < study.spec.budget.trials and not exhausted:
        _refuse_halted(database, study)
        job = job_on(database, study, fuse)
        train_on(LocalPool(job, slots_on([device], workers)), database, study, fuse)
    conclude(database, study)


def conclude(database: Database, study: StudyHandle) -> None:
    """Prints the report of a study, and what else there is; exits with 1 if it has no winner."""
    from tuner.report.terminal import print_report
    from tuner.service.summaries import read_summary

    summary = read_summary(database, study)
    print_report(summary, console())
    if summary.exhausted is not None:
        click.echo(f"\nThe study has ended: {summary.exhausted}.", err=True)
    if summary.best is None:
        click.get_current_context().exit(1)
    name = shlex.quote(study.name)
    click.echo(
        f"\nMore: tuner study report {name} --format html --output report.html, "
        f"tuner study export {name}, tuner dashboard",
        err=True,
    )


def _refuse_halted(database: Database, study: StudyHandle) -> None:
    """Leaves a study alone that somebody has halted: it may be another one than who runs it."""
    from tuner.domain.states import StudyState
    from tuner.store.control import read_state

    state = read_state(database, study)
    if state is not StudyState.RUNNING:
        raise SpecError(
            f"The study {study.name!r} is {state}. To go on with it: "
            f"tuner study resume {shlex.quote(study.name)}"
        )


def job_on(database: Database, study: StudyHandle, fuse: str = AUTO) -> Job:
    """Returns what the workers of a pool are started with."""
    from tuner.domain.imports import ALLOW
    from tuner.service.ownership import claim_folder
    from tuner.service.pools.worker_process import Job

    return Job(
        study=study.name,
        url=database.url,
        logs=claim_folder(database, study) / "logs",
        fuse=fuse,
        environment={key: value for key, value in os.environ.items() if key == ALLOW},
    )


def train_on(
    pool: Pool, database: Database, study: StudyHandle, fuse: str, *, show_workers: bool = False
) -> None:
    """Runs a pool to its end and shows how the study goes.

    Args:
        pool: Workers on the study.
        database: Where the study is.
        study: The study.
        fuse: How many trials they were asked to train as one.
        show_workers: Whether to show each worker, too.

    Raises:
        WorkloadError: If the workers have ended and the study is not done.
    """
    from tuner.cli.progress import watch
    from tuner.service.interruption import Interruption
    from tuner.store.leases.budget import is_done
    from tuner.store.leases.rows import count_unsaved

    with Interruption() as interruption:
        watched = watch(database, study, pool, interruption, fuse=fuse, show_workers=show_workers)
    done = is_done(database, study)
    stopped_by = interruption.requested_by
    if not done and not stopped_by and _were_asked_to_leave(database, study, pool):
        stopped_by = "'tuner workers stop'"
    if stopped_by:
        fate = "lost since their last checkpoints" if watched.lost else "saved"
        unsaved = 0 if watched.lost else count_unsaved(database, study)
        if unsaved:
            fate += f", but for {unsaved} that will start over: without run.steps() none can be"
        click.echo(
            f"Stopped by {stopped_by}; unfinished trials are {fate}. Continue: {_as_typed()}",
            err=True,
        )
        click.get_current_context().exit(INTERRUPTED)
    if not done:
        messages = [failure.message for failure in watched.failures if failure.message]
        raise WorkloadError(
            messages[-1] if messages else "The workers ended before the study was done."
        )
    for failure in watched.failures:
        click.echo(f"Worker {failure.index} died (exit code {failure.code}).", err=True)


def _as_typed() -> str:
    """Returns the command that this process runs, without passwords."""
    from tuner.store.connection.urls import hide_known_secrets

    return hide_known_secrets(shlex.join(("tuner", *sys.argv[1:])))


def _were_asked_to_leave(database: Database, study: StudyHandle, pool: Pool) -> bool:
    from tuner.store.leases.workers import read_workers

    leaving = {(row.host, row.pid) for row in read_workers(database, study) if row.leaving}
    return any((seat.host, seat.pid) in leaving for seat in pool.seats)
