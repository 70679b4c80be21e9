"""A loop of several networks: each by its name, in ranges and groups of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.loops import STEPS, adversarial, adversarial_by_name
from tests.training.trials import (
    CPU,
    Line,
    Recorder,
    Trial,
    check_continued,
    make_config,
    make_spec,
    prepare_workload,
    stop_and_go,
    train,
)
from tuner.domain.groups import GroupValues
from tuner.domain.trials import decode, default_proposals
from tuner.errors import WorkloadError
from tuner.fused.eligibility import Refusals
from tuner.training.run import Run

SPACE = {"optimizers": ["adam"], "schedules": ["constant"]}
NETWORK = {"maker": {"adam": {"lr": 1e-5, "beta1": 0.5}}}
SPEC = make_spec(STEPS, 4, space=SPACE, network=NETWORK)


def config_of(spec: Any = SPEC) -> Any:
    return decode(spec, default_proposals(spec)[0])


def optimizers_of(loop: Any, *setting: Any) -> list[torch.optim.Optimizer]:
    return train(loop, *setting).run.state.optimization.optimizers


def test_each_network_trains_with_what_it_has_of_its_own() -> None:
    maker, judge = optimizers_of(adversarial_by_name, SPEC, config_of())
    assert (maker.param_groups[0]["lr"], maker.param_groups[0]["betas"]) == (1e-5, (0.5, 0.999))
    assert (judge.param_groups[0]["lr"], judge.param_groups[0]["betas"]) == (1e-3, (0.9, 0.999))


def test_names_alone_change_nothing() -> None:
    plain = make_spec(STEPS, 4, space=SPACE)
    named, unnamed = (
        train(loop, plain, config_of(plain)) for loop in (adversarial_by_name, adversarial)
    )
    assert named.values == unnamed.values


@pytest.mark.parametrize("step", [3, 14])
def test_networks_continue_as_if_never_stopped(step: int) -> None:
    whole = train(adversarial_by_name, SPEC, config_of())
    check_continued(whole, *stop_and_go(adversarial_by_name, step, SPEC, config_of()))


def test_groups_match_networks_by_name() -> None:
    groups = (GroupValues("made", "maker.*", 0.1), GroupValues("heads", "*.head.*", 0.5))
    trial = train(adversarial_by_name, SPEC, make_config("sgd", groups=groups))
    described = {group["name"]: group["parameters"] for group in trial.run.state.describe_groups()}
    assert described == {"maker.made": 12, "judge.heads": 9, "judge.rest": 40}


def test_a_table_of_a_network_that_the_loop_does_not_name_is_refused() -> None:
    spec = make_spec(STEPS, 4, space=SPACE, network={"generator": {"adam": {"lr": 0.1}}})
    with pytest.raises(WorkloadError, match=r'\[network\.generator\], .* names name="maker", name'):
        train(adversarial_by_name, spec, config_of(spec))
    with pytest.raises(WorkloadError, match=r'no network: write .*name="generator"'):
        train(adversarial, spec, config_of(spec))


def test_a_workload_class_has_no_network_with_a_name() -> None:
    prepared, config = prepare_workload(Line()), config_of()
    with pytest.raises(WorkloadError, match=r"\[network\.maker\].* or leave the table out"):
        train(prepared, SPEC, config)
    assert "[network]" in str(Refusals(prepared, SPEC)(config))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("maker", "maker"), "for two models: give each its own"),
        (("a maker", None), "a plain word"),
    ],
)
def test_a_name_is_a_word_of_one_model(names: Any, said: str) -> None:
    with pytest.raises(WorkloadError, match=said):
        train(partial(adversarial, names=names), make_spec(STEPS, 4), make_config())


def test_two_optimizers_of_one_model_may_share_its_name() -> None:
    def loop(run: Run) -> float:
        model = nn.Linear(2, 1)
        return float(len([run.optimizer(model, name="model") for _ in range(2)]))

    trial: Trial = train(loop, make_spec(), make_config())
    assert trial.outcome.value == 2


def test_a_model_that_no_optimizer_was_built_for_is_none_of_its_networks() -> None:
    run = Run(make_spec(), make_config(), device=CPU, reporter=Recorder())
    with pytest.raises(WorkloadError, match="nothing to optimize"):
        run.optimizer(nn.Linear(2, 1).requires_grad_(False))
    assert run.networks.models == []
    assert run.state.describe_groups() == []
