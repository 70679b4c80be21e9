"""Above a limit TPE learns from the trials that tell most; below, it is Optuna's own."""

from __future__ import annotations

import copy
import math
import random
import statistics
import warnings

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.search.studies import difficulty, make_spec, record_of, search
from tuner.domain.catalog.dimensions import Value
from tuner.domain.trials import Outcome, TrialRecord
from tuner.search import History, Proposer, informative
from tuner.search.batches import BatchSampler
from tuner.search.informative import choose

OPTIMIZERS = ("sgd", "adam", "muon")


def past(count: int, seed: int = 0) -> list[TrialRecord]:
    """Returns trials of all kinds, of which sgd has only the first few."""
    draw = random.Random(seed)  # noqa: S311 (no secret)
    records = []
    for number in range(count):
        name = draw.choice(OPTIMIZERS if number < 30 else OPTIMIZERS[1:])
        params: dict[str, Value] = {"optimizer": name, f"{name}.lr": 10 ** draw.uniform(-4, -1)}
        value, kind = draw.random(), draw.random()
        outcome = Outcome.COMPLETE if kind < 0.6 else Outcome.PRUNED
        if kind > 0.9:
            outcome, value = Outcome.DIVERGED, math.inf
        curve = {20: value, 40: value} if outcome is not Outcome.DIVERGED else {20: 1.0}
        told = None if outcome is Outcome.DIVERGED else value
        records.append(record_of(number, outcome, told, curve, params))
    return records


def frozen(records: list[TrialRecord]) -> list[FrozenTrial]:
    history = History(make_spec())
    history.add(records)
    return history.asked.get_trials(deepcopy=False)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_best_and_the_most_recent_are_chosen_and_some_of_each_optimizer(sign: float) -> None:
    trials = frozen(past(400))
    chosen = choose(trials, sign, 80)
    assert len(chosen) <= 80
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    best = sorted(complete, key=lambda trial: sign * (trial.value or 0.0))[:20]
    assert {trial.number for trial in best} <= chosen
    assert set(range(360, 400)) <= chosen
    own = [t.number for t in trials if t.params["optimizer"] == "sgd"]
    assert set(own[-6:]) <= chosen


@pytest.mark.parametrize(("first", "step"), [(61, 1), (100, 7), (70, 90)])
def test_it_makes_no_difference_when_trials_were_read(first: int, step: int) -> None:
    trials = frozen(past(300))

    def kept_of(some: list[FrozenTrial]) -> list[FrozenTrial]:
        chosen = choose(some, 1.0, 60)
        return [trial for place, trial in enumerate(some) if place in chosen]

    kept = kept_of(trials[:first])
    for place in range(first, len(trials), step):
        kept = kept_of([*kept, *trials[place : place + step]])
    assert kept == kept_of(trials)


def test_the_sampler_sees_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informative, "LIMIT", 80)
    late, early = Proposer(make_spec(), 0), Proposer(make_spec(), 0)
    for number, record in enumerate(past(400)):
        early.history.add([record])
        early.history.forget_least()
        learnt = learnt_by(early)
        assert learnt == list(range(number + 1)) if number < 80 else len(learnt) <= 80
    late.history.add(past(400))
    for number in range(400, 420):
        params = late.propose().params
        assert early.propose().params == params
        assert learnt_by(late) == learnt_by(early)
        for proposer in (late, early):
            proposer.history.add([record_of(number, value=0.5, params=params)])
    assert late.history.count == len(late.history.study.trials) == 420
    assert len(late.propose_many(8)) == 8


def learnt_by(proposer: Proposer) -> list[int]:
    """Returns the numbers of the trials that a sampler learns from."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = proposer.history.asked.get_trials(deepcopy=False, states=states)
    return [trial.number for trial in trials]


@pytest.mark.parametrize("seed", range(2))
def test_a_search_that_forgets_goes_on_improving(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(informative, "LIMIT", 100)
    values = search(Proposer(make_spec(), seed), 200)
    assert statistics.median(values[-50:]) < 0.5 * statistics.median(values[:100])


@pytest.mark.parametrize("seed", range(3))
def test_below_the_limit_every_draw_is_optuna_s(seed: int) -> None:
    """The same questions to Optuna's own sampler, over the same past."""
    spec = make_spec()
    ours = Proposer(spec, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        theirs = Proposer(spec, seed)
        plain = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
    assert isinstance(ours.history.asked.sampler, BatchSampler)
    theirs.history.asked.sampler = plain
    for number in range(60):
        trial = ours.propose()
        assert trial.params == theirs.propose().params
        value = difficulty(trial)
        pruned = number % 3 == 2
        outcome = Outcome.PRUNED if pruned else Outcome.COMPLETE
        curve = {20: value} if pruned else {20: value, 100: value}
        for proposer in (ours, theirs):
            proposer.history.add([record_of(number, outcome, value, curve, trial.params)])


def test_trials_are_taken_in_without_copying_what_hangs_on_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(value: object, memo: object = None) -> object:
        raise AssertionError("copied")

    monkeypatch.setattr(copy, "deepcopy", refuse)
    history = History(make_spec())
    history.add(past(20))
    assert history.count == 20


def test_a_trial_given_out_is_a_copy() -> None:
    history = History(make_spec())
    history.add(past(2))
    history.study.trials[0].params["optimizer"] = "other"
    assert history.study.trials[0].params["optimizer"] in OPTIMIZERS
