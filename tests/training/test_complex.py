"""Models and data of complex numbers: they train as their real and imaginary parts would."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.trials import averaged, make_config, make_spec, prepare_workload, train
from tuner.domain.trials import TrialConfig
from tuner.errors import TunerError
from tuner.fused.eligibility import Refusals
from tuner.training.rehearsal import probe
from tuner.training.workload import Batch, Data


class Rotation(nn.Module):
    """Turns and scales two complex numbers, by complex weights or by pairs of real ones."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        weight = torch.tensor([1.0 + 0.5j, -0.3j])
        self.complex = dtype.is_complex
        self.weight = nn.Parameter(weight if self.complex else torch.view_as_real(weight).clone())
        self.register_buffer("scale", torch.tensor([1j]))

    scale: Tensor

    def forward(self, z: Tensor) -> Tensor:
        """Returns the sums of what it has turned."""
        weight = self.weight if self.complex else torch.view_as_complex(self.weight)
        return (self.scale * z * weight).sum(1)


class Turning:
    """Which turns lead from some complex numbers to others."""

    def __init__(self, dtype: torch.dtype = torch.complex64) -> None:
        self._dtype = dtype

    def model(self) -> nn.Module:
        return Rotation(self._dtype)

    def data(self) -> Data:
        z = torch.randn(250, 2, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
        y = z @ torch.tensor([2 - 1j, 0.5j])
        return Data(train=(z[:200], y[:200]), val=(z[200:], y[200:]))

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        return (model(batch[0]) - batch[1]).abs().square().mean()

    def metrics(self, model: nn.Module, batch: Batch) -> Any:
        return {"val_loss": self.loss(model, batch)}


@pytest.mark.parametrize(
    ("precision", "kept"),
    [
        ("float32", torch.complex64),
        ("bfloat16", torch.complex64),
        ("float64", torch.complex128),
    ],
)
def test_complex_numbers_have_the_precision_of_the_study(precision: str, kept: torch.dtype) -> None:
    prepared = prepare_workload(Turning(), precision)
    tensors = [
        *prepared.data.train,
        *prepared.data.val,
        *prepared.build_model(0).state_dict().values(),
    ]
    assert [tensor.dtype for tensor in tensors] == [kept] * 6


@pytest.mark.parametrize(
    "config",
    [
        make_config("adam", lr=0.02),
        make_config("momentum", lr=0.02),
        make_config("rprop", lr=0.02),
        make_config("lookahead(adamw)", lr=0.02),
        averaged(make_config("adam", lr=0.02), "ema", decay=0.9),
        averaged(make_config("adam", lr=0.02), "swa", start=0.5),
    ],
    ids=lambda config: f"{config.optimizer} {config.average}",
)
def test_complex_weights_train_as_their_parts_would(config: TrialConfig) -> None:
    spec = make_spec(train={"grad_clip": 2.0})
    one = train(prepare_workload(Turning(), "float64"), spec, config)
    two = train(prepare_workload(Turning(torch.float32), "float64"), spec, config)
    assert one.values == pytest.approx(two.values, rel=1e-9)
    assert one.values[-1] < one.values[0]


@pytest.mark.parametrize("optimizer", ["muon", "adafactor", "yellowfin", "prodigy"])
def test_an_optimizer_of_real_numbers_alone_is_refused(optimizer: str) -> None:
    class Square(Turning):
        """Its weights are a matrix."""

        def model(self) -> nn.Module:
            return nn.Linear(2, 1, bias=False, dtype=torch.complex64)

        def loss(self, model: nn.Module, batch: Batch) -> Any:
            return (model(batch[0])[:, 0] - batch[1]).abs().square().mean()

    with pytest.raises(TunerError, match=r"(?i)complex"):
        probe(prepare_workload(Square()), make_spec(space={"optimizers": [optimizer]}))


def test_complex_weights_train_alone_and_complex_data_as_lanes() -> None:
    refused = Refusals(prepare_workload(Turning()), make_spec())(make_config("adam"))
    assert refused == "weight is complex, and lanes have real parameters"
    assert (
        Refusals(prepare_workload(Turning(torch.float32)), make_spec())(make_config("adam")) is None
    )
