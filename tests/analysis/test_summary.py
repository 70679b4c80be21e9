from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.analysis.summary import StudySummary, best_of, summarize
from tuner.domain.catalog.dimensions import Value
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Decoder, Outcome, Proposal, TrialConfig, TrialRecord

OPTIMIZERS = ("sgd", "adam", "muon")


def make_spec(direction: str = "minimize", **tables: Any) -> StudySpec:
    tree: dict[str, Any] = {
        "study": {"name": "s", "workload": "models.digits:Digits", "direction": direction},
        "budget": {"trials": 20, "steps": 100},
        "space": {"optimizers": list(OPTIMIZERS), "breadth": 3},
    }
    return StudySpec.model_validate(tree | tables).resolve()


def trial(
    number: int,
    optimizer: str = "sgd",
    value: float | None = None,
    outcome: Outcome = Outcome.COMPLETE,
    preset: str | None = None,
    schedule: str = "constant",
    params: Mapping[str, Value] | None = None,
    **attributes: Any,
) -> TrialRecord:
    point = {"optimizer": optimizer, "schedule": schedule} | dict(params or {})
    return TrialRecord(number, outcome, Proposal(point, preset), value=value, attributes=attributes)


def summary_of(
    *records: TrialRecord, spec: StudySpec | None = None, wall_s: float = 10.0
) -> StudySummary:
    return summarize(
        "s", spec or make_spec(), records, storage="sqlite:///s.db", wall_s=wall_s, worker_s=20.0
    )


def edges_of(spec: StudySpec, params: Mapping[str, Value], schedule: str = "constant") -> set[str]:
    best = summary_of(trial(0, "adam", 0.5, schedule=schedule, params=params), spec=spec).best
    assert best is not None
    return set(best.edges)


@st.composite
def many_trials(draw: st.DrawFn) -> list[TrialRecord]:
    # Few different values and many complete trials, so that ties are common.
    values = st.sampled_from((0.0, 0.25, 0.5, -1.0))
    outcomes = st.just(Outcome.COMPLETE) | st.sampled_from(list(Outcome))
    records = []
    for number in range(draw(st.integers(0, 12))):
        outcome = draw(outcomes)
        value = draw(values) if outcome is Outcome.COMPLETE else draw(values | st.none())
        preset = draw(st.sampled_from((None, "default")))
        records.append(trial(number, draw(st.sampled_from(OPTIMIZERS)), value, outcome, preset))
    return draw(st.permutations(records))


def test_trials_are_counted_by_how_they_ended() -> None:
    summary = summary_of(
        trial(0, value=0.5),
        trial(1, value=0.4),
        trial(2, value=0.9, outcome=Outcome.PRUNED),
        trial(3, outcome=Outcome.DIVERGED),
        trial(4, outcome=Outcome.FAILED),
        trial(5, outcome=Outcome.RUNNING),
    )
    assert summary.counts == {
        "running": 1,
        "waiting": 0,
        "paused": 0,
        "complete": 2,
        "pruned": 1,
        "diverged": 1,
        "failed": 1,
    }
    assert summary.finished == 5


def test_the_smallest_value_is_best_where_less_is_better() -> None:
    summary = summary_of(trial(0, "sgd", 0.5), trial(1, "adam", 0.3), trial(2, "muon", 0.4))
    assert summary.best is not None
    assert summary.best.record.number == 1
    assert [row.optimizer for row in summary.optimizers] == ["adam", "muon", "sgd"]


def test_the_largest_value_is_best_where_more_is_better() -> None:
    records = (trial(0, "sgd", 0.5), trial(1, "adam", 0.3), trial(2, "muon", 0.4))
    summary = summary_of(*records, spec=make_spec("maximize"))
    assert summary.best is not None
    assert summary.best.record.number == 0
    assert [row.optimizer for row in summary.optimizers] == ["sgd", "muon", "adam"]


def test_only_complete_trials_can_be_best() -> None:
    summary = summary_of(
        trial(0, value=0.5),
        trial(1, value=0.1, outcome=Outcome.PRUNED),
        trial(2, value=0.01, outcome=Outcome.DIVERGED),
    )
    assert summary.best is not None
    assert summary.best.record.number == 0


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_among_equals_the_earliest_trial_is_best(direction: str) -> None:
    spec = make_spec(direction)
    records = [trial(n, value=0.5) for n in (3, 1, 2)]
    best = best_of(spec, records)
    assert best is not None
    assert best.number == 1


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_first_optimizer_is_that_of_the_best_trial_also_in_a_tie(direction: str) -> None:
    # sgd comes first in the space, but adam reached the value first.
    summary = summary_of(trial(0, "adam", 0.5), trial(1, "sgd", 0.5), spec=make_spec(direction))
    assert summary.best is not None
    assert summary.best.config.optimizer == "adam"
    assert summary.optimizers[0].optimizer == "adam"


