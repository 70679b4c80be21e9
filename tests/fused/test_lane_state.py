from __future__ import annotations

import pytest
import torch

from tuner.fused.lane_state import LaneState
from tuner.fused.yellowfin import new_measurements


def make_state(*, window: int = 0, average: bool = False, lanes: int = 3) -> LaneState:
    """Returns lanes whose every number is another, of a model whose buffers have odd names."""
    p = torch.rand(lanes, 5)
    return LaneState(
        p,
        p + 1,
        p + 2,
        average=p + 3 if average else None,
        measured=new_measurements(lanes, window, p.device) + p[:, :1] if window else None,
        buffers={"average": p[:, :2] + 4, "p": torch.arange(lanes)},
    )


def rows_of(state: LaneState, lane: int) -> dict[str, torch.Tensor]:
    return {name: t[lane].clone() for name, t in zip(state.names, state.tensors, strict=True)}


def test_lanes_go_on_in_other_rows_and_beside_others() -> None:
    before, after = make_state(window=64, average=True), make_state(window=128, average=True)

    after.load([rows_of(before, lane) for lane in (2, 0)])

    for row, lane in enumerate((2, 0)):
        for name, tensor in rows_of(before, lane).items():
            found = rows_of(after, row)[name]
            found = found[: len(tensor)] if name == "measured" else found
            assert torch.equal(found, tensor), name
    selected = before.select(torch.tensor([2, 0]))
    assert rows_of(selected, 0).keys() == rows_of(before, 2).keys()
    assert all(torch.equal(rows_of(selected, 0)[k], v) for k, v in rows_of(before, 2).items())


def test_a_lane_needs_no_rows_that_nobody_had_where_it_was_trained() -> None:
    before, after = make_state(), make_state(window=64, average=True)
    fresh = rows_of(after, 0)

    after.load([rows_of(before, 1)])

    assert torch.equal(after.p[0], before.p[1])
    assert torch.equal(rows_of(after, 0)["measured"], fresh["measured"])


def test_a_lane_of_another_model_is_refused() -> None:
    found = rows_of(make_state(), 0)

    with pytest.raises(KeyError):
        make_state().load([{name: t for name, t in found.items() if name != "s"}])
    with pytest.raises(RuntimeError):
        make_state().load([found | {"p": torch.rand(4)}])
