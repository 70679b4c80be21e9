"""Trials to train, and a reporter that remembers what it was told."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from tuner.domain.catalog.averages import AVERAGES
from tuner.domain.catalog.dimensions import Dimension, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.confirmation import Confirmation, Finalist
from tuner.domain.groups import GroupValues
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.training.loop import TrainingLoop, TrialResult, run_trial, train_workload
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.reporting import Evaluation
from tuner.training.run import Run
from tuner.training.workload import Batch, Data

CPU = torch.device("cpu")


class Line:
    """A line through 200 points; its methods are replaced in subclasses."""

    train_rows, val_rows = 200, 50

    def model(self) -> nn.Module:
        return nn.Linear(2, 1)

    def data(self) -> Data:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.train_rows + self.val_rows, 2, generator=generator)
        y = x.sum(1, keepdim=True)
        cut = self.train_rows
        return Data(train=(x[:cut], y[:cut]), val=(x[cut:], y[cut:]))

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        return mse_loss(model(batch[0]), batch[1])

    def metrics(self, model: nn.Module, batch: Batch) -> Any:
        return {"val_loss": self.loss(model, batch)}


class Redrawn(Line):
    """A line whose points are split by a seed in three; the test points tell that they are."""

    test_rows = 30

    def data(self, seed: int = 0) -> Data:
        x = torch.randn(280, 2, generator=torch.Generator().manual_seed(0))
        y = x.sum(1, keepdim=True) + 0.1 * x[:, :1].square()
        order = torch.randperm(280, generator=torch.Generator().manual_seed(seed))
        parts = [(x[rows], y[rows]) for rows in order.split([self.train_rows, 50, self.test_rows])]
        return Data(*parts)

    def metrics(self, model: nn.Module, batch: Batch) -> Any:
        rows = torch.tensor(float(len(batch[0])))
        return {"rows": rows, "val_loss": self.loss(model, batch)}


class Droopy(Line):
    """A network with dropout, whose draws must be restored with it."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 32), nn.Dropout(0.5), nn.Linear(32, 1))


def prepare_workload(workload: Any, precision: str = "float32") -> PreparedWorkload:
    return PreparedWorkload.prepare(workload, CPU, precision)


def make_spec(steps: int = 40, evaluations: int = 4, **tables: Any) -> StudySpec:
    tree: dict[str, Any] = {
        "study": {"name": "s", "workload": "models.digits:Digits"},
        "budget": {"steps": steps, "evaluations": evaluations},
    }
    return StudySpec.model_validate(tree | tables).resolve()


def confirming(spec: StudySpec) -> StudySpec:
    """Returns the spec of a study that confirms another one."""
    finalist = Finalist(trial=0, params={"optimizer": "adam", "schedule": "constant"})
    plan = Confirmation(study="0" * 32, finalists=(finalist,), seeds=5, runs=5)
    return spec.model_copy(update={"confirmation": plan})


def make_config(
    optimizer: str = "adam",
    *,
    schedule: str = "cosine",
    warmup: float = 0.1,
    batch_size: int = 32,
    groups: tuple[GroupValues, ...] = (),
    **values: Value,
) -> TrialConfig:
    """Returns a configuration; keyword arguments are the optimizer's values in torch's form."""
    return TrialConfig(
        optimizer,
        OPTIMIZERS[optimizer].decode(dict(values)),
        schedule,
        SCHEDULES[schedule].decode({"warmup": warmup}),
        batch_size,
        groups,
    )


def averaged(config: TrialConfig, average: str = "ema", **values: Value) -> TrialConfig:
    """Returns a configuration that averages its weights; keyword arguments are the average's."""
    return dataclasses.replace(
        config, average=average, average_values=AVERAGES[average].decode(dict(values))
    )


