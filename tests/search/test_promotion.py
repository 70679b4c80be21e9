from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search.studies import make_spec, record_of
from tuner.domain.catalog.dimensions import Value
from tuner.domain.trials import Outcome, TrialRecord
from tuner.search import History, Pruner, Verdict, needs_running
from tuner.search.promotion import pausing_rungs
from tuner.search.pruner import LEAST_STEPS

RUNGS = pausing_rungs(10)
FIRST, SECOND = RUNGS
FULL = 10
STEPS = {index: 10 * index for index in range(1, FULL + 1)}
LEVELS = st.lists(st.integers(-1000, 1000), min_size=1, max_size=24, unique=True)
GO_ON, STOP, PAUSE = Verdict.GO_ON, Verdict.STOP, Verdict.PAUSE


def pruner_of(
    records: Iterable[TrialRecord] = (), direction: str = "minimize", pruner: str = "halving"
) -> Pruner:
    spec = make_spec(
        study={"name": "s", "workload": "a:B", "direction": direction},
        budget={"trials": 60, "steps": 10 * FULL, "evaluations": FULL},
        search={"pruner": pruner},
    )
    history = History(spec)
    history.add(records)
    return Pruner(spec, history)


def at(
    number: int,
    level: float,
    points: int,
    outcome: Outcome = Outcome.RUNNING,
    preset: str | None = None,
) -> TrialRecord:
    """Returns a trial with a flat curve of some points."""
    return record_of(number, outcome, level, curve(level, points), preset=preset)


def curve(level: float, points: int) -> dict[int, float]:
    return {STEPS[index]: level for index in range(1, points + 1)}


def judge(pruner: Pruner, *records: TrialRecord) -> list[Verdict]:
    return pruner.judge([(record, record.evaluations) for record in records])


def test_it_looks_at_trials_elsewhere_and_pauses() -> None:
    assert needs_running(make_spec(search={"pruner": "halving"}))
    assert pruner_of().pauses
    assert not pruner_of(pruner="asha").pauses