@settings(max_examples=50)
@given(many_trials(), st.sampled_from(("minimize", "maximize")))
def test_a_summary_agrees_with_itself(records: list[TrialRecord], direction: str) -> None:
    summary = summary_of(*records, spec=make_spec(direction))
    assert sum(summary.counts.values()) == len(records)
    assert [r.number for r in summary.records] == list(range(len(records)))
    assert sum(row.trials for row in summary.optimizers) == len(records)
    for outcome in (Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED, Outcome.FAILED):
        rows = [getattr(row, outcome.value) for row in summary.optimizers]
        assert sum(rows) == summary.counts[outcome]

    complete = [r.value for r in records if r.outcome is Outcome.COMPLETE and r.value is not None]
    better = min if direction == "minimize" else max
    reached = [row.best_value for row in summary.optimizers if row.best_value is not None]
    if not complete:
        assert summary.best is None
        assert reached == []
        return
    assert summary.best is not None
    assert summary.best.record.value == reached[0] == better(complete)
    assert reached == sorted(reached, reverse=direction == "maximize")
    assert summary.optimizers[0].best_trial == summary.best.record.number


@settings(max_examples=50)
@given(many_trials())
def test_the_order_of_the_records_does_not_matter(records: list[TrialRecord]) -> None:
    assert summary_of(*records) == summary_of(*sorted(records, key=lambda r: r.number))


def test_an_optimizer_is_summed_up_with_its_best_trial_and_its_default() -> None:
    summary = summary_of(
        trial(0, "adam", 0.5, preset="default"),
        trial(1, "adam", 0.3, schedule="cosine"),
        trial(2, "adam", 0.4, outcome=Outcome.PRUNED),
        trial(3, "adam", outcome=Outcome.FAILED),
    )
    row = summary.optimizers[0]
    assert (row.optimizer, row.trials, row.complete, row.pruned) == ("adam", 4, 2, 1)
    assert (row.diverged, row.failed) == (0, 1)
    assert (row.best_value, row.best_trial, row.best_schedule) == (0.3, 1, "cosine")
    assert row.default_value == 0.5


def test_a_default_that_did_not_complete_has_no_value() -> None:
    summary = summary_of(
        trial(0, "adam", 0.5, outcome=Outcome.DIVERGED, preset="default"), trial(1, "adam", 0.3)
    )
    assert summary.optimizers[0].default_value is None


def test_optimizers_without_a_complete_trial_come_last_in_the_order_of_the_space() -> None:
    summary = summary_of(trial(0, "muon", 0.5), trial(1, "adam", outcome=Outcome.FAILED))
    assert [row.optimizer for row in summary.optimizers] == ["muon", "sgd", "adam"]
    assert [row.best_value for row in summary.optimizers] == [0.5, None, None]


def test_a_study_without_trials_has_a_summary() -> None:
    summary = summary_of(wall_s=0.0)
    assert summary.best is None
    assert summary.finished == summary.steps == 0
    assert set(summary.counts.values()) == {0}
    assert [row.trials for row in summary.optimizers] == [0, 0, 0]
    assert (summary.trials_per_hour, summary.steps_per_s) == (0.0, 0.0)


def test_a_study_of_failures_alone_has_a_summary() -> None:
    summary = summary_of(*(trial(n, outcome=Outcome.FAILED) for n in range(4)))
    assert summary.best is None
    assert summary.finished == summary.counts["failed"] == 4
    assert summary.optimizers[0].failed == 4


def test_the_best_trial_is_described_in_torch_s_form() -> None:
    params: dict[str, Value] = {
        "adam.lr": 0.01,
        "adam.one_minus_beta1": 0.25,
        "adam.use_weight_decay": False,
    }
    best = summary_of(trial(0, "adam", 0.5, params=params)).best
    assert best is not None
    assert best.config.optimizer_values["beta1"] == 0.75
    assert best.config.optimizer_values["weight_decay"] == 0.0
    assert best.config.batch_size == 128


