from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import ks_2samp

from tests.search.studies import difficulty, make_spec, record_of, search
from tuner.domain.catalog.dimensions import Choice, Fixed, Value
from tuner.domain.catalog.schedules import USUAL_SCHEDULES
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, Proposal, TrialRecord, decode, default_proposals
from tuner.search import Proposer
from tuner.search.batches import _sample
from tuner.search.portfolio import Entry, fit_portfolio, load_portfolio

both_samplers = pytest.mark.parametrize("sampler", ["tpe", "random"])


def spec_with(sampler: str, **tables: Any) -> StudySpec:
    return make_spec(search={"sampler": sampler}, **tables)


def propose(spec: StudySpec, seed: int, trials: int) -> list[dict[str, Any]]:
    proposer, drawn = Proposer(spec, seed), []
    for number in range(trials):
        trial = proposer.propose()
        drawn.append(trial.params)
        value = float(sum(v for v in trial.params.values() if isinstance(v, float)))
        proposer.history.add([record_of(number, value=value, params=trial.params)])
    return drawn


def check_point(spec: StudySpec, params: dict[str, Any]) -> None:
    """Checks a point against the space: its values, and that its conditions hold."""
    tables = {"optimizer": spec.optimizer, "schedule": spec.schedule}
    expected = {"optimizer", "schedule"}
    for table, branches in tables.items():
        branch = params[table]
        for key, axis in branches[branch].items():
            name = f"{branch}.{key}"
            if isinstance(axis, Fixed) or params.get(f"{branch}.use_{key}") is False:
                continue
            expected.add(name)
            if isinstance(axis, Choice):
                assert params[name] in axis.choices
            else:
                assert axis.low <= params[name] <= axis.high
    assert params.keys() == expected


@both_samplers
def test_the_same_seed_proposes_the_same_trials(sampler: str) -> None:
    spec = spec_with(sampler)
    assert propose(spec, 7, 16) == propose(spec, 7, 16)


@both_samplers
def test_another_seed_proposes_other_trials(sampler: str) -> None:
    spec = spec_with(sampler)
    assert propose(spec, 7, 3) != propose(spec, 8, 3)


@both_samplers
def test_a_seed_may_be_as_large_as_derived_ones_are(sampler: str) -> None:
    spec = spec_with(sampler)
    assert propose(spec, 2**63 - 1, 2) == propose(spec, 2**63 - 1, 2)


@both_samplers
@pytest.mark.parametrize("breadth", [1, 2, 3])
def test_proposals_stay_within_their_ranges_and_follow_the_conditions(
    sampler: str, breadth: int
) -> None:
    space = {"optimizers": ["sgd", "adam", "muon"], "breadth": breadth}
    spec = spec_with(sampler, space=space)
    for params in propose(spec, 1, 30):
        check_point(spec, params)


def test_every_optimizer_and_schedule_is_proposed() -> None:
    drawn = propose(spec_with("random"), 0, 40)
    assert {params["optimizer"] for params in drawn} == {"sgd", "adam", "muon"}
    assert {params["schedule"] for params in drawn} == set(USUAL_SCHEDULES)


@both_samplers
def test_a_proposal_is_a_trial_to_start_with_its_settings_attached(sampler: str) -> None:
    trial: FrozenTrial = Proposer(spec_with(sampler), 0).propose()
    assert trial.state == TrialState.RUNNING
    assert trial.params.keys() == trial.distributions.keys()
    assert trial.user_attrs["config"]["batch_size"] == 128
    assert "preset" not in trial.user_attrs


def test_openings_come_with_their_settings_and_their_mark(portfolio: Sequence[Entry]) -> None:
    spec = make_spec()
    trials = Proposer(spec, 0).openings()
    assert [trial.params for trial in trials] == fit_portfolio(spec, portfolio)
    assert [trial.params["optimizer"] for trial in trials] == ["sgd", "adam", "sgd"]
    assert {trial.user_attrs["preset"] for trial in trials} == {"portfolio"}
    config = {
        "lr": 0.01,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "weight_decay": 1e-5,
        "linear.warmup": 0.1,
        "linear.final_ratio": 0.01,
        "batch_size": 128,
    }
    assert trials[1].user_attrs["config"] == pytest.approx(config)
    for trial in trials:
        check_point(spec, trial.params)


def test_a_study_that_wants_no_portfolio_opens_with_none_of_it(portfolio: object) -> None:
    proposer = Proposer(make_spec(search={"portfolio": False}), 0)
    assert proposer.openings() == []
    assert not any(
        point in proposer.history.tried for point in fit_portfolio(proposer.spec, load_portfolio())
    )


