from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from tests.search.studies import make_spec, record_of
from tuner.domain.catalog.dimensions import Value
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord, progress_at
from tuner.errors import SpecError
from tuner.search import History, Pruner, needs_running
from tuner.search.median import STARTUP_TRIALS

STEPS = (20, 40, 60, 80, 100)
MAXIMIZE: dict[str, Any] = {"study": {"name": "s", "workload": "a:B", "direction": "maximize"}}
RUNNING = record_of(99, Outcome.RUNNING)
ENDED = (Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED, Outcome.FAILED)


def pruner_after(trials: int, spec: StudySpec | None = None, **tables: Any) -> Pruner:
    """Returns the pruner of a study with some trials complete, the n-th at a level of n."""
    spec = spec or make_spec(**tables)
    progress = [progress_at(spec, index, spec.budget.steps or 0) for index in range(1, 6)]
    history = History(spec)
    history.add(
        record_of(number, value=float(number), evaluations=dict.fromkeys(progress, float(number)))
        for number in range(trials)
    )
    return Pruner(spec, history)


def curve(level: float, points: int) -> dict[int, float]:
    return dict.fromkeys(STEPS[:points], level)


@pytest.mark.parametrize("points", [1, 2, 3, 4])
def test_a_trial_clearly_worse_than_the_others_is_stopped(points: int) -> None:
    assert pruner_after(STARTUP_TRIALS).should_prune(RUNNING, curve(100.0, points))


@pytest.mark.parametrize("points", [1, 2, 3, 4])
def test_a_trial_better_than_the_others_goes_on(points: int) -> None:
    assert not pruner_after(STARTUP_TRIALS).should_prune(RUNNING, curve(-1.0, points))


def test_the_bar_is_the_median() -> None:
    pruner = pruner_after(STARTUP_TRIALS)
    assert not pruner.should_prune(RUNNING, curve(2.0, 2))
    assert pruner.should_prune(RUNNING, curve(2.1, 2))


def test_where_more_is_better_the_lower_is_stopped() -> None:
    pruner = pruner_after(STARTUP_TRIALS, **MAXIMIZE)
    assert pruner.should_prune(RUNNING, curve(-1.0, 2))
    assert not pruner.should_prune(RUNNING, curve(100.0, 2))


def test_trials_that_have_reached_the_target_move_the_bar_at_later_points_too() -> None:
    spec = make_spec()
    history = History(spec)
    pruner = Pruner(spec, history)
    reached = {"reached": "val_loss 1"}
    history.add(
        replace(record_of(number, value=40.0, evaluations=curve(1.0, 2)), attributes=reached)
        for number in range(STARTUP_TRIALS)
    )
    running = record_of(9, Outcome.RUNNING)
    assert not pruner.should_prune(running, curve(0.9, 2))
    assert pruner.should_prune(running, curve(0.9, 3))


@pytest.mark.parametrize("points", range(1, 6))
def test_an_opening_is_stopped_as_any_other(points: int) -> None:
    opening = record_of(99, Outcome.RUNNING, preset="portfolio")
    assert pruner_after(20).should_prune(opening, curve(1e9, points))


@pytest.mark.parametrize("points", range(1, 6))
def test_a_default_is_never_stopped(points: int) -> None:
    default = record_of(99, Outcome.RUNNING, preset="default")
    assert not pruner_after(20).should_prune(default, curve(1e9, points))


def starting(optimizer: str, schedule: str = "constant", **values: Any) -> TrialRecord:
    params = {
        f"{optimizer}.{k}" if k == "window" else f"{schedule}.{k}": v for k, v in values.items()
    }
    return record_of(
        99, Outcome.RUNNING, params={"optimizer": optimizer, "schedule": schedule, **params}
    )


@pytest.mark.parametrize(
    ("trial", "start"),
    [
        (starting("sgd", "cosine", warmup=0.5), 500),
        (starting("sgd", "cosine", warmup=0.0), 0),
        (starting("yellowfin", window=10), 100),
        (starting("yellowfin", window=50), 500),
        (starting("yellowfin", "cosine", warmup=0.3, window=20), 300),
        (starting("lookahead(yellowfin)"), 200),
    ],
    ids=lambda value: value if isinstance(value, int) else value.optimizer,
)
@pytest.mark.parametrize("length", [{"steps": 1000}, {"epochs": 10}])
def test_nobody_is_stopped_while_it_warms_up_or_starts_slowly(
    trial: TrialRecord, start: int, length: dict[str, int]
) -> None:
    spec = make_spec(
        budget={"trials": 60, "evaluations": 10, **length},
        space={
            "optimizers": ["sgd", "yellowfin", "lookahead(yellowfin)"],
            "schedules": ["constant", "cosine"],
            "breadth": 3,
        },
        search={"pruner": "optuna.pruners:NopPruner"},
    )
    pruner = Pruner(spec, History(spec))
    pruner._pruner = Everyone()
    for evaluation in range(1, 11):
        evaluations = {progress_at(spec, index, 1000): 1.0 for index in range(1, evaluation + 1)}
        assert pruner.should_prune(trial, evaluations, 1000) is (100 * evaluation > start)


