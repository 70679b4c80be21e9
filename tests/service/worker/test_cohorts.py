"""Workers that train many trials as one, on real databases."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch._inductor  # loaded whole, so that a part can be taken away

from tests.conftest import ON_DEVICES, MakeSpec, away, forgotten
from tests.service.worker.contexts import Counted
from tests.store.single_trials import SingleTrials
from tests.training.trials import train
from tuner.domain.fuse_plan import FusePlan
from tuner.domain.spec import StudySpec
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, TrialRecord, decode
from tuner.fused import calibration
from tuner.fused.calibration import Work
from tuner.fused.compile_costs import CompileCosts
from tuner.service.folders import study_folder
from tuner.service.interruption import Interruption
from tuner.service.summaries import read_summary
from tuner.service.worker.worker import Log, Worker
from tuner.store import (
    Database,
    Studies,
    StudyHandle,
    WorkerIdentity,
    open_database,
    read_records,
)
from tuner.store.control import set_state
from tuner.store.plans import keep_plan, read_plans
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.workload import Workload, load_workload

CPU = torch.device("cpu")

_WORKLOADS = '''
import sys
import torch
from models.parabola import Parabola


class Counting(Parabola):
    """Raises once, when it has been armed; it counts where nobody looks, so it is not traced."""

    def loss(self, model, batch):
        state = sys.modules["misfused_state"]
        state.calls += 1
        error, state.armed = state.armed, None
        if error is not None:
            raise error
        return super().loss(model, batch) * (1 + 1e-12 * state.calls)


class Switching(Parabola):
    """Has another loss once it has been armed, which shows where nobody looks."""

    def loss(self, model, batch):
        armed = sys.modules["misfused_state"].armed
        return super().loss(model, batch) * (3 if armed else 1)


class Greedy(Counting):
    """Runs out of memory once."""

    def loss(self, model, batch):
        try:
            return super().loss(model, batch)
        except ValueError:
            return torch.empty(2**52, device=batch[0].device).sum()
'''


class Meddling(Interruption):
    """Does something when it has been looked at a number of times."""

    def __init__(self, looks: int, action: Callable[[], object]) -> None:
        super().__init__()
        self._looks, self._action = looks, action

    @property
    def requested(self) -> bool:
        self._looks -= 1
        if self._looks == 0:
            self._action()
        return False

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


def work(
    database: Database,
    study: StudyHandle,
    interruption: Interruption | None = None,
    fuse: str = "8",
    log: Log = lambda line: None,
    device: torch.device = CPU,
) -> list[TrialRecord]:
    worker = Worker(
        database=database,
        study=study,
        device=device,
        interruption=interruption or Interruption(),
        started_at=time.monotonic(),
        log=log,
        fuse=fuse,
    )
    worker.run()
    return read_records(database, study)


def many(make_spec: MakeSpec, trials: int = 8, **tables: Any) -> Any:
    tree = {
        "budget": {"trials": trials, "steps": 20, "evaluations": 4},
        "space": {"optimizers": ["sgd", "adam", "momentum"], "schedules": ["constant", "cosine"]},
        "search": {"sampler": "random", "pruner": "none"},
        "train": {"batch_size": 32, "precision": "float64"},
    }
    return make_spec(**(tree | tables))


@pytest.fixture
def misbehaving(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (project / "misfused.py").write_text(_WORKLOADS)
    state: Any = ModuleType("misfused_state")
    state.calls, state.armed = 0, None
    with forgotten("misfused"):
        monkeypatch.setitem(sys.modules, "misfused_state", state)
        yield


def arm(error: BaseException | None = None) -> None:
    """Has the workload raise once."""
    state: Any = sys.modules["misfused_state"]
    state.armed = error or ValueError("the scale is off")


def checkpoints(database: Database, study: StudyHandle) -> list[Path]:
    return list(study_folder(database.url, study).rglob("*.pt"))


def test_a_fused_study_ends_with_exactly_its_budget(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(many(make_spec, 27, search={"pruner": "median"}))

    records = work(database, study)

    assert [record.number for record in records] == list(range(27))
    assert {record.outcome for record in records} == {Outcome.COMPLETE, Outcome.PRUNED}
    lanes = Counter(record.attributes.get("lanes", 1) for record in records)
    assert lanes == {8: 24, 2: 2, 1: 1}
    assert [r.number for r in records if r.is_default] == [26]  # the closing, which trains alone
    assert records[26].outcome is Outcome.COMPLETE
    complete = [record for record in records if record.outcome is Outcome.COMPLETE]
    assert all(list(record.evaluations) == [5, 10, 15, 20] for record in complete)
    assert all(record.value == record.evaluations[20] for record in complete)
    assert checkpoints(database, study) == []


def prepare(spec: StudySpec) -> PreparedWorkload:
    workload = load_workload(spec.study.workload)
    assert isinstance(workload, Workload)
    return PreparedWorkload.prepare(workload, CPU, "float64")


def test_fused_trials_end_as_they_do_alone(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    spec = many(make_spec, 12)
    records = work(database, Studies(database).create(spec))

    prepared = prepare(spec)
    assert len({record.value for record in records}) > 6
    for record in records:
        alone = train(prepared, spec, decode(spec, record.proposal))
        found = [e.metrics["val_loss"] for e in alone.recorder.evaluations]
        assert list(record.evaluations.values()) == pytest.approx(found, rel=1e-10)


def without_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor, "compile", None)


def without_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._guards, "TracingContext")


@pytest.mark.parametrize("planned", [False, True], ids=["measured", "as another worker planned"])
@pytest.mark.parametrize(
    ("change", "like", "said_once"),
    [
        (without_inductor, "8", "without compiling"),
        (without_tracing, "off", "cannot trace lanes (ImportError"),
    ],
    ids=["traced", "single"],
)
def test_another_torch_trains_the_same_trials_and_says_once_why_not_faster(
    project: Path,
    database: Database,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
    change: Callable[[pytest.MonkeyPatch], None],
    like: str,
    said_once: str,
    planned: bool,
) -> None:
    warnings.simplefilter("always")
    spec, twin = (many(make_spec, 9, study=study_named(name)) for name in ("small", "other"))
    expected = work(database, Studies(database).create(twin), fuse=like)
    study = Studies(database).create(spec)
    if planned:
        plan = FusePlan(8, compiled=True, trials=9, reason="as another has measured")
        keep_plan(database, study, "8 on cpu", plan)
    elif change is without_inductor:  # compiling has to seem worth it
        monkeypatch.setattr(calibration, "_WORTH_S", 0.0)
        monkeypatch.setattr(CompileCosts, "seconds", -1e9)
        monkeypatch.setattr(CompileCosts, "step_s", lambda self, traced_s: 0.0)
    change(monkeypatch)
    said: list[str] = []

    records = work(database, study, log=said.append)

    for record, other in zip(records, expected, strict=True):
        assert record.proposal == other.proposal
        assert record.evaluations == pytest.approx(other.evaluations, rel=1e-12)
    lines = said + [str(warning.message) for warning in recwarn]
    assert sum(said_once in line for line in lines) == 1


def test_a_trial_alone_loads_no_private_module_of_torch(project: Path) -> None:
    plain, ours = (
        subprocess.run(
            [sys.executable, "-c", script + _PRIVATE], capture_output=True, text=True, check=True
        ).stdout.splitlines()[-1]
        for script in (_STEP_OF_TORCH, _STUDY_OF_SINGLE_TRIALS)
    )
    assert ours == plain


_STEP_OF_TORCH = """
import torch
optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
"""

_STUDY_OF_SINGLE_TRIALS = """
from tuner.cli.main import cli
for line in (
    "study create studies/parabola.toml --set budget.trials=2",
    "worker start parabola --fuse off --device cpu",
):
    cli(line.split(), standalone_mode=False)