def test_what_a_study_opens_with_is_proposed_by_nobody(portfolio: object) -> None:
    proposer = Proposer(make_spec(), 0)
    assert all(trial.params in proposer.history.tried for trial in proposer.openings())


def test_a_study_closes_with_the_defaults_of_the_optimizer_that_leads() -> None:
    proposer = Proposer(make_spec(), 0)
    for number, (optimizer, value) in enumerate([("sgd", 2.0), ("adam", 1.0), ("muon", 3.0)]):
        params: dict[str, Value] = {"optimizer": optimizer}
        proposer.history.add([record_of(number, value=value, params=params)])
    closing = proposer.closing()
    assert closing is not None
    assert closing.params == {"optimizer": "adam", "schedule": "constant"}
    assert closing.user_attrs["preset"] == "default"
    assert closing.user_attrs["config"] == {
        "lr": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "constant.warmup": 0.0,
        "batch_size": 128,
    }


def test_what_did_not_complete_does_not_lead() -> None:
    proposer = Proposer(make_spec(), 0)
    endings = (Outcome.RUNNING, Outcome.PRUNED, Outcome.DIVERGED, Outcome.FAILED)
    proposer.history.add(record_of(n, endings[n], 0.1, {20: 0.1}) for n in range(4))
    assert proposer.closing() is None


@pytest.mark.parametrize(("trials", "closes"), [(9, False), (10, True)])
def test_a_study_of_few_trials_spends_none_on_defaults(trials: int, closes: bool) -> None:
    proposer = Proposer(make_spec(budget={"trials": trials, "steps": 100}), 0)
    proposer.history.add([record_of(0, value=1.0)])
    assert (proposer.closing() is not None) is closes


def test_asking_leaves_no_trial_behind_that_counts() -> None:
    proposer = Proposer(make_spec(), 0)
    for _ in range(3):
        proposer.propose()
    assert proposer.history.count == 0
    assert proposer.history.study.trials == []
    proposer.propose()
    [last] = proposer.history.asked.trials
    assert last.state == TrialState.RUNNING


@pytest.mark.parametrize("all_diverged", [False, True])
def test_diverged_and_failed_trials_do_not_break_tpe(all_diverged: bool) -> None:
    spec = spec_with("tpe")
    proposer = Proposer(spec, 0)
    for number in range(30):
        params = proposer.propose().params
        check_point(spec, params)
        kind = 0 if all_diverged else number % 4
        record = (
            record_of(number, Outcome.DIVERGED, params=params),
            record_of(number, Outcome.DIVERGED, 0.5, {20: 0.5}, params=params),
            record_of(number, Outcome.FAILED, params=params),
            record_of(number, Outcome.COMPLETE, 0.5, {20: 0.5}, params=params),
        )[kind]
        proposer.history.add([record_of(number, Outcome.RUNNING, params=params)])
        proposer.history.add([record])
    check_point(spec, proposer.propose().params)


def test_default_trials_do_not_break_tpe() -> None:
    # A default has no lr among its parameters: torch's own may lie outside the range.
    spec = spec_with("tpe")
    proposer = Proposer(spec, 0)
    for number, proposal in enumerate(default_proposals(spec) * 5):
        record = TrialRecord(number, Outcome.COMPLETE, proposal, value=1.0)
        proposer.history.add([record])
    check_point(spec, proposer.propose().params)


def test_tpe_turns_away_from_what_diverges_after_a_good_start() -> None:
    spec = spec_with("tpe", space={"optimizers": ["sgd"], "schedules": ["constant"], "breadth": 1})
    proposer = Proposer(spec, 0)
    diverged = []
    for number in range(60):
        params = proposer.propose().params
        rate = params["sgd.lr"]
        diverged.append(rate > 0.1)
        proposer.history.add([record_of(number, Outcome.RUNNING, params=params)])
        if diverged[-1]:
            record = record_of(number, Outcome.DIVERGED, evaluations={20: 1e-9}, params=params)
        else:
            value = abs(math.log10(rate) + 2)
            record = record_of(number, Outcome.COMPLETE, value, {20: 1.0, 100: value}, params)
        proposer.history.add([record])
    assert sum(diverged[-20:]) < sum(diverged[:20])


def test_tpe_searches_better_than_chance() -> None:
    ends: dict[str, list[float]] = {"tpe": [], "random": []}
    for sampler, found in ends.items():
        for seed in range(3):
            values = search(Proposer(spec_with(sampler), seed), 50)
            found.append(statistics.mean(values[-15:]))
    assert statistics.mean(ends["tpe"]) < 0.5 * statistics.mean(ends["random"])