class Everyone(optuna.pruners.BasePruner):
    """Stops whomever it is asked about."""

    def prune(self, study: Any, trial: Any) -> bool:
        return True


def test_nobody_is_stopped_before_enough_trials_are_complete() -> None:
    assert not pruner_after(STARTUP_TRIALS - 1).should_prune(RUNNING, curve(100.0, 4))


def test_trials_that_did_not_complete_do_not_count() -> None:
    spec = make_spec()
    history = History(spec)
    endings = (Outcome.PRUNED, Outcome.DIVERGED, Outcome.FAILED, Outcome.RUNNING)
    history.add(record_of(n, endings[n % 4], evaluations=curve(0.0, 4)) for n in range(40))
    assert not Pruner(spec, history).should_prune(RUNNING, curve(100.0, 4))


@pytest.mark.parametrize(
    ("length", "first"), [({"steps": 100}, 20), ({"steps": 101}, 21), ({"epochs": 5}, 1)]
)
def test_a_trial_is_judged_from_its_first_evaluation_on(length: dict[str, int], first: int) -> None:
    spec = make_spec(budget={"trials": 60, "evaluations": 5, **length})
    pruner = pruner_after(20, spec)
    assert not pruner.should_prune(RUNNING, {})
    assert pruner.should_prune(RUNNING, {first: 1e9})


def test_without_a_pruner_nobody_is_stopped() -> None:
    pruner = pruner_after(20, search={"pruner": "none"})
    assert not pruner.should_prune(RUNNING, curve(1e9, 4))


@pytest.mark.parametrize("name", ["none", "median", "asha", "hyperband"])
def test_judging_a_cohort_leaves_the_history_as_it_was(name: str) -> None:
    pruner = pruner_after(6, search={"pruner": name})
    pruner.judge(lanes_of(range(9), 3))
    assert pruner._history.count == len(pruner._history.study.trials) == 6


def test_judging_a_trial_does_not_enter_it_into_the_history() -> None:
    spec = make_spec()
    history = History(spec)
    history.add(record_of(n, value=1.0, evaluations=curve(1.0, 5)) for n in range(6))
    Pruner(spec, history).should_prune(RUNNING, curve(100.0, 3))
    assert history.count == len(history.study.trials) == 6


def test_a_trial_that_finishes_later_moves_the_bar() -> None:
    spec = make_spec()
    history = History(spec)
    history.add(record_of(n, value=10.0, evaluations=curve(10.0, 5)) for n in range(5))
    pruner = Pruner(spec, history)
    assert not pruner.should_prune(RUNNING, curve(5.0, 2))
    history.add(record_of(n, value=1.0, evaluations=curve(1.0, 5)) for n in range(5, 15))
    assert pruner.should_prune(RUNNING, curve(5.0, 2))


def test_a_pruner_of_the_user_s_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mypruners.py").write_text(
        "import optuna\n\ndef build():\n    return optuna.pruners.ThresholdPruner(upper=1.0)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    pruner = pruner_after(0, search={"pruner": "mypruners:build"})
    assert pruner.should_prune(RUNNING, curve(1.1, 1))
    assert not pruner.should_prune(RUNNING, curve(0.9, 1))


def test_a_pruner_of_optuna_s_that_notes_its_rungs_judges() -> None:
    spec = make_spec(search={"pruner": "optuna.pruners:SuccessiveHalvingPruner"})
    history = History(spec)
    history.add(
        [record_of(9, value=5.0, evaluations=curve(5.0, 50))]
    )  # tells it how long trials are
    history.add(record_of(n, Outcome.RUNNING) for n in range(4))
    pruner = Pruner(spec, history)
    stopped = [
        pruner.should_prune(record_of(n, Outcome.RUNNING), {10: float(n), 50: float(n)})
        for n in range(4)
    ]
    assert stopped[0] is False
    assert stopped[-1] is True


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("optuna.pruners:PercentilePruner", "Name a callable that takes no arguments"),
        ("optuna.samplers:RandomSampler", "is no Optuna BasePruner"),
        ("optuna.pruners:Absent", "has no 'Absent'"),
    ],
)
def test_what_is_no_pruner_is_refused(name: str, said: str) -> None:
    with pytest.raises(SpecError, match=said) as refusal:
        pruner_after(0, search={"pruner": name})
    assert str(refusal.value).startswith("search.pruner")


