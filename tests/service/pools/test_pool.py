"""What holds for a pool of workers wherever they run: here, local processes and Ray's actors."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest
import sqlalchemy as sa

from tests.conftest import MakeSpec
from tuner.domain.trials import Outcome
from tuner.errors import SpecError, UnavailableError
from tuner.service.folders import study_folder
from tuner.service.interruption import Interruption
from tuner.service.pools.local import LocalPool
from tuner.service.pools.pool import Exit, Pool, SeatState, slots_on, tend
from tuner.service.pools.ray import RayPool, check_room, join_cluster
from tuner.service.pools.worker_process import Job
from tuner.store import Database, Studies, StudyHandle, open_database, read_records

pytestmark = pytest.mark.slow

# Workloads that meet their test in files of the project, so that nothing depends on timing.
_WORKLOADS = '''
import os
import signal
import time
from pathlib import Path

import torch
from models.parabola import Parabola


class Patient(Parabola):
    """Waits in its tenth training step, the check of the workload's included, until told."""

    steps = 0

    def loss(self, model, batch):
        if torch.is_grad_enabled():
            Patient.steps += 1
            if Patient.steps == 10:
                Path("training").touch()
                while not Path("go").exists():
                    time.sleep(0.01)
                self.go_on()
        return super().loss(model, batch)

    def go_on(self):
        pass