@both_samplers
def test_a_cohort_is_proposed_within_the_space(sampler: str) -> None:
    spec = spec_with(sampler)
    proposer = Proposer(spec, 3)
    search(proposer, 30)

    cohort = proposer.propose_many(40)

    assert len({str(sorted(trial.params.items())) for trial in cohort}) == 40
    for trial in cohort:
        check_point(spec, trial.params)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp", "optuna.samplers:RandomSampler"])
def test_a_cohort_can_train_together_and_its_trials_differ(sampler: str) -> None:
    spec = spec_with(
        sampler,
        space={"optimizers": ["sgd"], "schedules": ["constant"], "breadth": 1},
        train={"batch_size": {"choices": [32, 64, 128]}},
    )
    proposer = Proposer(spec, 3)
    search(proposer, 12)

    for _ in range(2):
        cohort = proposer.propose_many(4)
        assert len({t.params["sgd.lr"] for t in cohort}) == len(cohort) == 4
        assert len({decode(spec, Proposal(t.params)).fuse_key for t in cohort}) == 1


def test_cohorts_have_the_batch_size_that_is_drawn_first() -> None:
    spec = spec_with("random", train={"batch_size": {"choices": [32, 64, 128]}})
    proposer = Proposer(spec, 3)
    drawn = [proposer.propose_many(3)[2].params["batch_size"] for _ in range(12)]
    assert set(drawn) == {32, 64, 128}


def test_a_company_that_is_hardly_drawn_again_leaves_a_smaller_cohort() -> None:
    spec = spec_with("random", train={"batch_size": {"choices": list(range(1, 2001))}})

    cohort = Proposer(spec, 3).propose_many(4)

    assert 1 <= len(cohort) < 4


def test_draws_of_a_cohort_are_distributed_as_those_of_optuna() -> None:
    space = {
        "rate": FloatDistribution(1e-4, 1.0, log=True),
        "momentum": FloatDistribution(0.0, 0.99),
        "layers": IntDistribution(1, 40, log=True),
        "width": IntDistribution(1, 9),
        "kind": CategoricalDistribution(("a", "b", "c")),
    }
    rng = np.random.RandomState(0)
    seen = {
        "rate": 10 ** (-4 * rng.rand(12)),
        "momentum": rng.rand(12),
        "layers": rng.randint(1, 41, 12),
        "width": rng.randint(1, 10, 12),
        "kind": rng.randint(0, 3, 12),
    }
    parameters = _ParzenEstimatorParameters(1.0, True, False, default_weights, True)
    theirs = _ParzenEstimator(seen, space, parameters)
    count = 4000
    drawn = theirs.sample(rng, count)

    ours = _sample(theirs._mixture_distribution, rng, count)

    for column, name in zip(ours.T, space, strict=True):
        assert ks_2samp(column, drawn[name]).pvalue > 1e-3


def test_one_trial_can_be_proposed_where_many_can() -> None:
    assert len(Proposer(spec_with("tpe"), 0).propose_many(1)) == 1
    assert len(Proposer(spec_with("random"), 0).propose_many(1)) == 1


def test_asking_for_a_cohort_leaves_no_question_open() -> None:
    proposer = Proposer(spec_with("random"), 0)
    proposer.propose_many(5)
    proposer.propose()
    [last] = proposer.history.asked.trials
    assert last.state == TrialState.RUNNING


def test_a_cohort_learns_from_the_past() -> None:
    spec = make_spec()
    first, later = Proposer(spec, 3), Proposer(spec, 3)
    learnt = search(later, 80)

    blind = [difficulty(trial) for trial in first.propose_many(60)]
    cohort = [difficulty(trial) for trial in later.propose_many(60)]

    assert len(learnt) == 80
    assert statistics.median(cohort) < 0.5 * statistics.median(blind)


def test_lanes_of_a_cohort_keep_further_apart_than_draws_that_know_nothing_of_each_other() -> None:
    spec = make_spec(space={"optimizers": ["adam"], "schedules": ["cosine"], "breadth": 1})

    def gap(rates: list[float]) -> float:
        ordered = np.sort(np.log10(rates))
        return float(np.median(np.diff(ordered)))

    together, apart = [], []
    for seed in range(6):
        proposer = Proposer(spec, seed)
        search(proposer, 30)
        together.append(gap([t.params["adam.lr"] for t in proposer.propose_many(24)]))
        drawn = [proposer.propose_many(1)[0] for _ in range(24)]
        apart.append(gap([t.params["adam.lr"] for t in drawn]))
    assert statistics.mean(together) > 2 * statistics.mean(apart)


def test_the_same_seed_proposes_the_same_cohort() -> None:
    def cohort() -> list[dict[str, Any]]:
        proposer = Proposer(make_spec(), 5)
        search(proposer, 20)
        return [trial.params for trial in proposer.propose_many(20)]

    assert cohort() == cohort()
