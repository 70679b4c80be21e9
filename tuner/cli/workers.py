"""``tuner workers``: pools of workers, and the workers of a study."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from tuner.cli.options import (
    allow_option,
    console,
    echo_json,
    examples,
    find_study,
    fuse_option,
    json_option,
    open_display,
    processes_option,
    quiet_option,
    report_json_option,
    storage_option,
    tell,
)
from tuner.cli.run import conclude, tell_end
from tuner.cli.words import STUDY, Group
from tuner.errors import NotFoundError, SpecError
from tuner.service.processes import group_devices
from tuner.service.ranks import read_processes, refuse_ranks

if TYPE_CHECKING:
    from tuner.service.pools.pool import Pool
    from tuner.service.pools.worker_process import Job
    from tuner.store import Database, StudyHandle
    from tuner.store.leases.workers import WorkerRow

_SHORT = 8
"""Letters of a worker's id that are shown: enough to tell workers apart."""


@click.group(
    cls=Group,
    epilog=examples(
        "tuner workers launch digits --devices 0,1 --per-device 2",
        "tuner workers list digits",
        "tuner workers stop digits",
    ),
)
def workers() -> None:
    """Launch many workers on a study, list them, and stop them."""


@workers.command(
    epilog=examples(
        "tuner workers launch digits --devices 0,1 --per-device 2",
        "tuner workers launch digits --on ray --workers 4 --gpus-per-worker 0.5",
        "tuner workers launch digits --on ray --address auto --workers 16",
    )
)
@click.argument("name", type=STUDY)
@storage_option
@fuse_option
@processes_option
@allow_option
@click.option(
    "--on",
    "place",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or actors of a Ray cluster.",
)
@click.option(
    "--devices",
    metavar="all|cpu|0,1",
    help="Local: CUDA devices, or the CPU. [default: all, the CPU where there is none]",
)
@click.option("--per-device", type=click.IntRange(1, 64), help="Local: workers a device [1].")
@click.option("--address", help="Ray: a running cluster, such as auto; without it, start one.")
@click.option("--workers", "count", type=click.IntRange(1), help="Ray: how many workers [1].")
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(0),
    help="Ray: share of a GPU for each; 0 trains on the CPU. [default: 1 if the cluster has GPUs]",
)
@click.option(
    "--max-restarts",
    type=click.IntRange(0),
    help="How often a worker that dies is started again. [default: 10]",
)
@quiet_option
@report_json_option
def launch(
    name: str,
    storage: str | None,
    fuse: str,
    place: str,
    devices: str | None,
    per_device: int | None,
    address: str | None,
    count: int | None,
    gpus_per_worker: float | None,
    max_restarts: int | None,
    as_json: bool,
) -> None:
    """Train the study NAME on many workers, and show the state of each.

    A worker that dies is started again. Ctrl-C or SIGTERM saves the trials in training; the same
    command continues them. When this process dies, its workers save and end. On a paused study
    they wait until it is resumed.
    """
    refuse_ranks()
    if place == "local" and count is not None:
        raise SpecError(
            f"--workers is for --on ray; for {count} processes here use --per-device {count}."
        )
    _refuse_foreign(
        place,
        local={"--devices": devices, "--per-device": per_device},
        ray={"--address": address, "--gpus-per-worker": gpus_per_worker},
    )
    database, study = find_study(name, storage)
    from tuner.service.pools.pool import MAX_RESTARTS
    from tuner.service.study_run import make_job

    job = make_job(database, study, fuse)
    cap = MAX_RESTARTS if max_restarts is None else max_restarts
    if place == "ray":
        _launch_on_ray(database, study, job, address, count or 1, gpus_per_worker, cap)
    else:
        from tuner.service.pools.local import LocalPool
        from tuner.service.pools.pool import slots_on
        from tuner.training.device import expand_devices

        grouped = group_devices(expand_devices(devices or "all"), read_processes())
        slots = slots_on(grouped, per_device or 1)
        _train(LocalPool(job, slots, max_restarts=cap), database, study, job.fuse)
    conclude(database, study, as_json=as_json)