@given(LEVELS, st.sampled_from(RUNGS))
def test_all_but_the_best_third_pause_at_a_rung(levels: list[float], rung: int) -> None:
    lanes = [at(number, level, rung) for number, level in enumerate(levels)]
    best = sorted(levels)[: max(1, len(levels) // 3)]
    verdicts = judge(pruner_of(), *lanes)
    assert verdicts == [GO_ON if level in best else PAUSE for level in levels]


@given(LEVELS, st.sampled_from(RUNGS))
def test_it_makes_no_difference_whether_the_others_are_lanes_or_train_elsewhere(
    levels: list[float], rung: int
) -> None:
    lanes = [at(number, level, rung) for number, level in enumerate(levels)]
    pruner = pruner_of(lanes)
    assert [judge(pruner, lane)[0] for lane in lanes] == judge(pruner_of(), *lanes)


@given(LEVELS, st.sampled_from(RUNGS))
def test_whoever_would_go_on_now_is_promotable_the_best_first(
    levels: list[float], rung: int
) -> None:
    paused = [at(number, level, rung) for number, level in enumerate(levels)]
    pruner = pruner_of(paused)
    best = sorted(range(len(levels)), key=levels.__getitem__)[: max(1, len(levels) // 3)]
    assert pruner.find_promotable(dict.fromkeys(range(len(levels)), STEPS[rung])) == best


@pytest.mark.parametrize("points", sorted({*range(1, FULL)} - {*RUNGS}))
def test_between_rungs_nobody_pauses(points: int) -> None:
    assert judge(pruner_of(), *(at(n, float(n), points) for n in range(9))) == [GO_ON] * 9


def test_the_best_so_far_goes_on_however_few_there_are() -> None:
    assert judge(pruner_of(), at(0, 1.0, FIRST)) == [GO_ON]
    assert judge(pruner_of([at(0, 1.0, FIRST)]), at(1, 0.0, FIRST)) == [GO_ON]
    assert judge(pruner_of([at(0, 1.0, FIRST)]), at(1, 2.0, FIRST)) == [PAUSE]
    assert judge(pruner_of([at(0, 1.0, FIRST), at(1, 0.5, FIRST)]), at(2, 0.0, FIRST)) == [GO_ON]


def test_level_trials_go_on_together() -> None:
    paused = [at(0, 1.0, FIRST), at(1, 1.0, FIRST), at(2, 2.0, FIRST)]
    assert judge(pruner_of(), *paused) == [GO_ON, GO_ON, PAUSE]
    assert pruner_of(paused).find_promotable(dict.fromkeys(range(3), STEPS[FIRST])) == [0, 1]


def test_the_furthest_are_promoted_first() -> None:
    low = [at(number, float(number), 1) for number in range(3, 9)]
    high = [at(number, 10.0 + number, SECOND) for number in range(3)]
    pruner = pruner_of([*low, *high])
    paused = {record.number: max(record.evaluations) for record in [*low, *high]}
    assert pruner.find_promotable(paused) == [0, 3, 4, 5]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_whoever_went_on_or_ended_still_takes_its_place(direction: str) -> None:
    sign = 1.0 if direction == "minimize" else -1.0
    ahead = [at(0, sign * 0.0, FIRST + 1), at(1, sign * 1.0, FULL, Outcome.COMPLETE)]
    paused = [at(number, sign * number, FIRST) for number in range(2, 8)]
    pruner = pruner_of([*ahead, *paused], direction)
    assert pruner.find_promotable(dict.fromkeys(range(2, 8), STEPS[FIRST])) == []
    pruner._history.add([at(8, sign * 8.0, FIRST)])
    assert pruner.find_promotable(dict.fromkeys(range(2, 8), STEPS[FIRST])) == [2]


def test_diverged_trials_are_the_worst_at_every_rung_and_failed_ones_do_not_count() -> None:
    paused = {0: STEPS[FIRST]}
    pruner = pruner_of([at(0, 5.0, FIRST), at(20, 1.0, FIRST + 1)])
    pruner._history.add(at(n, 9.0, FIRST, Outcome.FAILED) for n in range(1, 9))
    assert pruner.find_promotable(paused) == []
    pruner._history.add(record_of(n, Outcome.DIVERGED) for n in range(9, 13))
    assert pruner.find_promotable(paused) == [0]


def test_defaults_are_no_rivals_and_never_pause() -> None:
    pruner = pruner_of([at(0, 0.0, FIRST, preset="default"), at(1, 9.0, FIRST)])
    assert judge(pruner, at(2, 1.0, FIRST)) == [GO_ON]
    assert judge(pruner, at(2, 10.0, FIRST)) == [PAUSE]
    assert judge(pruner, at(2, 99.0, FIRST, preset="default")) == [GO_ON]


def test_nobody_pauses_while_its_learning_rate_warms_up() -> None:
    warming: dict[str, Value] = {"schedule": "cosine", "cosine.warmup": 0.2}
    record = record_of(0, Outcome.RUNNING, None, curve(1.0, FIRST), warming)
    assert judge(pruner_of(), record) == [GO_ON]


def test_nobody_pauses_in_the_first_steps() -> None:
    spec = make_spec(
        budget={"trials": 60, "steps": 2 * FULL, "evaluations": FULL}, search={"pruner": "halving"}
    )

    def came(number: int, level: float, points: int) -> TrialRecord:
        evaluations = {2 * index: level for index in range(1, points + 1)}
        return record_of(number, Outcome.RUNNING, level, evaluations)

    history = History(spec)
    history.add([came(0, 0.0, SECOND)])
    pruner = Pruner(spec, history)
    assert 2 * FIRST < LEAST_STEPS <= 2 * SECOND
    assert judge(pruner, came(1, 9.0, FIRST)) == [GO_ON]
    assert judge(pruner, came(1, 9.0, SECOND)) == [PAUSE]


def test_a_trial_that_starts_over_stands_where_it_has_paused_again() -> None:
    # Its earlier attempt had come further, and the database still says so.
    others = [at(number, float(number), FIRST) for number in range(1, 6)]
    pruner = pruner_of([at(0, 0.0, SECOND), at(6, -1.0, SECOND), *others])
    assert pruner.find_promotable({0: STEPS[FIRST]}) == [0]
    assert pruner.find_promotable({0: STEPS[SECOND]}) == []


def test_a_paused_trial_that_has_not_been_heard_of_waits() -> None:
    assert pruner_of([at(0, 1.0, FIRST)]).find_promotable({7: 10}) == []


@pytest.mark.parametrize("pruner", ["asha", "hyperband", "median", "none"])
def test_pruners_that_stop_trials_promote_none(pruner: str) -> None:
    found = pruner_of([at(n, float(n), 1) for n in range(9)], pruner=pruner)
    assert found.find_promotable(dict.fromkeys(range(9), STEPS[FIRST])) == []


class Halving:
    """A study in which workers halve, each by what it has heard of the others' trials."""

    def __init__(self, levels: list[float], workers: int, random: Random) -> None:
        self.levels, self._random = levels, random
        self.points = [0] * len(levels)
        self.paused: dict[int, int] = {}
        self.ended: list[int] = []
        self._waiting = list(range(len(levels)))
        self._training: dict[int, int] = {}
        self._pruners = [pruner_of() for _ in range(workers)]
        self._heard: list[set[int]] = [set() for _ in range(workers)]

    def _catch_up(self, worker: int) -> Pruner:
        """Tells a worker the news; it hears once that a trial has ended."""
        heard = self._heard[worker]
        self._pruners[worker]._history.add(
            at(n, self.levels[n], p, Outcome.COMPLETE if n in self.ended else Outcome.RUNNING)
            for n, p in enumerate(self.points)
            if p and n not in heard
        )
        heard.update(self.ended)
        return self._pruners[worker]

    def run(self) -> None:
        """Has workers work in any order until each finds nothing to do."""
        idle: set[int] = set()
        while len(idle) < len(self._pruners):
            worker = self._random.randrange(len(self._pruners))
            (idle.discard if self._work(worker) else idle.add)(worker)

    def _work(self, worker: int) -> bool:
        if worker not in self._training:
            ready = self._catch_up(worker).find_promotable(self.paused)
            if ready:
                self.check_rank(ready[0])
                del self.paused[ready[0]]
            elif not self._waiting:
                return False
            self._training[worker] = ready[0] if ready else self._waiting.pop(0)
        number = self._training[worker]
        self.points[number] += 1
        if self.points[number] == FULL:
            self.ended.append(number)
        else:
            pruner = self._catch_up(worker)
            [verdict] = judge(pruner, at(number, self.levels[number], self.points[number]))
            if verdict is GO_ON:
                if self.points[number] in RUNGS:
                    self.check_rank(number)
                return True
            self.paused[number] = STEPS[self.points[number]]
        del self._training[worker]
        return True

    def check_rank(self, number: int) -> None:
        """Checks that a trial which goes on is among the best third at its rung."""
        rung = self.points[number]
        came = [level for level, p in zip(self.levels, self.points, strict=True) if p >= rung]
        better = sum(level < self.levels[number] for level in came)
        assert better < max(1, len(came) // 3)


@given(LEVELS, st.integers(1, 5), st.randoms())
def test_however_trials_are_spread_over_workers_the_best_third_goes_on_and_each_ends_once(
    levels: list[float], workers: int, random: Random
) -> None:
    study = Halving(levels, workers, random)
    study.run()
    assert sorted([*study.paused, *study.ended]) == list(range(len(levels)))
    for rung in RUNGS:
        came = [n for n, points in enumerate(study.points) if points >= rung]
        best = sorted(came, key=levels.__getitem__)[: max(1, len(came) // 3)]
        assert all(study.points[number] > rung for number in best)
    assert all(points in (*RUNGS, FULL) for points in study.points)


def test_of_many_trials_in_any_order_about_a_third_goes_on_at_each_rung() -> None:
    levels = Random(1).sample(range(10_000), 81)  # noqa: S311
    study = Halving([float(level) for level in levels], 4, Random(2))  # noqa: S311
    study.run()
    for rung in RUNGS:
        came = sum(points >= rung for points in study.points)
        on = sum(points > rung for points in study.points)
        # Some went on that were among the best of those that had come when they did.
        assert came // 3 <= on <= came // 3 + math.ceil(4 * math.sqrt(came))


def last_of(records: list[TrialRecord], spare: int) -> list[int]:
    spec = make_spec(
        budget={"trials": 60, "steps": 10 * FULL, "evaluations": FULL},
        search={"pruner": "halving", "spare": spare},
    )
    history = History(spec)
    history.add(records)
    paused = {r.number: max(r.evaluations) for r in records if r.outcome is Outcome.RUNNING}
    return Pruner(spec, history).find_last(paused)


def of(optimizer: str, record: TrialRecord) -> TrialRecord:
    params: dict[str, Value] = {
        "optimizer": optimizer,
        "schedule": "constant",
        f"{optimizer}.lr": 0.1,
    }
    return record_of(record.number, record.outcome, record.value, record.evaluations, params)


@pytest.mark.parametrize(
    ("spare", "expected"), [(0, [1]), (1, [4, 1, 2]), (2, [4, 1, 2, 3]), (9, [4, 1, 2, 3, 5])]
)
def test_at_the_end_the_furthest_and_best_of_each_optimizer_go_on_until_it_has_enough(
    spare: int, expected: list[int]
) -> None:
    trials = [
        of("adam", at(0, 0.0, FULL, Outcome.COMPLETE)),
        of("adam", at(1, 3.0, FIRST)),
        of("sgd", at(2, 5.0, FIRST)),
        of("sgd", at(3, 6.0, FIRST)),
        of("muon", at(4, 9.0, SECOND)),
        of("adam", at(5, 7.0, FIRST)),
    ]
    assert last_of(trials, spare) == expected


def test_at_the_end_of_a_study_of_few_trials_the_best_goes_on_whoever_is_spared() -> None:
    assert last_of([at(0, 2.0, FIRST), at(1, 1.0, FIRST)], 0) == [1]
    assert last_of([at(0, 2.0, SECOND), at(1, 3.0, FIRST)], 0) == [0]


@pytest.mark.parametrize(("came", "on"), [(3, 1), (4, 2), (6, 2), (7, 3)])
def test_at_the_end_the_best_third_is_rounded_up(came: int, on: int) -> None:
    trials = [at(number, float(number), FIRST) for number in range(came)]
    assert last_of(trials, 0) == list(range(on))


def test_a_closing_lets_nobody_go_on_who_would_not_have() -> None:
    trials = [at(number, float(number), FIRST) for number in range(6)]
    closing = at(6, 9.0, FULL, Outcome.COMPLETE, preset="default")
    assert last_of([*trials, closing], 0) == last_of(trials, 0)