class Mortal(Patient):
    """Dies in that step, as if out of memory, once."""

    def go_on(self):
        if not Path("died").exists():
            Path("died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
'''
_DOOMED = """
import os
import time
from pathlib import Path

while not Path("go").exists():
    time.sleep(0.01)
os._exit(9)
"""

MakePool = Callable[..., Pool]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Joins a Ray cluster of this process's own, with two GPUs that do not exist."""
    with mock.patch.dict(os.environ), join_cluster(cpus=4, gpus=2):
        yield


@pytest.fixture(params=["local", "ray"])
def make_pool(request: pytest.FixtureRequest, project: Path) -> Iterator[MakePool]:
    """Returns a maker of pools of each kind, which end with the test."""
    (project / "workloads.py").write_text(_WORKLOADS)
    (project / "doomed.py").write_text(_DOOMED)
    if request.param == "ray":
        request.getfixturevalue("cluster")
    pools: list[Pool] = []

    def make(database: Database, study: StudyHandle, workers: int = 1, **options: Any) -> Pool:
        job = job_on(database, study)
        pool: Pool
        if request.param == "local":
            pool = LocalPool(job, slots_on(["cpu"], workers), **options)
        else:
            pool = RayPool(job, workers=workers, gpus_per_worker=0.5, device="cpu", **options)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.kill()
        until(partial(is_over, pool))


def is_over(pool: Pool) -> bool:
    return not pool.reap() and not pool.alive


def job_on(database: Database, study: StudyHandle) -> Job:
    return Job(study.name, database.url, study_folder(database.url, study) / "logs")


def until(happened: Callable[[], bool]) -> None:
    while not happened():
        time.sleep(0.02)


def finish(pool: Pool) -> list[Exit]:
    return [ended for moment in tend(pool, Interruption()) for ended in moment.exits]


def start(pool: Pool) -> None:
    """Starts a pool of one and waits until it knows its worker."""
    pool.start()
    until(lambda: not pool.reap() and pool.seats[0].pid is not None)


def start_training(pool: Pool) -> None:
    """Starts a pool of one and waits until its worker is in the middle of a trial."""
    start(pool)
    until(Path("training").exists)


def drain(pool: Pool) -> list[Exit]:
    exits: list[Exit] = []
    while pool.alive:
        exits += pool.reap()
        time.sleep(0.02)
    return exits


def assert_budget_is_met(database: Database, study: StudyHandle) -> None:
    records = read_records(database, study)
    assert len(records) == study.spec.budget.trials
    assert all(record.outcome in (Outcome.COMPLETE, Outcome.PRUNED) for record in records)
    assert [sorted(record.evaluations) for record in records] == [
        [step for step in (5, 10, 15, 20) if step <= max(record.evaluations)] for record in records
    ]


@pytest.fixture
def create(database: Database, make_spec: MakeSpec) -> Callable[..., StudyHandle]:
    """Returns a maker of studies on a workload."""

    def make(workload: str, trials: int = 2) -> StudyHandle:
        return Studies(database).create(
            make_spec(
                study={"name": "small", "workload": workload},
                budget={"trials": trials, "steps": 20, "evaluations": 4},
            )
        )

    return make


class TestPool:
    def test_workers_end_a_study_with_exactly_its_budget(
        self, make_pool: MakePool, database: Database, study: StudyHandle
    ) -> None:
        pool = make_pool(database, study, workers=2)
        exits = finish(pool)
        assert_budget_is_met(database, study)
        assert [(ended.code, ended.restarted) for ended in exits] == [(0, False)] * 2
        assert {seat.state for seat in pool.seats} == {SeatState.DONE}
        logs = [path.read_text() for path in job_on(database, study).logs.iterdir()]
        assert len(logs) == 2
        assert sum(log.count("complete") + log.count("pruned") for log in logs) == 6

    def test_worker_that_dies_is_started_again_and_its_trial_finished(
        self, make_pool: MakePool, database: Database, create: Callable[..., StudyHandle]
    ) -> None:
        study = create("workloads:Mortal")
        pool = make_pool(database, study)
        start_training(pool)
        Path("go").touch()
        exits = drain(pool)
        assert_budget_is_met(database, study)
        assert [ended.restarted for ended in exits] == [True, False]
        assert exits[0].died
        assert exits[1].code == 0
        assert pool.seats[0].restarts == 1

    def test_worker_that_keeps_dying_is_given_up(
        self, make_pool: MakePool, database: Database, create: Callable[..., StudyHandle]
    ) -> None:
        pool = make_pool(database, create("doomed:Doomed"), max_restarts=1)
        start(pool)
        Path("go").touch()
        exits = drain(pool)
        assert not exits[-1].restarted
        assert exits[-1].died
        assert pool.seats[0].state is SeatState.FAILED

    def test_worker_that_gives_up_is_not_started_again(
        self, make_pool: MakePool, database: Database, create: Callable[..., StudyHandle]
    ) -> None:
        [ended] = finish(make_pool(database, create("models.parabola:Hyperbola")))
        assert ended.gave_up
        assert ended.code == 2
        assert "'Hyperbola'" in ended.message

    def test_workers_asked_to_stop_save_and_end(
        self, make_pool: MakePool, database: Database, create: Callable[..., StudyHandle]
    ) -> None:
        study = create("workloads:Patient", trials=1)
        pool = make_pool(database, study)
        start_training(pool)
        pool.stop()
        Path("go").touch()
        [ended] = drain(pool)
        assert ended.code == 0
        assert list((study_folder(database.url, study) / "checkpoints").iterdir())
        assert [record.outcome for record in read_records(database, study)] == [Outcome.RUNNING]

    def test_killed_workers_end_and_are_not_started_again(
        self, make_pool: MakePool, database: Database, create: Callable[..., StudyHandle]
    ) -> None:
        pool = make_pool(database, create("workloads:Patient"))
        start_training(pool)
        pid = pool.seats[0].pid
        pool.kill()
        [ended] = drain(pool)
        assert ended.code != 0
        assert not ended.restarted
        assert pid is not None
        until(lambda: not psutil.pid_exists(pid))

    def test_no_secret_is_in_process_lists_logs_or_what_ray_writes(
        self, make_pool: MakePool, postgres_url: str, make_spec: MakeSpec
    ) -> None:
        secret = "planted-" + os.urandom(8).hex()
        url = sa.make_url(postgres_url).set(password=secret).render_as_string(hide_password=False)
        with contextlib.closing(open_database(url, create=True)) as database:
            spec = make_spec(study={"name": "small", "workload": "workloads:Patient"})
            study = Studies(database).create(spec)
            pool = make_pool(database, study)
            start_training(pool)
            assert secret not in repr(job_on(database, study))
            assert secret not in " ".join(command_lines())
            pool.stop()
            Path("go").touch()
            drain(pool)
            logs = [*job_on(database, study).logs.iterdir(), *ray_files()]
            assert logs
            assert not [path for path in logs if secret.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("workers", "share", "gpus"), [(1, 1, 1), (6, 0.3333, 2), (10, 0.1, 1), (2, 2, 4), (9, 0, 0)]
)
def test_workers_for_whom_there_are_gpus_are_let_in(workers: int, share: float, gpus: int) -> None:
    check_room(workers, share, gpus)


@pytest.mark.parametrize(
    ("workers", "share", "gpus", "remedy"),
    [
        (2, 0.5, 0, "the cluster has 0: use --gpus-per-worker 0 "),
        (3, 0.5, 1, "use --gpus-per-worker 0.3333 or --workers 2."),
        (2, 0.6, 1, "use --gpus-per-worker 0.5 or --workers 1."),
        (1, 2, 1, "use --gpus-per-worker 1."),
    ],
)
def test_workers_that_would_wait_for_ever_are_refused_with_what_would_fit(
    workers: int, share: float, gpus: int, remedy: str
) -> None:
    with pytest.raises(SpecError, match=re.escape(remedy)):
        check_room(workers, share, gpus)


@pytest.mark.parametrize("share", [1.5, 0.33333, 0.00001, float("nan"), float("inf")])
def test_share_of_a_gpu_that_ray_does_not_know_is_refused(
    share: float, database: Database, study: StudyHandle
) -> None:
    with pytest.raises(SpecError, match=f"--gpus-per-worker {share:g}: whole GPUs, or a part"):
        RayPool(job_on(database, study), workers=1, gpus_per_worker=share)


def test_address_where_nobody_listens_is_told_before_ray_tries_it() -> None:
    with mock.patch.dict(os.environ), socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with (
            pytest.raises(UnavailableError, match=f"^--address {address}: nothing answers"),
            join_cluster(address),
        ):
            pass


class TestRayPool:
    @pytest.mark.parametrize("make_pool", ["ray"], indirect=True)
    def test_workers_share_gpus_by_fractions(
        self, make_pool: MakePool, database: Database, create: Callable[..., StudyHandle]
    ) -> None:
        pool = make_pool(database, create("doomed:Doomed"), workers=4)
        pool.start()
        until(lambda: not pool.reap() and all(seat.pid for seat in pool.seats))
        devices = sorted(seat.device for seat in pool.seats)
        assert devices == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]

    @pytest.mark.parametrize("make_pool", ["ray"], indirect=True)
    def test_killed_actor_is_started_again_and_the_budget_met(
        self, make_pool: MakePool, database: Database, create: Callable[..., StudyHandle]
    ) -> None:
        study = create("workloads:Patient")
        pool = make_pool(database, study)
        start_training(pool)
        actor = psutil.Process(pool.seats[0].pid).ppid()
        os.kill(actor, signal.SIGKILL)
        Path("go").touch()
        exits = drain(pool)
        assert exits[-1].code == 0
        assert pool.seats[0].restarts == 1
        assert_budget_is_met(database, study)

    def test_worker_that_has_found_no_room_ends_when_asked_to(
        self, cluster: None, project: Path, database: Database, study: StudyHandle
    ) -> None:
        pool = RayPool(job_on(database, study), workers=1, gpus_per_worker=3)
        pool.start()
        pool.stop()
        assert drain(pool) == [Exit(0, 0, "")]

    def test_everything_listens_on_loopback(self, cluster: None) -> None:
        me = psutil.Process()
        listening: list[str] = []
        for process in (me, *me.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # Ray's helpers come and go
                listening += [
                    connection.laddr.ip
                    for connection in process.net_connections("inet")
                    if connection.status == psutil.CONN_LISTEN
                ]
        assert len(listening) > 3
        assert all(is_loopback(ip) for ip in listening), listening


def is_loopback(ip: str) -> bool:
    address = ipaddress.ip_address(ip)
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def command_lines() -> Iterator[str]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            yield " ".join(process.cmdline())


def ray_files() -> list[Path]:
    folders = Path(tempfile.gettempdir()).glob("tuner-ray-*")
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]