@pytest.mark.parametrize(
    ("pruner", "expected"),
    [
        ("none", False),
        ("median", False),
        ("asha", True),
        ("hyperband", True),
        ("optuna.pruners:NopPruner", True),
    ],
)
def test_who_compares_running_trials_says_so(pruner: str, expected: bool) -> None:
    assert needs_running(make_spec(search={"pruner": pruner})) is expected


@pytest.mark.parametrize("complete", [0, 1, 2, 3])
@pytest.mark.parametrize("spare", [0, 2])
def test_an_optimizer_is_spared_until_as_many_of_its_trials_as_asked_are_complete(
    spare: int, complete: int
) -> None:
    pruner = pruner_after(20, search={"spare": spare})
    adam: dict[str, Value] = {"optimizer": "adam", "adam.lr": 0.1}
    pruner._history.add(
        record_of(n, value=9.0, evaluations=curve(9.0, 5), params=adam)
        for n in range(30, 30 + complete)
    )
    trial = record_of(99, Outcome.RUNNING, params=adam)
    assert pruner.should_prune(trial, curve(100.0, 3)) is (complete >= spare)


def test_unless_asked_no_optimizer_is_spared() -> None:
    trial = record_of(99, Outcome.RUNNING, params={"optimizer": "adam", "adam.lr": 0.1})
    assert pruner_after(20).should_prune(trial, curve(100.0, 1))


def lanes_of(
    levels: Sequence[float], points: int, own: Sequence[Mapping[str, Value]] = ()
) -> list[tuple[TrialRecord, dict[int, float]]]:
    """Returns a cohort of flat curves."""
    params = own or [{}] * len(levels)
    return [
        (record_of(100 + n, Outcome.RUNNING, params=params[n]), curve(level, points))
        for n, level in enumerate(levels)
    ]


@pytest.mark.parametrize("points", [1, 2, 3, 4])
def test_the_first_cohort_is_judged_without_a_past(points: int) -> None:
    stops = pruner_after(0).judge(lanes_of(range(9), points))
    assert [*map(bool, stops)] == [False] * 5 + [True] * 4


def test_those_left_of_a_cohort_are_halved_again() -> None:
    pruner, lanes = pruner_after(0), lanes_of(range(32), 1)
    left = list(range(32))
    for points in (1, 2, 3):
        lanes = [(r, curve(n, points if n in left else 1)) for n, (r, _) in enumerate(lanes)]
        left = [n for n, stop in enumerate(pruner.judge(lanes)) if n in left and not stop]
        assert left == list(range(32 >> points))


def test_a_cohort_also_meets_the_bar_of_the_past() -> None:
    lanes = lanes_of([2.5 + level for level in range(8)], 3)
    assert [*map(bool, pruner_after(0).judge(lanes))] == [False] * 4 + [True] * 4
    assert [*map(bool, pruner_after(5).judge(lanes))] == [False] * 2 + [True] * 6


@given(st.permutations(list(range(12))), st.sampled_from(["median", "asha", "hyperband"]))
def test_the_order_of_lanes_does_not_matter(order: list[int], name: str) -> None:
    pruner = pruner_after(7, search={"pruner": name})
    lanes = lanes_of([0.5 * level for level in range(12)], 3)
    stops = pruner.judge(lanes)
    assert pruner.judge([lanes[n] for n in order]) == [stops[n] for n in order]


@given(st.lists(st.integers(-5, 25), min_size=1, max_size=12), st.integers(0, 12))
def test_a_cohort_of_one_lane_is_a_trial_that_trains_alone(levels: list[int], past: int) -> None:
    pruner = pruner_after(past)
    for lane in lanes_of(levels, 3):
        assert [*map(bool, pruner.judge([lane]))] == [pruner.should_prune(*lane)]


@pytest.mark.parametrize(
    "name", ["median", "asha", "hyperband", "tests.search.test_pruner:Everyone"]
)
def test_lanes_that_are_over_and_defaults_are_not_stopped(name: str) -> None:
    lanes = lanes_of([9.0] * 12, 3)
    lanes[0] = record_of(0, Outcome.RUNNING, preset="default"), curve(1e9, 3)
    lanes[1] = lanes[1][0], curve(1e9, 2)
    lanes[2] = record_of(2, Outcome.DIVERGED), {}
    assert [*map(bool, pruner_after(0, search={"pruner": name}).judge(lanes)[:3])] == [False] * 3


