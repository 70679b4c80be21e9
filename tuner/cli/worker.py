"""``tuner worker``: processes that train."""

from __future__ import annotations

import gc
import uuid
from typing import TYPE_CHECKING

import click

from tuner.cli.options import (
    STARTED_AT,
    TEXT,
    Group,
    allow_option,
    device_option,
    examples,
    fuse_option,
    open_storage,
    storage_option,
)
from tuner.cli.run import INTERRUPTED
from tuner.cli.streams import lose_rather_than_fail
from tuner.domain.fuse_plan import AUTO
from tuner.errors import UnavailableError
from tuner.service.ranks import refuse_ranks

if TYPE_CHECKING:
    from tuner.service.interruption import Interruption


@click.group(cls=Group, epilog=examples("tuner worker start digits --device cuda:1"))
def worker() -> None:
    """Start one worker: a process that trains trials of a study."""


@worker.command(
    epilog=examples("tuner worker start digits", "tuner worker start digits --device cuda:1")
)
@click.argument("name", type=TEXT)
@storage_option
@device_option
@fuse_option
@allow_option
@click.option("--threads", type=click.IntRange(1), help="CPU threads; else torch decides.")
@click.option("--follow-stdin", is_flag=True, hidden=True, help="Stop when standard input ends.")
def start(
    name: str,
    storage: str | None,
    device: str,
    fuse: str,
    threads: int | None,
    follow_stdin: bool,
) -> None:
    """Work on the study NAME until its budget is used up.

    Any number of workers may work on one study. Ctrl-C or SIGTERM saves the trial in training,
    which the next free worker continues. The exit code is then 130, and 0 only when nothing is
    left to do. On a paused study a worker waits until it is resumed. It waits for a database that
    it cannot reach; when that takes too long, the exit code is 69.
    """
    from tuner.service.interruption import Interruption

    lose_rather_than_fail()
    refuse_ranks()
    with Interruption(follow_stdin=follow_stdin) as interruption:
        try:
            work(name, storage, device, threads, interruption, fuse=fuse)
        except (KeyboardInterrupt, UnavailableError) as error:
            if not interruption.requested:
                raise
            click.echo(f"Asked to stop: {str(error) or 'no trial is in training yet.'}")
    # A pool that holds standard input has asked for the stop itself; Slurm and Kubernetes would
    # take 0 for a study that is done.
    if interruption.requested and not follow_stdin:
        click.get_current_context().exit(INTERRUPTED)


def work(
    name: str,
    storage: str | None,
    device: str,
    threads: int | None,
    interruption: Interruption,
    *,
    fuse: str = AUTO,
) -> None:
    """Opens the database, waiting for it if it is away, and works on a study.

    Raises:
        KeyboardInterrupt: If a stop is asked for before any trial is in training.
        UnavailableError: If the database stays away.
    """
    with interruption.raising():
        from tuner.store import Studies
        from tuner.store.connection.retries import PATIENCE_S, Patience

        patience = Patience(
            limit_s=PATIENCE_S, wait=interruption.wait, seed=uuid.uuid4().int, log=click.echo
        )
        database = patience.run(lambda: open_storage(storage))
        study = patience.run(lambda: Studies(database).find(name))

        # Imported modules stay; searching them for garbage again and again takes a second.
        gc.disable()
        import torch
        import torch._dynamo  # by the first of torch's optimizers at the latest

        from tuner.service.worker.worker import Worker
        from tuner.training.device import resolve_device

        gc.freeze()
        gc.enable()
        if threads is not None:
            torch.set_num_threads(threads)
        worker = Worker(
            database=database,
            study=study,
            device=resolve_device(device),
            interruption=interruption,
            started_at=STARTED_AT,
            log=click.echo,
            fuse=fuse,
        )
    worker.run()