@dataclass
class Recorder:
    """A reporter that stops where it is told to.

    Attributes:
        prune_at: Steps taken at the evaluation that ends the trial, or None.
        interrupt_at: Steps taken from which on the trial is to stop, or None.
        on_step: Called whenever the reporter hears that the trial goes on.
        values: What it suggests, by name.
    """

    prune_at: int | None = None
    interrupt_at: int | None = None
    on_step: Callable[[Run, int], None] = lambda run, step: None
    values: dict[str, Value] = field(default_factory=dict)
    evaluations: list[Evaluation] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    saved_at: list[int] = field(default_factory=list)
    suggested: dict[str, Dimension] = field(default_factory=dict)
    run: Run | None = None

    def report(self, evaluations: Sequence[Evaluation | None]) -> Sequence[bool]:
        [evaluation] = evaluations
        assert evaluation is not None
        self.evaluations.append(evaluation)
        return [evaluation.step != self.prune_at]

    def advance(self, step: int) -> bool:
        self.steps.append(step)
        assert self.run is not None
        self.on_step(self.run, step)
        return self.interrupt_at is None or step < self.interrupt_at

    def left(self) -> Collection[int]:
        return ()

    def suggest(self, name: str, axis: Dimension) -> Value:
        self.suggested[name] = axis
        return self.values[name]

    def diverged(self, lane: int, step: int) -> None:
        raise AssertionError("a run that diverges ends")

    def warn(self, text: str) -> None:
        raise AssertionError(text)

    def save(self) -> None:
        assert self.run is not None
        self.saved_at.append(self.run.taken)


@dataclass(frozen=True)
class Trial:
    """A trial that has left its loop."""

    outcome: TrialResult
    run: Run
    recorder: Recorder

    @property
    def evaluations(self) -> list[Evaluation]:
        return self.recorder.evaluations

    @property
    def steps_evaluated(self) -> list[int]:
        return [evaluation.step for evaluation in self.evaluations]

    @property
    def values(self) -> list[float]:
        return [evaluation.metrics["val_loss"] for evaluation in self.evaluations]

    @property
    def state(self) -> dict[str, Any]:
        """All but the time it took."""
        return {key: value for key, value in self.run.state.state_dict().items() if key != "timing"}

    @property
    def parameters(self) -> Tensor:
        return parameters_of(self.run)


def train(
    loop: TrainingLoop | PreparedWorkload,
    spec: StudySpec | None = None,
    config: TrialConfig | None = None,
    recorder: Recorder | None = None,
    state: dict[str, Any] | None = None,
    at_most: int | None = None,
) -> Trial:
    """Trains a trial by an own loop, or that of a workload class."""
    recorder = recorder or Recorder()
    run = Run(
        spec or make_spec(),
        config or make_config(),
        device=CPU,
        reporter=recorder,
        state=state,
        at_most=at_most,
    )
    recorder.run = run
    if isinstance(loop, PreparedWorkload):
        loop = partial(train_workload, prepared=loop)
    return Trial(run_trial(loop, run), run, recorder)


def stop_and_go(
    loop: TrainingLoop | PreparedWorkload,
    step: int,
    spec: StudySpec | None = None,
    config: TrialConfig | None = None,
    **values: Value,
) -> tuple[Trial, Trial]:
    """Interrupts a trial at a step and continues it from what was written."""
    stopped = train(loop, spec, config, Recorder(interrupt_at=step, values=values))
    state = through_disk(stopped.run.state.state_dict())
    torch.rand(17)  # what else was drawn in between must not matter
    return stopped, train(loop, spec, config, Recorder(values=values), state)


def through_disk(state: dict[str, Any]) -> dict[str, Any]:
    """Returns a state as a checkpoint would give it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def parameters_of(run: Run) -> Tensor:
    models = run.state.state_dict()["models"]
    return torch.cat([p.reshape(-1).clone() for model in models for p in model.values()])


def is_same(a: object, b: object) -> bool:
    """Tells whether two states are equal bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        # Torch adds this key, which says nothing, to some optimizers when they load a state.
        keys = a.keys() - {"differentiable"}
        return keys == b.keys() - {"differentiable"} and all(is_same(a[k], b[k]) for k in keys)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(is_same, a, b))
    return a == b


def check_continued(whole: Trial, stopped: Trial, continued: Trial) -> None:
    """Checks that an interruption has changed nothing."""
    assert stopped.outcome.ending == "interrupted"
    assert stopped.evaluations + continued.evaluations == whole.evaluations
    assert continued.outcome == whole.outcome
    assert is_same(continued.state, whole.state)
