from __future__ import annotations

import pytest
import torch

from tests.optim.networks import network
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.groups import GroupValues
from tuner.domain.trials import TrialConfig
from tuner.fused.coefficients import LaneCoefficients
from tuner.fused.lane_update import IDLE, Coefficients

NAMES = ("sgd", "nesterov", "nadam", "asgd", "rprop", "radam", "ranger", "muon", "lion")
THAW = GroupValues("first", "0.*", lr_multiplier=0.5, frozen_until=0.25)


def config(optimizer: str, schedule: str, *groups: GroupValues) -> TrialConfig:
    values, own = OPTIMIZERS[optimizer].decode({}), SCHEDULES[schedule].decode({})
    return TrialConfig(optimizer, values, schedule, own, 32, groups)


def coefficients_of(*groups: GroupValues) -> LaneCoefficients:
    schedules = ("cosine", "one_cycle", "plateau")
    configs = [config(name, schedule, *groups) for name in NAMES for schedule in schedules]
    return LaneCoefficients(network(), configs, 40, parts=["hidden"])


@pytest.mark.parametrize("start", [1, 9, 10, 11, 30])
@pytest.mark.parametrize("groups", [(), (THAW,)])
def test_later_steps_are_the_same_without_those_before(
    start: int, groups: tuple[GroupValues, ...]
) -> None:
    found = coefficients_of(*groups)
    cuts = [[(8, 0.1), (20, 0.01)]] * (3 * len(NAMES))

    whole, rest = found.rows(0, 40, cuts), found.rows(start, 40, cuts)

    torch.testing.assert_close(rest, whole[start:], rtol=1e-11, atol=1e-15)


def test_a_frozen_group_is_idle_until_it_thaws() -> None:
    found = coefficients_of(THAW)
    [*idle] = [i for i, column in enumerate(found.columns) if column.group == "first"]

    rows = found.rows(0, 40)

    expected = torch.tensor([IDLE.get(name, 0.0) for name in Coefficients._fields]).double()
    assert found.columns[idle[0]].begins == 10
    assert (rows[:10, idle, :, :, 0].movedim(2, -1) == expected).all()
    assert not (rows[10, idle, :, :, 0].movedim(1, -1) == expected).all()
    assert {part.column for part in found.trained(9)}.isdisjoint(idle)
    assert {part.column for part in found.trained(10)}.issuperset(idle)


def test_a_lane_does_not_depend_on_those_beside_it() -> None:
    together = coefficients_of().rows(0, 40)
    for lane, name in enumerate(NAMES):
        alone = LaneCoefficients(network(), [config(name, "one_cycle")], 40, parts=["hidden"]).rows(
            0, 40
        )
        assert torch.equal(alone[:, :, :, 0], together[:, :, :, 3 * lane + 1])
