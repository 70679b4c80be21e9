from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from models.digits import Digits
from tests.training.trials import is_same, make_spec, make_trainer, parameters_of, run
from tuner.domain.optimizers import OPTIMIZERS
from tuner.errors import SpecError, WorkloadError
from tuner.training.checkpoint import load_checkpoint, save_checkpoint
from tuner.training.trainer import Bench, prepare_checked, probe
from tuner.training.workload import Batch, Data

CPU = torch.device("cpu")
every_optimizer = pytest.mark.parametrize("name", list(OPTIMIZERS))


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


class Droopy(Line):
    """A network with dropout, whose draws must be restored with it."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 32), nn.Dropout(0.5), nn.Linear(32, 1))


class Watching(Digits):
    """Digits that remember the types they were computed in."""

    def __init__(self) -> None:
        self.seen: set[torch.dtype] = set()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch[0])
        self.seen.add(logits.dtype)
        return cross_entropy(logits, batch[1])


def bench_of(workload: Any, precision: str = "float32") -> Bench:
    return Bench.prepare(workload, CPU, precision)


@every_optimizer
def test_the_same_spec_and_seed_give_the_same_trial(digits: Bench, name: str):
    first, second = make_trainer(digits, name), make_trainer(digits, name)
    (_, told_first), (_, told_second) = run(first), run(second)
    assert torch.equal(parameters_of(first), parameters_of(second))
    assert told_first.evaluations == told_second.evaluations


def test_another_seed_gives_another_trial(digits: Bench):
    first, second = make_trainer(digits, seed=0), make_trainer(digits, seed=1)
    assert not torch.equal(parameters_of(first), parameters_of(second))


def test_a_trial_does_not_depend_on_what_ran_before_it():
    bench = bench_of(Droopy())
    first = make_trainer(bench)
    run(first)
    torch.rand(17)
    second = make_trainer(bench)
    run(second)
    assert torch.equal(parameters_of(first), parameters_of(second))


def test_every_optimizer_starts_from_the_same_parameters(digits: Bench):
    starts = [parameters_of(make_trainer(digits, name)) for name in OPTIMIZERS]
    assert all(torch.equal(start, starts[0]) for start in starts)


@every_optimizer
def test_a_trial_restored_from_disk_continues_identically(digits: Bench, name: str, tmp_path: Path):
    spec = make_spec(50)
    straight = make_trainer(digits, name, spec)
    for _ in range(23):
        straight.step()
    save_checkpoint(tmp_path / "trial.pt", straight.state_dict())
    while straight.step_number < 50:
        straight.step()

    torch.rand(17)
    resumed = make_trainer(digits, name, spec)
    state = load_checkpoint(tmp_path / "trial.pt")
    assert state is not None
    resumed.load_state_dict(state)
    assert resumed.step_number == 23
    while resumed.step_number < 50:
        resumed.step()
    assert torch.equal(parameters_of(straight), parameters_of(resumed))
    assert is_same(straight.state_dict(), resumed.state_dict())


def test_dropout_does_not_depend_on_what_the_initialisation_drew():
    class DrawsMore(Droopy):
        def model(self) -> nn.Module:
            model = super().model()
            torch.rand(17)
            return model

    plain = make_trainer(bench_of(Droopy()))
    plain.step()
    drawing = make_trainer(bench_of(DrawsMore()))
    drawing.step()
    assert torch.equal(parameters_of(plain), parameters_of(drawing))


def test_dropout_continues_where_it_was():
    bench = bench_of(Droopy())
    straight = make_trainer(bench)
    for _ in range(10):
        straight.step()
    saved = copy.deepcopy(straight.state_dict())
    for _ in range(10):
        straight.step()
    resumed = make_trainer(bench)
    torch.rand(17)
    resumed.load_state_dict(saved)
    for _ in range(10):
        resumed.step()
    assert torch.equal(parameters_of(straight), parameters_of(resumed))


def test_the_state_of_another_seed_or_length_is_refused(digits: Bench):
    state = make_trainer(digits).state_dict()
    for other in (make_trainer(digits, seed=1), make_trainer(digits, spec=make_spec(41))):
        with pytest.raises(WorkloadError, match="another seed or length"):
            other.load_state_dict(state)


def test_the_state_of_another_model_or_optimizer_is_refused(digits: Bench):
    state = make_trainer(digits, "adam").state_dict()
    with pytest.raises(WorkloadError, match="another model"):
        make_trainer(bench_of(Line()), "adam").load_state_dict(state)
    with pytest.raises(WorkloadError, match="another model"):
        make_trainer(digits, "muon").load_state_dict(state)


def test_losses_are_kept_in_the_order_of_their_steps_until_forgotten(parabola: Bench):
    trainer, single = make_trainer(parabola), make_trainer(parabola)
    for _ in range(5):
        trainer.step()
    one_by_one = []
    for _ in range(5):
        single.step()
        one_by_one += single.collect_losses()
        single.forget_losses()
    assert trainer.collect_losses() == one_by_one
    assert trainer.collect_losses() == one_by_one
    trainer.forget_losses()
    assert trainer.collect_losses() == []


def test_losses_of_thousands_of_steps_are_collected(parabola: Bench):
    trainer = make_trainer(parabola, "sgd", make_spec(3000, 1))
    for _ in range(2500):
        trainer.step()
    assert len(trainer.collect_losses()) == 2500


def test_losses_of_thousands_of_steps_are_collected_after_a_restart(parabola: Bench):
    spec = make_spec(2000, 1)
    first, resumed = make_trainer(parabola, "sgd", spec), make_trainer(parabola, "sgd", spec)
    for _ in range(10):
        first.step()
    resumed.load_state_dict(first.state_dict())
    for _ in range(1100):
        resumed.step()
    assert len(resumed.collect_losses()) == 1110


@pytest.mark.parametrize("clip", [0.01, 0.5])
def test_clipping_bounds_the_update(parabola: Bench, clip: float):
    spec = make_spec(train={"grad_clip": clip})
    trainer = make_trainer(parabola, "sgd", spec, schedule="constant", lr=1.0)
    before = parameters_of(trainer)
    for _ in range(5):
        trainer.step()
        after = parameters_of(trainer)
        assert (after - before).norm() <= clip * (1 + 1e-5)
        before = after


def test_without_clipping_the_same_update_is_larger(parabola: Bench):
    clipped = make_trainer(
        parabola, "sgd", make_spec(train={"grad_clip": 0.01}), schedule="constant", lr=1.0
    )
    free = make_trainer(parabola, "sgd", schedule="constant", lr=1.0)
    start = parameters_of(free)
    clipped.step()
    free.step()
    moved = [(parameters_of(trainer) - start).norm() for trainer in (clipped, free)]
    assert moved[1] > 1.1 * moved[0]


def test_gradients_below_the_bound_are_left_alone(parabola: Bench):
    free = make_trainer(parabola, "sgd")
    clipped = make_trainer(parabola, "sgd", make_spec(train={"grad_clip": 1e6}))
    for trainer in (free, clipped):
        for _ in range(5):
            trainer.step()
    torch.testing.assert_close(parameters_of(free), parameters_of(clipped), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("precision", "kept", "computed"),
    [
        ("float32", torch.float32, torch.float32),
        ("bfloat16", torch.float32, torch.bfloat16),
        ("float64", torch.float64, torch.float64),
    ],
)
def test_a_precision_decides_the_types_of_parameters_and_products(
    precision: str, kept: torch.dtype, computed: torch.dtype
):
    workload = Watching()
    bench = bench_of(workload, precision)
    trainer = make_trainer(bench, spec=make_spec(train={"precision": precision}), lr=0.01)
    outcome, recorder = run(trainer)
    assert {p.dtype for p in trainer.model.parameters()} == {kept}
    assert workload.seen == {computed}
    assert bench.data.train[0].dtype == kept
    assert bench.data.train[1].dtype == torch.int64
    assert outcome.metrics["val_loss"] < 0.7 * recorder.evaluations[0].metrics["val_loss"]


def test_the_schedule_drives_the_learning_rate(parabola: Bench):
    trainer = make_trainer(parabola, "sgd", make_spec(20), lr=1.0)
    rates = []
    for _ in range(20):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.step()
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.02


def test_an_evaluation_is_the_mean_over_all_examples():
    class Large(Line):
        val_rows = 5000

        def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
            return {"mean": batch[0].mean(), "val_loss": self.loss(model, batch)}

    bench = bench_of(Large(), "float64")
    model = bench.build_model(0)
    metrics = bench.evaluate(model)
    x, y = bench.data.val
    assert metrics["mean"] == pytest.approx(x.mean().item(), rel=1e-12)
    assert metrics["val_loss"] == pytest.approx(mse_loss(model(x), y).item(), rel=1e-12)


def test_an_evaluation_runs_without_dropout_and_gradients_and_then_trains_on():
    class Modes(Droopy):
        def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
            assert not model.training
            assert not torch.is_grad_enabled()
            return {"val_loss": self.loss(model, batch)}

    trainer = make_trainer(bench_of(Modes()))
    assert trainer.evaluate() == trainer.evaluate()
    assert trainer.model.training


def test_an_evaluation_does_not_change_the_training_that_follows():
    bench = bench_of(Droopy())
    plain = make_trainer(bench)
    for _ in range(5):
        plain.step()
    evaluated = make_trainer(bench)
    for _ in range(5):
        evaluated.step()
        evaluated.evaluate()
    assert plain.collect_losses() == evaluated.collect_losses()


def test_a_batch_larger_than_the_data_is_refused():
    bench = bench_of(Line())
    message = r"train\.batch_size = 201: the workload has only 200 training examples"
    with pytest.raises(SpecError, match=message):
        make_trainer(bench, batch_size=201)
    with pytest.raises(SpecError, match=message):
        probe(bench, make_spec(train={"batch_size": {"choices": [16, 201]}}))


def test_probing_returns_the_metrics_of_the_untrained_model(digits: Bench):
    metrics = probe(digits, make_spec())
    assert metrics.keys() == {"val_loss", "val_accuracy"}
    assert 2 < metrics["val_loss"] < 3


def test_probing_names_the_metrics_there_are(digits: Bench):
    spec = make_spec(study={"name": "s", "workload": "a:B", "metric": "val_los"})
    message = r"study\.metric = 'val_los': the workload returns val_accuracy, val_loss"
    with pytest.raises(SpecError, match=message):
        probe(digits, spec)


def _vector(self: Line, model: nn.Module, batch: Batch) -> Any:
    return model(batch[0])


def _number(self: Line, model: nn.Module, batch: Batch) -> Any:
    return 1.0


def _detached(self: Line, model: nn.Module, batch: Batch) -> Any:
    return model(batch[0]).mean().detach()


@pytest.mark.parametrize("loss", [_vector, _number, _detached])
def test_probing_refuses_a_loss_that_is_no_scalar_with_a_gradient(loss: Any):
    workload = type("Own", (Line,), {"loss": loss})()
    with pytest.raises(SpecError, match=r"loss\(\) must return a scalar tensor with a gradient"):
        probe(bench_of(workload), make_spec())


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (3.0, r"metrics\(\) must return a mapping"),
        ({}, r"metrics\(\) must return a mapping"),
        ({"val_loss": 1.0}, r"metrics\(\)\['val_loss'\] must be a scalar tensor"),
        ({"val_loss": torch.zeros(2)}, r"metrics\(\)\['val_loss'\] must be a scalar tensor"),
    ],
)
def test_probing_refuses_metrics_that_are_no_scalars_by_name(metrics: Any, said: str):
    workload = type("Own", (Line,), {"metrics": lambda self, model, batch: metrics})()
    with pytest.raises(SpecError, match=said):
        probe(bench_of(workload), make_spec())


def test_probing_refuses_a_model_that_is_no_module():
    workload = type("Own", (Line,), {"model": lambda self: "a network"})()
    with pytest.raises(SpecError, match=r"model\(\) returned str: return a torch nn\.Module"):
        probe(bench_of(workload), make_spec())


def test_data_of_another_kind_is_refused():
    workload = type("Own", (Line,), {"data": lambda self: (1, 2)})()
    with pytest.raises(SpecError, match=r"data\(\) returned tuple: return tuner\.Data"):
        bench_of(workload)


class Broken(Line):
    def data(self) -> Data:
        raise OSError("no such disk")


class Wordy(Line):
    def metrics(self, model: nn.Module, batch: Batch) -> Any:
        return "good"


def test_code_that_raises_is_a_fault_of_the_workload_with_its_place():
    spec = make_spec(study={"name": "s", "workload": f"{__name__}:Broken"})
    with pytest.raises(WorkloadError, match=r"does not run: OSError: no such disk") as caught:
        prepare_checked(spec, CPU)
    assert f"{Path(__file__).name}:" in str(caught.value)
    assert "in data" in str(caught.value)


def test_a_broken_contract_names_the_workload():
    spec = make_spec(study={"name": "s", "workload": f"{__name__}:Wordy"})
    with pytest.raises(SpecError, match=r"study\.workload = '.*:Wordy': metrics\(\) must return"):
        prepare_checked(spec, CPU)


def test_a_workload_that_runs_is_returned_with_its_data():
    spec = make_spec(study={"name": "s", "workload": f"{__name__}:Line"})
    assert prepare_checked(spec, CPU).train_examples == Line.train_rows


def test_muon_on_a_model_without_matrices_is_a_fault_of_the_workload():
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * x.sum(1, keepdim=True)

    workload = type("Own", (Line,), {"model": lambda self: Scale()})()
    with pytest.raises(WorkloadError, match="leave muon out"):
        make_trainer(bench_of(workload), "muon")


def test_a_long_evaluation_calls_back_after_each_part():
    class Large(Line):
        val_rows = 5000

    calls = []
    trainer = make_trainer(bench_of(Large()))
    trainer.evaluate(lambda: calls.append(1))
    assert len(calls) == 3
