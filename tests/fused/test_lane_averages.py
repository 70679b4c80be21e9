from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.trials import averaged, make_config
from tuner.fused.lane_averages import LaneAverages
from tuner.optim.averages import build_average


@given(
    name=st.sampled_from(["ema", "swa"]),
    start=st.floats(0, 0.99),
    interval=st.integers(1, 9),
    decay=st.floats(0.01, 0.99),
    total=st.integers(1, 40),
    cut=st.integers(0, 40),
)
def test_weights_are_taken_in_as_the_average_of_a_model_takes_them(
    name: str, start: float, interval: int, decay: float, total: int, cut: int
) -> None:
    own = {"start": start, "interval": interval} | ({"decay": decay} if name == "ema" else {})
    config = averaged(make_config(), name, **own)
    model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    average = build_average(name, config.average_values, model)
    assert average is not None
    averages = LaneAverages([make_config(), config], total)
    cut = min(cut, total)
    shares = [*averages.shares(0, cut), *averages.shares(cut, total)]

    ours = torch.zeros(1, 1, dtype=torch.float64)
    for step, (nothing, share) in enumerate(shares):
        with torch.no_grad():
            model.weight.fill_((step * 7919 % 101) / 101)
        ours.lerp_(model.weight.detach(), share)
        average.follow(step + 1, total)
        assert nothing == 0
        assert averages.begun(step + 1) == ([1] if average.count else [])
        if average.count:
            theirs = average.state_dict()["weights"]["weight"]
            assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