@pytest.mark.parametrize(
    ("rate", "at_edge"),
    [(1e-4, True), (1.1e-4, True), (2e-4, False), (1e-3, False), (0.1, False), (0.3, True)],
)
def test_a_value_within_a_twentieth_of_its_log_range_s_end_is_at_its_edge(
    rate: float, at_edge: bool
) -> None:
    assert edges_of(make_spec(), {"adam.lr": rate}) == ({"adam.lr"} if at_edge else set())


@pytest.mark.parametrize(
    ("rate", "at_edge"), [(1.0, True), (1.4, True), (1.6, False), (10.4, False), (10.6, True)]
)
def test_the_edges_of_a_plain_range_are_measured_plainly(rate: float, at_edge: bool) -> None:
    spec = make_spec(optimizer={"adam": {"lr": {"low": 1.0, "high": 11.0}}})
    assert edges_of(spec, {"adam.lr": rate}) == ({"adam.lr"} if at_edge else set())


def test_edges_are_found_in_the_schedule_too() -> None:
    params: dict[str, Value] = {
        "adam.lr": 0.01,
        "step.gamma": 0.05,
        "step.period": 0.2,
        "step.warmup": 0.1,
    }
    spec = make_spec(space={"optimizers": ["adam"], "schedules": ["step"]})
    assert edges_of(spec, params, "step") == {"step.gamma"}


def test_choices_fixed_values_and_single_points_have_no_edge() -> None:
    spec = make_spec(
        optimizer={
            "adam": {
                "lr": {"low": 0.1, "high": 0.1},
                "eps": {"choices": [1e-8, 1e-6]},
                "beta1": 0.9,
            }
        }
    )
    assert edges_of(spec, {"adam.lr": 0.1, "adam.eps": 1e-8}) == set()


def test_a_default_has_no_edges() -> None:
    best = summary_of(trial(0, "adam", 0.5, preset="default")).best
    assert best is not None
    assert best.edges == ()


def test_costs_are_added_up_over_all_trials() -> None:
    summary = summary_of(
        trial(0, value=0.5, train_s=2.0, eval_s=0.5, steps=100),
        trial(1, outcome=Outcome.PRUNED, train_s=1.0, eval_s=0.5, steps=40),
        trial(2, outcome=Outcome.FAILED),
        trial(3, outcome=Outcome.RUNNING, steps=None),
    )
    assert (summary.training_s, summary.evaluation_s, summary.steps) == (3.0, 1.0, 140)
    assert summary.steps_per_s == 14.0
    assert summary.trials_per_hour == 3 * 360
    assert summary.overhead == pytest.approx(1 - 4 / 20)


def test_the_overhead_is_never_below_zero() -> None:
    assert summary_of(trial(0, value=0.5, train_s=50.0)).overhead == 0.0


def test_what_the_study_file_fixes_is_not_called_an_optimizer_s_own_default() -> None:
    def default_of(optimizer: dict[str, Any]) -> float | None:
        spec = make_spec(optimizer=optimizer)
        summary = summary_of(trial(0, "adam", 0.5, preset="default"), spec=spec)
        return next(o for o in summary.optimizers if o.optimizer == "adam").default_value

    assert default_of({}) == 0.5
    assert default_of({"adam": {"lr": 0.001}}) == 0.5
    assert default_of({"adam": {"lr": 0.02}}) is None


def test_configurations_that_ran_again_are_found_without_looking_closely_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates = [1e-3 * (1 + number / 300) for number in range(300)]
    records = [
        trial(number, "adam", 1.0, params={"adam.lr": rate}) for number, rate in enumerate(rates)
    ]
    records.append(trial(300, "adam", 0.5, params={"adam.lr": rates[7]}))
    records.append(trial(301, "sgd", 0.5, params={"sgd.lr": rates[9]}))
    records.append(trial(302, "adam", 0.5, preset="default"))  # which is the first of the rates
    records.append(trial(303, "adam", schedule="cosine", value=0.5, params={"adam.lr": rates[5]}))
    looked: list[Proposal] = []
    decode_one = Decoder.decode

    def note(decoder: Decoder, proposal: Proposal) -> TrialConfig:
        looked.append(proposal)
        return decode_one(decoder, proposal)

    summary = summary_of(*records)
    monkeypatch.setattr(Decoder, "decode", note)
    repeats = summary.repeats
    assert [[r.number for r in records] for records in repeats] == [[0, 302], [7, 300]]
    assert len(looked) < 10