@pytest.mark.parametrize("name", ["median", "asha", "hyperband"])
def test_nobody_is_judged_before_the_first_evaluation(name: str) -> None:
    lanes = lanes_of(range(20), 0)
    assert [*map(bool, pruner_after(9, search={"pruner": name}).judge(lanes))] == [False] * 20


def test_the_best_of_each_optimizer_go_on_until_as_many_as_asked_are_through() -> None:
    adam: dict[str, Value] = {"optimizer": "adam", "adam.lr": 0.1}
    lanes = lanes_of([*range(10), *range(100, 106)], 3, [*[{}] * 10, *[adam] * 6])
    pruner = pruner_after(0, search={"spare": 2})

    assert [*map(bool, pruner.judge(lanes)[10:])] == [False] * 2 + [True] * 4
    pruner._history.add([record_of(0, value=9.0, evaluations=curve(9.0, 5), params=adam)])
    assert [*map(bool, pruner.judge(lanes)[10:])] == [False] + [True] * 5


@pytest.mark.parametrize("outcome", [Outcome.RUNNING, Outcome.PRUNED, Outcome.COMPLETE])
def test_what_the_history_holds_of_the_lanes_themselves_does_not_count(outcome: Outcome) -> None:
    lanes = lanes_of([0.1 * n for n in range(9)], 3)
    for name in ("median", "asha"):
        pruner = pruner_after(7, search={"pruner": name})
        before = pruner.judge(lanes)
        pruner._history.add(
            record_of(record.number, outcome, value=-1.0, evaluations=curve(-1.0, 5))
            for record, _ in lanes
        )
        assert pruner.judge(lanes) == before


class BehindAnyone(optuna.pruners.BasePruner):
    """Stops whoever is behind a running trial."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        last = trial.intermediate_values[trial.last_step or 0]
        return any(other.intermediate_values[trial.last_step or 0] < last for other in running)


def test_a_pruner_of_the_user_s_sees_the_lanes_as_running_trials() -> None:
    pruner = pruner_after(0, search={"pruner": "tests.search.test_pruner:BehindAnyone"})
    assert [*map(bool, pruner.judge(lanes_of([3.0, 1.0, 2.0], 2)))] == [True, False, True]
    lanes = lanes_of([3.0, 1.0, 2.0], 3)
    lanes[1] = lanes[1][0], curve(1.0, 2)
    pruner._history.add([record_of(101, Outcome.PRUNED, 1.0, curve(1.0, 2))])
    assert [*map(bool, pruner.judge(lanes))] == [True, False, False]


@pytest.mark.parametrize("name", ["median", "asha", "hyperband"])
def test_a_pruner_looks_at_each_trial_of_the_past_once(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pruner = pruner_after(200, search={"pruner": name})
    looks = 0
    get = FrozenTrial.__getattribute__

    def count(trial: FrozenTrial, name: str) -> Any:
        nonlocal looks
        looks += name == "intermediate_values"
        return get(trial, name)

    monkeypatch.setattr(FrozenTrial, "__getattribute__", count)
    pruner.judge([(RUNNING, curve(50.0, 1))])
    assert looks >= 200
    looks = 0
    for level in (50.0, 150.0):
        pruner.judge([(RUNNING, curve(level, 1))])
    assert looks < 40


@pytest.mark.parametrize("name", ["median", "asha", "hyperband"])
@given(data=st.data())
def test_what_a_pruner_has_learnt_makes_no_difference(name: str, data: st.DataObject) -> None:
    """One that has judged all along judges as one that hears of the same past at once."""
    spec = make_spec(search={"pruner": name})
    along, records = Pruner(spec, History(spec)), list[TrialRecord]()
    numbers = st.integers(0, 12)
    for _ in range(data.draw(st.integers(1, 12))):
        outcome = data.draw(st.sampled_from([Outcome.RUNNING, *ENDED]))
        points = data.draw(st.integers(0, 5))
        level = float(data.draw(st.integers(0, 4)))
        record = record_of(data.draw(numbers), outcome, level, curve(level, points))
        records.append(record)
        along._history.add([record])
        lanes = [
            (record_of(number, Outcome.RUNNING), curve(float(number % 5), points))
            for number in data.draw(st.lists(numbers, min_size=1, max_size=4, unique=True))
        ]
        late = Pruner(spec, History(spec))
        late._history.add(records)
        assert along.judge(lanes) == late.judge(lanes)
