"""``tuner worker``: processes that train."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import uuid
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.options import (
    STARTED_AT,
    allow_option,
    device_option,
    examples,
    fuse_option,
    open_storage,
    processes_option,
    storage_option,
)
from tuner.cli.run import INTERRUPTED
from tuner.cli.streams import append_output, keep_output_apart, lose_rather_than_fail
from tuner.cli.words import STUDY, Group
from tuner.domain.fuse_plan import AUTO
from tuner.errors import TunerError, UnavailableError
from tuner.service.processes import limit_spinning
from tuner.service.ranks import read_processes, refuse_ranks

if TYPE_CHECKING:
    from tuner.service.interruption import Interruption
    from tuner.training.loop import TrainingLoop


@click.group(cls=Group, epilog=examples("tuner worker start digits --device cuda:1"))
def worker() -> None:
    """Start one worker: a process that trains trials of a study."""


@worker.command(
    epilog=examples("tuner worker start digits", "tuner worker start digits --device cuda:1")
)
@click.argument("name", type=STUDY)
@storage_option
@device_option
@fuse_option
@processes_option
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
    """Work on the study NAME until its budget is used up, and then on its confirmation.

    Any number of workers may work on one study. Ctrl-C or SIGTERM saves the trial in training,
    which the next free worker continues. The exit code is then 130, and 0 only when nothing is
    left to do. On a paused study a worker waits until it is resumed. It waits for a database that
    it cannot reach; when that takes too long, the exit code is 69.
    """
    lose_rather_than_fail()
    refuse_ranks()
    _serve(name, storage, device, threads, fuse=fuse, follow_stdin=follow_stdin)


@worker.command(hidden=True, epilog=examples("tuner worker standby --device cpu"))
@device_option
@fuse_option
@processes_option
@click.option("--threads", type=click.IntRange(1), help="CPU threads; else torch decides.")
def standby(device: str, fuse: str, threads: int | None) -> None:
    """Load what a worker needs, then do what standard input orders.

    Each line of it is an order of tuner.service.orders: to check the workload of a study that may
    be created then, which one line of standard output answers, and at last to work on a study.
    """
    from tuner.service.orders import Check, Work, read_orders

    answers = keep_output_apart()
    _load(threads)
    from tuner.service.passing import unpack
    from tuner.service.workload_check import answer_check
    from tuner.store.connection.urls import default_url, parse_url

    with contextlib.suppress(TunerError):  # a URL that has been read is hidden in what is printed
        parse_url(default_url())

    checked = None
    for order in read_orders(sys.stdin.buffer):
        if isinstance(order, Check):
            answer, checked = answer_check(order, device)
            os.write(answers, answer.to_line())
            import alembic.command  # noqa: F401 (to open the database, which is made meanwhile)

        elif isinstance(order, Work):
            os.close(answers)
            append_output(order.log)
            with warnings.catch_warnings():
                pass  # so that what the check was warned of is told again, in the log
            lose_rather_than_fail()
            os.environ["TUNER_STORAGE"] = order.url
            name, storage = order.study, None  # the URL is in the environment
            passed = unpack(order.code) if order.code and checked is None else None
            _serve(
                name,
                storage,
                device,
                threads,
                fuse=fuse,
                follow_stdin=True,
                checked=checked,
                passed=passed,
            )
            return


@worker.command(hidden=True, epilog=examples("tuner worker compile"))
def compile() -> None:  # noqa: A001 (a command)
    """Compile the steps of a study's cohorts, as standard input orders; nothing is trained."""
    from tuner.service.orders import read_orders

    answers = keep_output_apart()
    orders = sys.stdin.buffer
    [order] = read_orders([orders.readline()])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from tuner.service.compile_order import answer_compile

    os.write(answers, answer_compile(order).to_line())


@worker.command(hidden=True, epilog=examples("tuner worker rank"))
def rank() -> None:
    """Train as one of several processes of a trial, as the worker that started it orders."""
    lose_rather_than_fail()
    from tuner.service.worker.ranks.rank_process import main

    click.get_current_context().exit(main())