@workers.command("list", epilog=examples("tuner workers list digits"))
@click.argument("name", type=STUDY)
@storage_option
@json_option
def list_(name: str, storage: str | None, as_json: bool) -> None:
    """List who works, or has worked, on the study NAME, and on the one that confirms it.

    A worker is working, waiting for trials that others may leave unfinished, paused with the
    study, leaving because it was asked to, or has left. A silent one has died, or was not seen for
    longer than train.stall_s: the other workers continue its trials.
    """
    from tuner.report.tables import TextTable, duration
    from tuner.report.terminal import FittedTable
    from tuner.service.liveness import is_dead
    from tuner.store.leases.workers import read_workers

    database, study = find_study(name, storage)
    rows = {
        each.name: read_workers(database, each, is_dead)
        for each in _with_companion(database, study)
    }
    if as_json:
        echo_json(
            [
                {"study": each} | dataclasses.asdict(row)
                for each, found in rows.items()
                for row in found
            ]
        )
        return
    columns = ("worker", "host", "pid", "device", "trial", "seen", "state")
    for each, found in rows.items():
        lines = tuple(
            (
                *(row.id[:_SHORT], row.host, str(row.pid), row.device),
                ", ".join(map(str, row.trials)) or "–",
                f"{duration(row.seen_ago_s)} ago",
                row.state.value,
            )
            for row in found
        )
        console().print(FittedTable(TextTable(f"Workers of {each}", columns, lines)))


@workers.command(
    epilog=examples("tuner workers stop digits", "tuner workers stop digits --worker 5d1fb3e9")
)
@click.argument("name", type=STUDY)
@storage_option
@click.option(
    "--worker",
    "ids",
    multiple=True,
    metavar="ID",
    help="Only this one, as tuner workers list shows it. Repeatable.",
)
@quiet_option
@json_option
def stop(name: str, storage: str | None, ids: tuple[str, ...], as_json: bool) -> None:
    """Ask the workers of the study NAME, wherever they are, to save and end.

    They hear of it within seconds, and do so at the next step or evaluation of each trial.
    """
    from tuner.service.liveness import is_dead
    from tuner.store.control import ask_to_leave
    from tuner.store.leases.workers import read_workers

    database, study = find_study(name, storage)
    studies = _with_companion(database, study)
    known = [row for each in studies for row in read_workers(database, each, is_dead)]
    rows = _select(known, study, ids)
    working = [row.id for row in rows if row.state.is_alive]
    asked = sum(ask_to_leave(database, each, working) for each in studies) if working else 0
    before = len(working) - asked
    if as_json:
        echo_json({"study": study.name, "asked": asked, "asked_before": before})
        return
    if not working:
        nobody = f"Nobody of {', '.join(ids)}" if ids else "Nobody"
        tell(f"{nobody} works on {study.name!r}.", err=False)
    if asked:
        workers_ = "worker" if asked == 1 else "workers"
        tell(f"Asked {asked} {workers_} to save and end.", err=False)
    if before:
        tell(f"Asked before, and about to end: {before}.", err=False)


def _with_companion(database: Database, study: StudyHandle) -> list[StudyHandle]:
    """Returns a study, and the one that confirms it if that has begun."""
    from tuner.service.summaries import find_readable_companion

    companion = find_readable_companion(database, study)
    return [study] if companion is None or companion.waits else [study, companion]


def _select(rows: list[WorkerRow], study: StudyHandle, ids: tuple[str, ...]) -> list[WorkerRow]:
    """Returns the workers whose ids start as given, or all if none are."""
    for start in ids:
        if not start:
            raise SpecError("--worker is empty: leave it out to mean all of them.")
        if not any(row.id.startswith(start) for row in rows):
            raise NotFoundError(
                f"--worker {start}: no such worker of {study.name!r}; see tuner workers list."
            )
    return [row for row in rows if not ids or row.id.startswith(ids)]


def _refuse_foreign(place: str, **options: dict[str, object]) -> None:
    """Refuses options that belong to the other kind of pool and would have no effect."""
    for owner, values in options.items():
        given = [option for option, value in values.items() if value is not None]
        if given and owner != place:
            raise SpecError(f"{', '.join(given)}: of --on {owner}, and this is --on {place}.")


def _launch_on_ray(
    database: Database,
    study: StudyHandle,
    job: Job,
    address: str | None,
    count: int,
    gpus_per_worker: float | None,
    max_restarts: int,
) -> None:
    import os

    from tuner.service.pools.ray import RayPool, check_room, count_gpus, join_cluster

    with join_cluster(address, cpus=max(count, os.cpu_count() or 1)):
        gpus = count_gpus()
        usual = float(read_processes() if gpus else 0)
        share = usual if gpus_per_worker is None else gpus_per_worker
        if address is None:
            # Another cluster may grow.
            check_room(count, share, gpus)
        pool = RayPool(job, workers=count, gpus_per_worker=share, max_restarts=max_restarts)
        _train(pool, database, study, job.fuse)


def _train(pool: Pool, database: Database, study: StudyHandle, fuse: str) -> None:
    from tuner.service.study_run import run_pool

    tell_end(run_pool(pool, database, study, open_display(tell_workers=True), fuse))