"""

_PRIVATE = """
import sys
private = ("torch._guards", "torch._subclasses", "torch._inductor", "torch.fx.experimental")
print(sorted(name for name in sys.modules if name.startswith(private)))
"""


def study_named(name: str) -> dict[str, str]:
    return {"name": name, "workload": "models.parabola:Parabola"}


def test_what_cannot_be_fused_trains_alone(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    space = {"optimizers": ["sgd", "lbfgs", "adam"], "schedules": ["constant"]}
    study = Studies(database).create(many(make_spec, 16, space=space))
    said: list[str] = []

    records = work(database, study, log=said.append)

    why = "LBFGS has no rule for many lanes at once"
    assert f"Trials of lbfgs train one at a time: {why}" in said
    assert len(records) == 16
    alone = [record for record in records if "lanes" not in record.attributes]
    assert {record.optimizer for record in alone} == {"lbfgs"}
    assert {record.outcome for record in records} == {Outcome.COMPLETE}


def test_trials_of_other_batch_sizes_train_with_their_like(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    sizes = {"batch_size": {"choices": [16, 32, "full"]}, "precision": "float64"}
    study = Studies(database).create(many(make_spec, 24, train=sizes))

    records = work(database, study)

    assert {record.outcome for record in records} == {Outcome.COMPLETE}
    assert Counter(r.attributes.get("lanes", 1) for r in records)[1] < 8


@pytest.mark.parametrize("looks", [3, 6, 8, 14, 19])
def test_an_interrupted_cohort_is_continued_with_the_same_results(
    project: Path, database: Database, make_spec: MakeSpec, looks: int
) -> None:
    spec = many(make_spec)
    whole = work(database, Studies(database).create(spec))
    identity = spec.study.model_copy(update={"name": "broken"})
    study = Studies(database).create(spec.model_copy(update={"study": identity}))

    stopped = work(database, study, Counted(looks))
    assert {record.outcome for record in stopped} == {Outcome.RUNNING}
    assert len(checkpoints(database, study)) == 8
    continued = work(database, study)

    assert [r.evaluations for r in continued] == [r.evaluations for r in whole]
    assert {r.outcome for r in continued} == {Outcome.COMPLETE}
    assert all(r.attributes["steps"] == 20 for r in continued)
    assert checkpoints(database, study) == []


def test_lanes_go_on_with_others_and_where_nothing_is_fused(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    spec = many(make_spec)
    whole = work(database, Studies(database).create(spec))
    identity = spec.study.model_copy(update={"name": "broken"})
    study = Studies(database).create(spec.model_copy(update={"study": identity}))
    work(database, study, Counted(8))
    said: list[str] = []

    # Three of them as one, another three, and the last two each alone.
    work(database, study, Counted(8), fuse="3", log=said.append)
    continued = work(database, study, fuse="off", log=said.append)

    for before, after in zip(whole, continued, strict=True):
        # With room for another number of lanes, kernels may add up in another order.
        assert after.evaluations == pytest.approx(before.evaluations, rel=1e-12)
    assert not any("starts over" in line for line in said)


def test_a_damaged_checkpoint_costs_its_own_trial_alone(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(many(make_spec))
    work(database, study, Counted(12))
    [damaged] = [path for path in checkpoints(database, study) if "trial-3-" in path.name]
    state = torch.load(damaged, weights_only=True)
    state["tensors"]["p"] = state["tensors"]["p"][:3]
    torch.save(state, damaged)
    said: list[str] = []

    records = work(database, study, log=said.append)

    assert {record.outcome for record in records} == {Outcome.COMPLETE}
    assert next(line for line in said if "over" in line).startswith("Trial 3 starts over")
    assert any(line.startswith("Trials 0, 1, 2, 4, 5, 6, 7 continue as one") for line in said)


def test_a_lane_that_diverges_leaves_the_others_alone(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    wild = {"sgd": {"lr": {"choices": [0.01, 1e30]}}}
    spec = many(make_spec, 10, optimizer=wild)
    records = work(database, Studies(database).create(spec))

    outcomes = Counter(record.outcome for record in records)
    assert outcomes[Outcome.DIVERGED] > 0
    assert outcomes[Outcome.COMPLETE] + outcomes[Outcome.DIVERGED] == 10
    prepared = prepare(spec)
    for record in records:
        alone = train(prepared, spec, decode(spec, record.proposal))
        assert record.attributes.get("diverged_step") == alone.outcome.diverged_step


@pytest.mark.parametrize(
    "error", [ValueError("the scale is off"), GeneratorExit("off"), asyncio.CancelledError("off")]
)
def test_what_raises_in_a_cohort_is_trained_one_at_a_time(
    misbehaving: None, database: Database, make_spec: MakeSpec, error: BaseException
) -> None:
    spec = many(make_spec, study={"name": "s", "workload": "misfused:Counting"})
    said: list[str] = []

    study = Studies(database).create(spec)
    records = work(database, study, Meddling(9, lambda: arm(error)), fuse="4", log=said.append)

    assert {record.outcome for record in records} == {Outcome.COMPLETE}
    told = f"{type(error).__name__}: {error}"
    assert f"Trials train one at a time from now on: {told}" in said


def test_lanes_that_come_apart_from_their_trial_start_over_alone(
    misbehaving: None, database: Database, make_spec: MakeSpec
) -> None:
    spec = many(
        make_spec,
        study={"name": "small", "workload": "misfused:Switching"},
    )
    said: list[str] = []

    def log(line: str) -> None:
        said.append(line)
        if line.startswith("Up to 8 trials as one"):  # its step has been traced by then
            arm()

    records = work(database, Studies(database).create(spec), log=log)

    assert "lane does otherwise than its trial alone" in "\n".join(said)
    assert {record.outcome for record in records} == {Outcome.COMPLETE}
    assert all("lanes" not in record.attributes for record in records)


@ON_DEVICES
def test_without_enough_memory_fewer_train_as_one(
    misbehaving: None, database: Database, make_spec: MakeSpec, device: str
) -> None:
    spec = many(make_spec, study={"name": "s", "workload": "misfused:Greedy"})
    said: list[str] = []

    study = Studies(database).create(spec)
    records = work(database, study, Meddling(9, arm), log=said.append, device=torch.device(device))

    assert {record.outcome for record in records} == {Outcome.COMPLETE}
    assert any(line.startswith("Trials train 4 as one from now on") for line in said)
    assert 4 in {record.attributes["lanes"] for record in records}


def test_a_lane_that_another_worker_takes_is_left_to_it(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(many(make_spec))
    other = SingleTrials(database, study, WorkerIdentity("b", "host", 1, "cpu", "0"))
    other.register(0.0, lambda ordinal: 0)
    taken = []
    said: list[str] = []

    def seize() -> None:
        taken.append(other.take_one(lambda worker: True))

    def follow(line: str) -> None:
        said.append(line)
        if line.startswith("Trial 7 complete") and taken[0] is not None:
            other.release([taken[0]])

    records = work(database, study, Meddling(9, seize), log=follow)

    assert "Trial 0 belongs to another worker by now. It is left to that worker." in said
    ends = [line.partition(":")[0] for line in said if " complete" in line]
    assert ends == [*(f"Trial {n} complete" for n in range(1, 8)), "Trial 0 complete"]
    assert {record.outcome for record in records} == {Outcome.COMPLETE}


def test_a_stopped_study_ends_its_cohort_as_it_is(
    project: Path, database: Database, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.service.worker.task.LOOK_S", -1.0)
    study = Studies(database).create(many(make_spec, 30))
    stop = Meddling(9, lambda: set_state(database, study, StudyState.STOPPED))

    records = work(database, study, stop)

    assert len(records) == 8
    assert {record.outcome for record in records} == {Outcome.PRUNED}
    assert {record.attributes["stopped_by"] for record in records} == {"stop"}
    assert checkpoints(database, study) == []


def test_the_report_says_how_trials_trained(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(many(make_spec, 16, search={"pruner": "median"}))
    records = work(database, study)

    [plan] = read_plans(database, study).values()
    assert (plan.lanes, plan.trials) == (8, 16)
    fusing = read_summary(database, study).fusing
    assert fusing is not None
    assert (fusing.trials, fusing.lanes) == (15, 8)  # all but the closing
    assert fusing.occupancy is not None
    assert 0.3 < fusing.occupancy <= 1
    assert fusing.speedup is not None
    total = sum(record.attributes["steps"] for record in records[:15])
    places = sum(record.attributes["places"] for record in records[:15])
    assert fusing.occupancy == pytest.approx(total / places)


def test_a_plan_is_repeated_by_whoever_comes_later(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(many(make_spec))
    work(database, study, Counted(6))
    before = read_plans(database, study)
    said: list[str] = []

    work(database, study, log=said.append)

    assert read_plans(database, study) == before
    [plan] = before.values()
    assert f"Up to 8 trials as one: {plan.reason}" in said


def test_trials_that_were_left_unfinished_are_work(
    project: Path, database: Database, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Studies(database).create(many(make_spec, 8))
    work(database, study, Counted(6))
    left = []

    def calibrate(
        prepared: PreparedWorkload, spec: Any, work: Work, *_: object
    ) -> tuple[FusePlan, None]:
        left.append(work.left)
        return FusePlan(4, trials=work.trials), None

    monkeypatch.setattr("tuner.service.worker.fusing.calibrate", calibrate)
    work(database, study, fuse="4")

    assert left == [8]


def test_a_loop_of_ones_own_says_why_it_is_not_fused(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    (project / "own.py").write_text(
        "def train(run):\n    for step in run.steps(20):\n        pass\n    return 0.5\n"
    )
    with forgotten("own"):
        spec = many(make_spec, 2, study={"name": "own", "workload": "own:train"})
        study = Studies(database).create(spec)
        work(database, study)

    fusing = read_summary(database, study).fusing
    assert fusing is not None
    assert (fusing.trials, fusing.reason) == (0, "only workload classes train many as one")


def test_small_studies_train_one_trial_at_a_time(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(many(make_spec, 6))
    records = work(database, study, fuse="auto")

    assert not any("lanes" in record.attributes for record in records)
    [plan] = read_plans(database, study).values()
    assert plan.reason == "6 trials are too few for cohorts that learn"


def test_a_cohort_outlives_an_outage(
    project: Path, postgres_server: str, postgres_url: str, make_spec: MakeSpec
) -> None:
    database = open_database(postgres_url, create=True)
    study = Studies(database).create(many(make_spec))
    said: list[str] = []
    with contextlib.ExitStack() as stack:
        leave = Meddling(8, lambda: stack.enter_context(away(postgres_server, postgres_url)))

        def follow(line: str) -> None:
            said.append(line)
            if "training goes on" in line and len(said) > 1:
                stack.close()

        records = work(database, study, leave, log=follow)
    database.close()

    assert any("the database is away; training goes on" in line for line in said)
    assert {record.outcome for record in records} == {Outcome.COMPLETE}
    assert all(list(record.evaluations) == [5, 10, 15, 20] for record in records)
