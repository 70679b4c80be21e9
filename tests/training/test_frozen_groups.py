"""Groups that thaw in mid-run, seen from a training loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.loops import STEPS, Net, batches_of, evaluate, over_loader
from tests.training.trials import (
    Recorder,
    Trial,
    check_continued,
    make_config,
    make_spec,
    stop_and_go,
    train,
)
from tuner.domain.groups import GroupValues
from tuner.training.run import Run

SPEC = make_spec(STEPS, 4)
THAWS_AT = 14


def frozen(until: float, optimizer: str = "adam", **values: Any) -> Any:
    group = GroupValues("body", "body.*", frozen_until=until, **values)
    return make_config(optimizer, groups=(group,))


def bodies(until: float, **options: Any) -> dict[int, Tensor]:
    """Returns the body's weight by the steps taken."""
    seen: dict[int, Tensor] = {}

    def keep(run: Run, step: int) -> None:
        seen[step] = run.state.state_dict()["models"][0]["body.weight"].clone()

    train(over_loader, SPEC, frozen(until, **options), Recorder(on_step=keep))
    return seen


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "muon"])
def test_a_frozen_group_changes_only_from_its_fraction_on(optimizer: str) -> None:
    seen = bodies(THAWS_AT / STEPS, optimizer=optimizer)
    assert all(torch.equal(seen[step], seen[1]) for step in range(1, THAWS_AT + 1))
    changed = [not torch.equal(seen[s], seen[s + 1]) for s in range(THAWS_AT, STEPS - 1)]
    assert all(changed)


def test_a_group_frozen_for_good_never_trains() -> None:
    seen = bodies(1.0)
    assert all(torch.equal(weight, seen[1]) for weight in seen.values())


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "muon", "adafactor"])
@pytest.mark.parametrize("step", [1, THAWS_AT - 1, THAWS_AT, THAWS_AT + 1, STEPS - 1])
def test_a_trial_continues_identically_before_and_after_the_thaw(optimizer: str, step: int) -> None:
    config = frozen(THAWS_AT / STEPS, optimizer, lr_multiplier=0.3)
    whole = train(over_loader, SPEC, config)
    check_continued(whole, *stop_and_go(over_loader, step, SPEC, config))


def test_a_thawed_group_follows_the_schedule_from_its_own_rate() -> None:
    seen: list[dict[str, float]] = []

    def keep(run: Run, step: int) -> None:
        parts = run.state.state_dict()["optimizers"][0]["parts"]
        groups = [group for part in parts for group in part["param_groups"]]
        seen.append({group["name"]: group["lr"] for group in groups})

    config = frozen(THAWS_AT / STEPS, lr_multiplier=0.25)
    train(over_loader, SPEC, config, Recorder(on_step=keep))
    assert all(set(rates) == {"rest"} for rates in seen[: THAWS_AT - 1])
    assert len(seen) == STEPS - 1
    for rates in seen[THAWS_AT - 1 :]:
        assert rates["body"] == pytest.approx(0.25 * rates["rest"])


def test_a_thaw_is_what_a_person_would_write_by_hand() -> None:
    def by_hand(run: Run) -> None:
        model, loader = Net(), batches_of()
        body = list(model.body.parameters())
        for parameter in body:
            parameter.requires_grad_(False)
        optimizer = torch.optim.SGD(model.head.parameters(), lr=0.01, momentum=0.9)
        for step, (x, y) in run.steps(loader):
            if step == THAWS_AT:
                for parameter in body:
                    parameter.requires_grad_(True)
                optimizer.add_param_group({"params": body, "lr": 0.005})
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
            run.report(step, val_loss=evaluate(model))

    group = GroupValues("body", "body.*", lr_multiplier=0.5, frozen_until=THAWS_AT / STEPS)
    config = make_config(
        "momentum", schedule="constant", warmup=0.0, lr=0.01, momentum=0.9, groups=(group,)
    )
    theirs, ours = train(by_hand, SPEC), train(over_loader, SPEC, config)
    assert theirs.values == pytest.approx(ours.values, rel=1e-5)


def test_a_searched_multiplier_acts_as_one_that_is_fixed() -> None:
    def trained(multiplier: float) -> Trial:
        group = GroupValues("body", "body.*", lr_multiplier=multiplier)
        return train(over_loader, SPEC, make_config("sgd", lr=0.1, groups=(group,)))

    plain = train(over_loader, SPEC, make_config("sgd", lr=0.1))
    assert trained(1.0).values == plain.values
    assert trained(0.1).values != plain.values


def test_what_is_told_of_groups_does_not_depend_on_a_thaw() -> None:
    described = [
        train(over_loader, SPEC, frozen(until, lr_multiplier=0.5)).run.state.describe_groups()
        for until in (0.5, 1.0)
    ]
    for groups, until in zip(described, (0.5, 1.0), strict=True):
        body = next(group for group in groups if group["name"] == "body")
        assert body == {
            "name": "body",
            "parameters": 4 * 8 + 8,
            "lr": 0.0005,
            "weight_decay": 0.0,
            "momentum": 0.9,
            "frozen_until": until,
        }
