"""Compiling by a process of its own, beside training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import torch

from tests.conftest import ROOT
from tests.training.trials import CPU, Line, make_spec, prepare_workload
from tuner.domain.fuse_plan import AUTO, FusePlan
from tuner.domain.spec import StudySpec
from tuner.fused.calibration import Work, calibrate, warm_up
from tuner.fused.cohort import Cohort
from tuner.fused.compile_costs import CompileCosts
from tuner.fused.eligibility import Refusals
from tuner.fused.lane import LaneStart
from tuner.service.worker import compiling
from tuner.service.worker.compiling import Compiling, may_compile_aside
from tuner.service.worker.fusing import Fusing
from tuner.store import Database, Studies
from tuner.training.rehearsal import Rehearsal, default_configs, prepare
from tuner.training.workload import Data

LANES = 4
PLAN = FusePlan(LANES, compiled=True, trials=100)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns Inductor's cache, in which nothing has been compiled yet."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    # As workers get it: the threads that code is compiled for.
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    return tmp_path / "cache"


@pytest.fixture
def spec() -> StudySpec:
    """Returns a study on a workload that another process can import."""
    return make_spec(
        study={"name": "s", "workload": "tests.training.trials:Line"},
        space={"optimizers": ["sgd"], "schedules": ["constant"]},
        train={"batch_size": 32},
    )


@pytest.fixture
def costs(spec: StudySpec) -> CompileCosts:
    """Returns the costs of the study's traces."""
    prepared = prepare_workload(Line())
    model = warm_up(prepared, spec, PLAN, Refusals(prepared, spec), aside=True)
    assert not model.compiler.enabled
    return model.compiler.costs


@pytest.fixture
def begin(spec: StudySpec, costs: CompileCosts) -> Iterator[Callable[..., Compiling]]:
    """Returns what begins compiling as a worker does; it ends with the test."""
    begun: list[Compiling] = []

    def begin(said: list[str], lanes: int = LANES) -> Compiling:
        one = Compiling(spec, lanes, CPU, costs, said.append)
        begun.append(one)
        assert not one.is_done()
        return one

    yield begin
    for one in begun:
        one.end()


def children() -> list[psutil.Process]:
    """Returns the processes that compile for this one."""
    found = psutil.Process().children()
    return [one for one in found if one.is_running() and "compile" in one.cmdline()]


def until(happened: Callable[[], bool]) -> None:
    while not happened():
        time.sleep(0.05)


@pytest.mark.slow
def test_one_process_compiles_for_all_workers_of_a_machine(
    spec: StudySpec, costs: CompileCosts, begin: Callable[..., Compiling]
) -> None:
    said: list[str] = []
    first, second = begin(said), begin(said)
    assert len(children()) == 1

    until(lambda: first.is_done() or bool(said))
    assert said == []
    assert second.is_done()
    assert children() == []
    assert said == []
    # What it leaves is loaded at once, with nothing to be compiled.
    prepared = prepare_workload(Line())
    model = warm_up(prepared, spec, PLAN, Refusals(prepared, spec), aside=True)
    assert model.compiler.enabled
    assert costs.are_paid


@pytest.mark.slow
def test_a_compiler_that_is_killed_leaves_training_as_it_is(
    costs: CompileCosts, begin: Callable[..., Compiling]
) -> None:
    said: list[str] = []
    one = begin(said)
    [child] = children()
    child.send_signal(signal.SIGKILL)
    until(lambda: one.is_done() or bool(said))
    assert said == [
        "Fused training goes on without compiling: the process that compiles was killed by SIGKILL."
    ]
    assert not one.is_done()
    assert children() == []
    assert not costs.are_paid
    # Whoever comes next may try.
    begin(said)
    assert len(children()) == 1


@pytest.mark.slow
def test_without_a_compiler_it_is_said_once_and_nothing_is_noted(
    costs: CompileCosts, begin: Callable[..., Compiling], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    said: list[str] = []
    one = begin(said)
    until(lambda: one.is_done() or bool(said))
    assert said == ["Fused training goes on without compiling: nothing can be compiled here."]
    assert not one.is_done()
    assert len(said) == 1
    assert not costs.are_paid


_WORKER = """
import time
import torch
from tests.service.worker.test_compiling import PLAN
from tests.training.trials import Line, make_spec, prepare_workload
from tuner.fused.calibration import warm_up
from tuner.fused.eligibility import Refusals
from tuner.service.worker.compiling import Compiling

spec = make_spec(
    study={"name": "s", "workload": "tests.training.trials:Line"},
    space={"optimizers": ["sgd"], "schedules": ["constant"]},
)
prepared = prepare_workload(Line())
costs = warm_up(prepared, spec, PLAN, Refusals(prepared, spec), aside=True).compiler.costs
one = Compiling(spec, PLAN.lanes, torch.device("cpu"), costs, print)
one.is_done()
print("begun", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_worker_leaves_no_process_that_compiles() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WORKER], cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "begun\n"
        [child] = psutil.Process(worker.pid).children()
        group = os.getpgid(child.pid)
        worker.kill()
    child.wait()
    until(lambda: not _in_group(group))


def _in_group(group: int) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def test_a_worker_that_ends_ends_what_compiles_for_it(begin: Callable[..., Compiling]) -> None:
    one = begin([])
    [child] = children()
    one.end()
    assert not child.is_running()
    assert children() == []
    assert not one.is_done()
    assert children() == []


def test_data_that_memory_does_not_hold_twice_is_not_loaded_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Large(Line):
        def data(self) -> Data:
            x = torch.zeros(1024, 1024)
            return Data(train=(x, x[:, :1]), val=(x[:8], x[:8, :1]))

    small, large = prepare_workload(Line()), prepare_workload(Large())
    monkeypatch.setattr(compiling, "free_bytes", lambda device: 2 * (2.0**30 + 2**20))
    assert may_compile_aside(small)
    assert not may_compile_aside(large)


def test_a_study_begins_by_traces_where_another_process_can_compile(
    spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CompileCosts, "seconds", 0.0)
    prepared = prepare_workload(Line())
    work = Work(trials=100_000, left=100_000_000, aside=True)
    plan, model = calibrate(prepared, spec, work, Refusals(prepared, spec))
    assert plan.compiled
    assert plan.reason.endswith("traced until they are compiled")
    assert model is not None
    assert not model.compiler.enabled


@pytest.mark.slow
def test_cohorts_that_begin_once_code_is_there_train_by_it(
    database: Database, spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CompileCosts, "seconds", 0.0)
    budget = spec.budget.model_copy(update={"trials": 64})
    study = Studies(database).create(spec.with_budget(budget))
    said: list[str] = []
    with closing(Fusing(study.spec, prepare(study.spec, CPU), AUTO, said.append)) as fusing:
        fusing.plan(database, study, trials=64, left=100_000_000)
        traced, lanes = fusing.model, fusing.lanes
        assert not traced.compiler.enabled

        def is_swapped() -> bool:
            fusing.use_compiled()
            return fusing.model is not traced

        until(lambda: is_swapped() or len(said) > 1)
        assert [line.partition(":")[0] for line in said] == [
            f"Up to {lanes} trials as one",
            "Steps have been compiled",
        ]
        assert fusing.lanes == lanes
        [config] = default_configs(study.spec)
        Cohort(fusing.model, [LaneStart(config)] * 3, Rehearsal(), at_most=4).train()
        assert fusing.model.compiler.enabled
    assert children() == []
