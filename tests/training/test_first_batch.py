"""What only a batch tells of a model: shapes of lazy modules, and which gradients are sparse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.fused.cohorts import Blobs, check_same, train_lanes
from tests.optim.test_sparse import Functional
from tests.training.trials import Line, make_config, make_spec, prepare_workload, train
from tuner.errors import WorkloadError
from tuner.fused.eligibility import Refusals
from tuner.optim.groups import sparse_parameters
from tuner.training.rehearsal import probe
from tuner.training.run import Run

# Torch's own Adagrad makes sparse tensors without saying whether to check them.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")


def lazy() -> nn.Sequential:
    return nn.Sequential(
        nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Tanh(), nn.Dropout(0.5), nn.LazyLinear(3)
    )


class Lazy(Blobs):
    """Its modules take their shapes from their first batch."""

    def model(self) -> nn.Module:
        return lazy()


class Plain(Blobs):
    """The same with shapes."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


class Sparse(Line):
    """Its model looks words up by a function."""

    def model(self) -> nn.Module:
        return Functional(outputs=1)


def groups_of(workload: Any, optimizer: str) -> list[tuple[str, int]]:
    spec = make_spec(4, 1, train={"no_decay_on_biases_and_norms": True})
    described = train(
        prepare_workload(workload), spec, make_config(optimizer)
    ).run.state.describe_groups()
    return [(group["name"], group["parameters"]) for group in described]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_lazy_modules_of_a_class_are_grouped_by_their_shapes(optimizer: str) -> None:
    assert groups_of(Lazy(), optimizer) == groups_of(Plain(), optimizer)


def test_the_batch_that_gives_shapes_leaves_no_other_trace() -> None:
    prepared = prepare_workload(Lazy())
    first, second = prepared.build_model(3), prepared.build_model(3)
    assert all(module.training for module in first.modules())
    buffers = dict(first.named_buffers())
    assert bool((buffers["1.running_mean"] == 0).all())
    assert int(buffers["1.num_batches_tracked"]) == 0
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_lazy_modules_train_as_lanes_too() -> None:
    prepared, spec = prepare_workload(Lazy(), "float64"), make_spec(8, 2)
    configs = [make_config("adam"), make_config("momentum")]
    check_same(train_lanes(prepared, configs, spec), prepared, spec, configs)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "lookahead(adam)"])
def test_a_loop_is_told_to_run_a_batch_through_lazy_modules_first(optimizer: str) -> None:
    def loop(run: Run) -> float:
        model = lazy()
        with pytest.raises(WorkloadError, match=r"one batch through the model before run\.optim"):
            run.optimizer(model)
        model(torch.ones(2, 4))
        run.optimizer(model)
        return 0.0

    assert train(loop, make_spec(), make_config(optimizer)).outcome.ending == "complete"


@pytest.mark.parametrize("optimizer", ["sparse_adam", "sgd", "momentum", "adagrad"])
def test_a_class_whose_functions_make_gradients_sparse_trains(optimizer: str) -> None:
    prepared, spec = prepare_workload(Sparse()), make_spec(6, 1, space={"optimizers": [optimizer]})
    probe(prepared, spec)
    trial = train(prepared, spec, make_config(optimizer))
    assert trial.outcome.ending == "complete"
    assert trial.values[-1] < prepared.evaluate(prepared.build_model(0))["val_loss"]


def test_telling_which_gradients_are_sparse_leaves_no_other_trace() -> None:
    prepared = prepare_workload(Sparse())
    plain = prepared.build_model(5)
    drawn = torch.rand(3)
    model = prepared.build_model(5, tells_sparse=True)
    assert torch.equal(torch.rand(3), drawn)
    words, *_ = model.parameters()
    assert [p is words for p in sparse_parameters(model)] == [True]
    for ours, theirs in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_sparse_gradients_that_functions_make_keep_a_class_from_lanes() -> None:
    assert "sparse" in str(Refusals(prepare_workload(Sparse()), make_spec())(make_config("sgd")))