@worker.command(hidden=True, epilog=examples("tuner worker send"))
def send() -> None:
    """Send a study's curves to tools, as standard input orders, until that ends.

    Each line of standard output is something to tell whoever ordered it.
    """
    from tuner.service.interruption import Interruption
    from tuner.service.orders import Send, Told, read_orders
    from tuner.service.sending import Sending
    from tuner.sinks.targets import parse_target
    from tuner.store import Studies

    answers = keep_output_apart()
    [order] = read_orders([sys.stdin.buffer.readline()])
    if not isinstance(order, Send):
        raise TypeError(f"{order} is none that sends")

    def tell(text: str, *, warns: bool = False) -> None:
        with contextlib.suppress(BrokenPipeError):  # whoever ordered it has died
            os.write(answers, Told(text, warns).to_line())

    with Interruption(follow_stdin=True) as interruption:
        targets = [parse_target(text, "--log-to") for text in order.targets]
        database = open_storage(None)  # the URL is in the environment
        study = Studies(database).find(order.study)
        sending = Sending(database, study, targets, partial(tell, warns=True))
        try:
            sending.run(interruption, follow=True, patience_s=10.0)
        finally:
            sending.close()
        for line, arrived in sending.tell():
            tell(line, warns=not arrived)


def _end_with_parent() -> None:
    """Ends this process and those of the compiler once the one that gives orders has ended."""
    # Reading the descriptor itself takes no lock that a process at its end would wait for.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():  # a group of its own
        os.killpg(0, signal.SIGTERM)
    os._exit(1)


def _serve(
    name: str,
    storage: str | None,
    device: str,
    threads: int | None,
    *,
    fuse: str,
    follow_stdin: bool,
    checked: TrainingLoop | None = None,
    passed: Any = None,
) -> None:
    """Works on a study until nothing is left to do or a stop is asked for, which the code tells."""
    from tuner.service.interruption import Interruption

    with Interruption(follow_stdin=follow_stdin) as interruption:
        try:
            work(
                name,
                storage,
                device,
                threads,
                interruption,
                fuse=fuse,
                checked=checked,
                passed=passed,
            )
        except (KeyboardInterrupt, UnavailableError) as error:
            if not interruption.requested:
                raise
            click.echo(f"Asked to stop: {str(error) or 'no trial is in training yet.'}")
    # A pool that holds standard input has asked for the stop itself; Slurm and Kubernetes would
    # take 0 for a study that is done.
    if interruption.requested and not follow_stdin:
        click.get_current_context().exit(INTERRUPTED)


def _load(threads: int | None) -> None:
    """Imports what every worker needs, which takes seconds."""
    # Imported modules stay; searching them for garbage again and again takes a second.
    gc.disable()
    limit_spinning(os.environ)
    import torch
    import torch._dynamo  # by the first of torch's optimizers at the latest

    import tuner.service.worker.worker  # noqa: F401

    gc.freeze()
    gc.enable()
    if threads is not None:
        torch.set_num_threads(threads)


def work(
    name: str,
    storage: str | None,
    device: str,
    threads: int | None,
    interruption: Interruption,
    *,
    fuse: str = AUTO,
    checked: TrainingLoop | None = None,
    passed: Any = None,
) -> None:
    """Opens the database, waiting for it if it is away, and works on a study.

    Args:
        name: The study's name.
        storage: The database's URL, or None for the default one.
        device: The device to train on, as ``--device`` takes it.
        threads: CPU threads, or None to let torch decide.
        interruption: Tells when to stop.
        fuse: The number of trials that train as one, as ``--fuse`` takes it.
        checked: The study's training loop if this process has checked the study's workload.
        passed: The workload, if it was passed as an object; None to import it.

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

        _load(threads)
        from tuner.service.worker.worker import Worker
        from tuner.training.device import resolve_device

        worker = Worker(
            database=database,
            study=study,
            device=resolve_device(device),
            interruption=interruption,
            started_at=STARTED_AT,
            log=click.echo,
            fuse=fuse,
            loop=checked,
            passed=passed,
            processes=read_processes(),
        )
    worker.run()
