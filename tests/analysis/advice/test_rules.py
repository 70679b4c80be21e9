"""Each rule fires where it should and is silent otherwise; every command is one that exists."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.analysis.advice.test_commands import typed
from tests.conftest import ROOT
from tests.report.summaries import make_spec, summary_of, trial
from tests.test_docs import check_command
from tuner.analysis.advice.evidence import Advice
from tuner.analysis.advice.rules import advise
from tuner.analysis.confirmed import Confirmed, summarize_confirmation
from tuner.analysis.importance import measure_importance
from tuner.analysis.summary import StudySummary
from tuner.domain.catalog.dimensions import Choice, Fixed, Float, Int
from tuner.domain.confirmation import CONFIRMS, REPEAT, Confirmation
from tuner.domain.spec import StudySpec
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, TrialRecord

RULES = (ROOT / "docs" / "advice.md").read_text()

LR: dict[str, Any] = {"low": 1e-4, "high": 0.1, "log": True}


def spec_of(optimizers: Sequence[str] = ("adam",), **tables: Any) -> StudySpec:
    space = {"breadth": 1, "optimizers": list(optimizers), "schedules": ["constant"]}
    budget = {"trials": 5, "steps": 40, "evaluations": 4}
    usual: dict[str, Any] = {"space": space, "budget": budget}
    return make_spec(**usual | tables)


def advice_on(summary: StudySummary) -> dict[str, Advice]:
    importance = measure_importance(summary.spec, summary.records)
    found = advise(summary, summary.records, importance)
    for advice in found:
        assert f"| `{advice.kind}` |" in RULES
        for command in advice.command.split(" && "):
            check_command(command)
    assert len({advice.kind for advice in found}) == len(found)
    return {advice.kind: advice for advice in found}


def study(records: Iterable[TrialRecord], spec: StudySpec) -> StudySummary:
    return summary_of(*records, spec=spec)


def flat(number: int, value: float, optimizer: str = "adam", **params: Any) -> TrialRecord:
    """Returns a complete trial whose loss is flat from its second evaluation on."""
    own = {f"{optimizer}.{key}": param for key, param in params.items()}
    record = trial(number, optimizer, value, params=own)
    return replace(record, evaluations={10: value + 1, 20: value, 30: value, 40: value})


def test_a_study_in_which_all_is_well_gets_no_advice() -> None:
    trials = [flat(n, 1 + n, lr=0.01) for n in range(12)]
    assert advice_on(study(trials, spec_of(optimizer={"adam": {"lr": LR}}))) == {}


@pytest.mark.parametrize("records", [(), (trial(0, outcome=Outcome.FAILED),)])
def test_nothing_is_advised_where_nothing_is_known(records: tuple[TrialRecord, ...]) -> None:
    assert advice_on(summary_of(*records)) == {}


def test_a_study_that_confirms_gets_no_advice() -> None:
    spec = spec_of(optimizer={"adam": {"lr": LR}})
    summary = study([flat(n, 1.0, lr=0.1) for n in range(5)], spec)
    assert "edge" in advice_on(summary)
    confirmation = {"study": "u", "finalists": [], "seeds": 5, "runs": 5}
    confirming = spec.model_copy(update={"confirmation": confirmation})
    assert advice_on(replace(summary, spec=confirming)) == {}


# edge


@pytest.mark.parametrize(("rate", "fires"), [(0.1, True), (0.02, False)])
def test_best_trials_at_an_end_of_a_range_ask_to_widen_it(rate: float, fires: bool) -> None:
    spec = spec_of(optimizer={"adam": {"lr": LR}})
    found = advice_on(study([flat(n, 1 + n, lr=rate) for n in range(5)], spec))
    assert ("edge" in found) is fires
    if fires:
        assert found["edge"].command == "tuner study widen some_study"
        assert "adam.lr (high end 0.1, 3 of adam's best 3)" in found["edge"].sentence


def test_the_end_of_a_range_is_told_of_momentum_as_torch_has_it() -> None:
    spec = spec_of(("momentum",), space={"optimizers": ["momentum"], "breadth": 2})
    ends = [
        trial(n, "momentum", 1.0 + n, params={"momentum.one_minus_momentum": 0.3}) for n in range(5)
    ]
    sentence = advice_on(study(ends, spec))["edge"].sentence
    assert "momentum.momentum (low end 0.7, 3 of momentum's best 3)" in sentence
    assert "one_minus" not in sentence


# all-diverged, diverged


def diverged(count: int, optimizer: str = "adam", rates: Sequence[float] = ()) -> list[TrialRecord]:
    return [
        trial(100 + n, optimizer, outcome=Outcome.DIVERGED, params={f"{optimizer}.lr": rate})
        for n, rate in enumerate(rates or [0.05] * count)
    ]


@pytest.mark.parametrize(("count", "fires"), [(8, True), (7, False)])
def test_where_all_diverge_much_lower_rates_are_advised(count: int, fires: bool) -> None:
    found = advice_on(study(diverged(count), spec_of(optimizer={"adam": {"lr": LR}})))
    assert ("all-diverged" in found) is fires
    assert "diverged" not in found
    if fires:
        again = typed(found["all-diverged"].command)
        assert again.optimizer["adam"]["lr"] == Float(low=1e-6, high=1e-4, log=True)


@pytest.mark.parametrize(("bad", "fires"), [(3, True), (2, False)])
def test_many_divergences_ask_for_lower_rates(bad: int, fires: bool) -> None:
    trials = [flat(n, 1 + n, lr=0.003) for n in range(8)]
    spec = spec_of(optimizer={"adam": {"lr": LR}})
    found = advice_on(study([*trials, *diverged(bad, rates=[0.02, 0.04, 0.06][:bad])], spec))
    assert ("diverged" in found) is fires
    if fires:
        assert found["diverged"].sentence.startswith("3 of 11 finished trials diverged (adam 3).")
        again = typed(found["diverged"].command)
        assert again.optimizer["adam"]["lr"] == Float(low=1e-4, high=0.04, log=True)


def test_the_best_rates_are_not_cut_off() -> None:
    trials = [flat(n, 1 + n, lr=0.03) for n in range(8)]
    spec = spec_of(optimizer={"adam": {"lr": LR}})
    found = advice_on(study([*trials, *diverged(4, rates=[0.01, 0.01, 0.02, 0.05])], spec))
    axis = typed(found["diverged"].command).optimizer["adam"]["lr"]
    assert axis == Float(low=1e-4, high=0.06, log=True)


def test_where_no_rate_is_to_blame_gradients_are_clipped() -> None:
    trials = [flat(n, 1 + n) for n in range(8)]
    bad = [trial(20 + n, outcome=Outcome.DIVERGED) for n in range(4)]
    fixed = {"adam": {"lr": 0.1}}
    found = advice_on(study([*trials, *bad], spec_of(optimizer=fixed)))
    assert typed(found["diverged"].command).train.grad_clip == 1.0
    clipped = spec_of(optimizer=fixed, train={"grad_clip": 1.0})
    assert "diverged" not in advice_on(study([*trials, *bad], clipped))


# unsettled, starved


def test_too_few_trials_for_all_optimizers_ask_for_more() -> None:
    spec = spec_of(("adam", "sgd"))
    trials = [flat(n, 1 + n, "sgd" if n == 5 else "adam") for n in range(6)]
    found = advice_on(study(trials, spec))
    assert found["unsettled"].command == "tuner study run some_study --trials 10"
    assert "2 optimizers share 6 finished trials" in found["unsettled"].sentence
    bounded = make_spec(
        space={"optimizers": ["adam", "sgd"]},
        budget={"trials": 5, "steps": 40, "full_trials": 5},
    )
    stopped = replace(study(trials, spec), state=StudyState.STOPPED)
    for summary in (study(trials, bounded), stopped):
        assert typed(advice_on(summary)["unsettled"].command).space.optimizers == ("sgd",)


def test_a_study_that_still_has_trials_to_start_is_waited_for() -> None:
    more = spec_of(("adam", "sgd"), budget={"trials": 20, "steps": 40})
    trials = [flat(n, 1 + n, "sgd" if n == 4 else "adam") for n in range(5)]
    assert advice_on(study(trials, more)) == {}
    over = replace(study(trials, more), exhausted="wall time")
    assert "unsettled" in advice_on(over)


@pytest.mark.parametrize(("few", "fires"), [(4, True), (5, False)])
def test_an_optimizer_that_was_starved_is_searched_alone(few: int, fires: bool) -> None:
    spec = spec_of(("adam", "sgd"))
    trials = [flat(n, 1 + n, "sgd" if n < few else "adam") for n in range(20)]
    found = advice_on(study(trials, spec))
    assert ("starved" in found) is fires
    assert "unsettled" not in found
    if fires:
        again = typed(found["starved"].command)
        assert (again.space.optimizers, again.budget.trials) == (("sgd",), 10)
        assert "fewer than 5 were of sgd" in found["starved"].sentence


def test_a_study_of_one_optimizer_has_nothing_to_settle() -> None:
    assert advice_on(study([flat(0, 1.0)], spec_of())) == {}


# noise


def noisy(gap: float, runs: int = 3) -> StudySummary:
    repeats = [flat(n, 1 + 0.1 * n, "adam", lr=0.02) for n in range(runs)]
    others = [flat(10 + n, 5.0 + n, "adam", lr=0.01 + n / 1000) for n in range(5)]
    second = [flat(20 + n, 1 + gap + n, "sgd", lr=0.02 + n / 1000) for n in range(5)]
    spec = spec_of(("adam", "sgd"), optimizer={"adam": {"lr": LR}, "sgd": {"lr": LR}})
    return study([*repeats, *others, *second], spec)


@pytest.mark.parametrize(
    ("gap", "runs", "fires"), [(0.1, 3, True), (0.2, 3, False), (0.05, 2, False)]
)
def test_a_lead_smaller_than_the_noise_asks_for_fresh_seeds(
    gap: float, runs: int, fires: bool
) -> None:
    # Three runs a tenth apart: a standard deviation of 0.1, of a difference 0.14.
    found = advice_on(noisy(gap, runs))
    assert ("noise" in found) is fires
    if fires:
        assert found["noise"].command == "tuner study confirm some_study"
        assert "adam is 0.1 ahead of sgd" in found["noise"].sentence


def test_a_study_that_is_not_to_be_confirmed_by_itself_says_how_many_run_again() -> None:
    summary = noisy(0.1)
    spec = spec_of(("adam", "sgd"), confirm={"top": 0})
    found = advice_on(replace(summary, spec=spec))
    assert found["noise"].command == "tuner study confirm some_study --top 3"


@pytest.mark.parametrize(
    ("means", "seeds", "fires"),
    [
        ((1.0, 1.001), 10, True),
        ((1.0, 9.0), 10, False),  # told apart
        ((1.0, 1.001), 7, False),  # not on all that were planned
    ],
)
def test_finalists_that_are_tied_on_all_seeds_ask_for_more(
    means: tuple[float, float], seeds: int, fires: bool
) -> None:
    spec = spec_of(("adam", "sgd"))
    trials = [flat(n, 1.0 + n, "sgd" if n % 2 else "adam") for n in range(10)]
    summary = replace(study(trials, spec), confirmed=confirmed_of(spec, means, seeds))
    found = advice_on(summary)
    assert ("noise" in found) is fires
    if fires:
        delete, _, confirm = found["noise"].command.partition(" && ")
        assert delete == "tuner study delete some_study.confirm --yes"
        # Twenty seeds of two finalists are forty runs, after ten trials.
        assert confirm == "tuner study confirm some_study --seeds 20 --cost 4"


def confirmed_of(spec: StudySpec, means: Sequence[float], seeds: int) -> Confirmed | None:
    """Returns a confirmation of adam and sgd of ten seeds, of which so many are over."""
    finalists = [
        {"trial": n, "params": {"optimizer": name, "schedule": "constant"}}
        for n, name in enumerate(("adam", "sgd"))
    ]
    table = {"study": "0" * 32, "finalists": finalists, "seeds": 10, "runs": 20}
    confirming = spec.model_copy(update={"confirmation": Confirmation.model_validate(table)})
    generator = np.random.default_rng(0)
    records: list[TrialRecord] = []
    for seed in range(seeds):
        for finalist, mean in enumerate(means):
            value = mean + 0.1 * float(generator.standard_normal())
            record = trial(len(records), ("adam", "sgd")[finalist], value)
            own = {CONFIRMS: finalist, REPEAT: seed}
            records.append(replace(record, attributes={**record.attributes, **own}))
    return summarize_confirmation("some_study.confirm", confirming, records)


# late-bloomers


def curves(order: Sequence[int], spec: StudySpec, stopped: int = 10) -> StudySummary:
    """Returns trials by final rank, whose first evaluations have these ranks, and worse ones."""
    trials = [
        replace(
            trial(n, "adam", 1 + n), evaluations={10: 100.0 + first, 20: 50, 30: 1 + n, 40: 1 + n}
        )
        for n, first in enumerate(order)
    ]
    for n in range(stopped):
        record = trial(50 + n, "adam", 104.5 - n, Outcome.PRUNED)
        attributes = {"steps": 10, "total_steps": 40}
        trials.append(replace(record, evaluations={10: 104.5 - n}, attributes=attributes))
    return study(trials, spec)


@pytest.mark.parametrize(
    ("order", "fires"),
    [
        ([8, 7, 1, 2, 6, 0, 3, 5, 4], True),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], False),  # the order stays
        ([8, 7, 1, 2, 6, 0, 3], False),  # too few
    ],
)
def test_where_slow_starters_end_well_no_pruner_is_advised(order: list[int], fires: bool) -> None:
    found = advice_on(curves(order, spec_of()))
    assert ("late-bloomers" in found) is fires
    if fires:
        assert typed(found["late-bloomers"].command).search.pruner == "none"


def test_where_nothing_was_stopped_no_pruner_is_to_blame() -> None:
    order = [8, 7, 1, 2, 6, 0, 3, 5, 4]
    assert "late-bloomers" not in advice_on(curves(order, spec_of(), stopped=0))
    assert "late-bloomers" not in advice_on(curves(order, spec_of(search={"pruner": "none"})))


# still-falling


@pytest.mark.parametrize(
    ("last", "fires"), [((0.4, 0.2), True), ((0.21, 0.2), False), ((0.1, 0.2), False)]
)
def test_a_loss_that_still_falls_asks_for_longer_trials(
    last: tuple[float, float], fires: bool
) -> None:
    trials = [
        replace(trial(n, "adam", last[1]), evaluations={10: 1.0, 20: 0.5, 30: last[0], 40: last[1]})
        for n in range(3)
    ]
    found = advice_on(study(trials, spec_of()))
    assert ("still-falling" in found) is fires
    if fires:
        assert typed(found["still-falling"].command).budget.steps == 80
        assert "brought 25% of their gain" in found["still-falling"].sentence
    stopped = {"stopped_early": "enough", "steps": 40}
    early = [replace(record, attributes=stopped) for record in trials]
    assert "still-falling" not in advice_on(study(early, spec_of()))


def test_a_metric_that_still_rises_asks_for_longer_trials() -> None:
    trials = [
        replace(trial(n, "adam", 0.9), evaluations={10: 0.1, 20: 0.5, 30: 0.7, 40: 0.9})
        for n in range(3)
    ]
    study_table = {"name": "some_study", "workload": "m:W", "direction": "maximize"}
    spec = spec_of(study=study_table, budget={"trials": 3, "epochs": 2, "evaluations": 4})
    assert typed(advice_on(study(trials, spec))["still-falling"].command).budget.epochs == 4
    assert "still-falling" not in advice_on(study(trials[:2], spec))


# few-trials


@pytest.mark.parametrize(("count", "fires"), [(6, True), (30, False)])
def test_many_hyperparameters_for_few_trials_ask_for_fewer(count: int, fires: bool) -> None:
    space = {"breadth": 3, "optimizers": ["adam"], "schedules": ["constant"]}
    trials = [flat(n, 1 + n) for n in range(count)]
    found = advice_on(study(trials, spec_of(space=space)))
    assert ("few-trials" in found) is fires
    if fires:
        assert typed(found["few-trials"].command).space.breadth == 2
    narrow = advice_on(study(trials, spec_of()))
    assert "few-trials" not in narrow


def test_a_breadth_that_leaves_nothing_out_is_not_advised() -> None:
    space = {"breadth": 3, "optimizers": ["adam"], "schedules": ["constant"]}
    command = {"name": "some_study", "command": ["python", "train.py", "--lr={lr}"]}
    own = {name: {"low": 1, "high": 8} for name in ("width", "depth", "heads", "layers")}
    trials = [
        replace(one, own_axes={name: Int(low=1, high=8) for name in own})
        for one in (flat(n, 1 + n) for n in range(6))
    ]
    for decay, fires in ((), False), (("{weight_decay}",), True):
        words = {**command, "command": [*command["command"], *decay]}
        found = advice_on(study(trials, spec_of(space=space, study=words, own=own)))
        assert ("few-trials" in found) is fires


# idle-device


def timed(seconds: dict[int, float], count: int = 3, lanes: int = 1) -> StudySummary:
    trials: list[TrialRecord] = []
    for batch, took in seconds.items():
        for _ in range(count):
            number = len(trials)
            record = trial(number, "adam", 1 + number, params={"batch_size": batch})
            attributes = {"steps": 40, "train_s": 40 * took, "lanes": lanes}
            trials.append(replace(record, attributes=attributes, evaluations={40: 1.0}))
    batches = {"batch_size": {"choices": list(seconds)}}
    return study(trials, spec_of(train=batches))


@pytest.mark.parametrize(
    ("summary", "fires"),
    [
        (timed({32: 0.01, 128: 0.011}), True),
        (timed({32: 0.01, 128: 0.03}), False),  # it is busy
        (timed({32: 0.01, 128: 0.011}, count=2), False),
        (timed({32: 0.01, 128: 0.011}, lanes=4), False),  # several trained as one
        (timed({32: 0.01}), False),
        (timed({32: 0.01, 128: 0.011, 512: 0.05}), False),  # busy with the largest
    ],
)
def test_a_larger_batch_that_takes_no_longer_asks_for_larger_ones(
    summary: StudySummary, fires: bool
) -> None:
    found = advice_on(summary)
    assert ("idle-device" in found) is fires
    if fires:
        assert typed(found["idle-device"].command).train.batch_size == Choice(
            choices=(128, 256, 512)
        )
        assert "3.6 times as many examples a second" in found["idle-device"].sentence


# no-effect


def searched(count: int, strength: float) -> StudySummary:
    axes = {"lr": LR, "eps": {"low": 1e-10, "high": 1e-6, "log": True}}
    generator = np.random.default_rng(0)
    trials = []
    for number in range(count):
        place, other, noise = (float(x) for x in generator.random(3))
        value = 1 + strength * (place - 0.5) ** 2 + 0.1 * noise
        params: dict[str, Any] = {"lr": 10 ** (3 * place - 4), "eps": 10 ** (4 * other - 10)}
        trials.append(flat(number, value, **params))
    return study(trials, spec_of(optimizer={"adam": axes}))


@pytest.mark.parametrize(
    ("count", "strength", "fires"), [(60, 10.0, True), (20, 10.0, False), (60, 0.0, False)]
)
def test_a_hyperparameter_that_does_not_matter_is_fixed(
    count: int, strength: float, fires: bool
) -> None:
    summary = searched(count, strength)
    found = advice_on(summary)
    assert ("no-effect" in found) is fires
    if fires:
        assert summary.best is not None
        again = typed(found["no-effect"].command)
        value = summary.best.record.proposal.params["adam.eps"]
        assert again.optimizer["adam"]["eps"] == Fixed(value=value)
        assert again.optimizer["adam"]["lr"] == Float(**LR)


def test_names_are_quoted_in_every_command() -> None:
    spec = make_spec(name="my study; rm -rf", space={"optimizers": ["adam"]},
                     optimizer={"adam": {"lr": LR}})  # fmt: skip
    summary = study([flat(n, 1 + n, lr=0.1) for n in range(20)], spec)
    for advice in advice_on(summary).values():
        assert any(word.startswith("my study; rm -rf") for word in shlex.split(advice.command))
