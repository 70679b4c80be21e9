from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.report.summaries import make_spec, trial
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.trials import DEFAULT, Outcome, Proposal, TrialRecord, default_proposal
from tuner.report.trial_words import describe_trial, tell_ending

SPEC = make_spec()


def with_attributes(record: TrialRecord, **attributes: Any) -> TrialRecord:
    return replace(record, attributes={**record.attributes, **attributes})


@pytest.mark.parametrize("optimizer", SPEC.space.optimizers)
def test_every_optimizer_s_defaults_are_told_by_the_names_of_its_constructor(
    optimizer: str,
) -> None:
    record = replace(trial(0, optimizer, 0.5), proposal=default_proposal(SPEC, optimizer))
    told = describe_trial(SPEC, record)
    row = OPTIMIZERS[optimizer]
    [first, *_] = row.calls(row.decode({}))
    assert first.arguments.keys() <= told.keys()
    assert first.rate in told
    assert not [key for key in told if "one_minus" in key]
    assert told["origin"] == DEFAULT


def test_momentum_and_betas_come_in_torch_s_form() -> None:
    sgd = trial(0, "momentum", 0.5, params={"momentum.one_minus_momentum": 0.05})
    assert describe_trial(SPEC, sgd)["momentum"] == pytest.approx(0.95)
    adam = trial(0, "adam", 0.5, params={"adam.one_minus_beta1": 0.2})
    told = describe_trial(SPEC, adam)
    assert told["betas"] == pytest.approx((0.8, 0.999))
    assert "beta1" not in told


@pytest.mark.parametrize(
    ("outcome", "attributes", "told"),
    [
        (Outcome.COMPLETE, {}, "complete"),
        (Outcome.COMPLETE, {"reached": "val_loss 0.1"}, "reached val_loss 0.1 at step 40"),
        (Outcome.PRUNED, {}, "pruned at step 40"),
        (Outcome.PRUNED, {"stopped_by": "wall_time"}, "stopped by wall_time at step 40"),
        (Outcome.DIVERGED, {"diverged_step": 7}, "diverged at step 7"),
        (Outcome.FAILED, {"error": "ValueError: no\nand more"}, "failed: ValueError: no"),
        (Outcome.FAILED, {}, "failed"),
        (Outcome.WAITING, {}, "waiting"),
    ],
)
def test_how_a_trial_ended_is_told(outcome: Outcome, attributes: dict[str, Any], told: str) -> None:
    record = with_attributes(trial(0, outcome=outcome), **attributes)
    assert tell_ending(record) == told
    assert describe_trial(SPEC, record).get("ended") == (told if outcome.is_over else None)


def test_bookkeeping_is_one_entry_and_metrics_are_numbers_of_their_own() -> None:
    record = with_attributes(
        trial(0, "adam", 0.5), config={"lr": 1}, sampler="tpe", lanes=8, seed=3, places=9
    )
    told = describe_trial(SPEC, record, "cuda:0")
    assert (told["device"], told["lanes"], told["seed"], told["steps"]) == ("cuda:0", 8, 3, 40)
    assert (told["val_loss"], told["val_accuracy"]) == (0.5, 0.9)
    assert told["bookkeeping"].keys() == {"config", "sampler", "places", "train_s", "eval_s"}
    assert "metrics" not in told
    assert "device" not in describe_trial(SPEC, record)


def test_trial_that_has_just_started_has_its_settings_alone() -> None:
    record = TrialRecord(0, Outcome.RUNNING, Proposal({"optimizer": "sgd", "schedule": "constant"}))
    told = describe_trial(SPEC, record)
    assert "lr" in told
    assert told.keys().isdisjoint({"ended", "lanes", "bookkeeping", "steps"})
