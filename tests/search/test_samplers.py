from __future__ import annotations

import dataclasses
import json
import math
import pickle
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from scipy.stats.qmc import discrepancy

from tests.search.studies import make_spec, record_of
from tuner.domain.catalog.dimensions import Float
from tuner.domain.samplers import SAMPLERS
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord, default_proposals
from tuner.errors import ExhaustedError, SpecError
from tuner.search import History, Proposer, build_sampler
from tuner.search.distributions import joint_space
from tuner.search.samplers import capped_costs, ranks
from tuner.search.unit_cube import UnitCube

RATE, MOMENTUM = "momentum.lr", "momentum.one_minus_momentum"
AXES = {
    "lr": {"low": 1e-4, "high": 1.0, "log": True},
    "one_minus_momentum": {"low": 0.01, "high": 1.0, "log": True},
}
JOINT_SAMPLERS = [row.name for row in SAMPLERS.values() if row.joint]
joint_samplers = pytest.mark.parametrize("sampler", JOINT_SAMPLERS)


def joint_spec(sampler: str, direction: str = "minimize", **tables: Any) -> StudySpec:
    tree: dict[str, Any] = {
        "study": {"name": "s", "workload": "a:B", "direction": direction},
        "search": {"sampler": sampler},
        "space": {"optimizers": ["momentum"], "schedules": ["constant"], "breadth": 1},
        "optimizer": {"momentum": AXES},
    }
    return make_spec(**(tree | tables))


def off(params: dict[str, Any]) -> float:
    """Returns how far a point is off the best one, a rate of 0.01 and a momentum of 0.9."""
    return (math.log10(params[RATE]) + 2) ** 2 + (math.log10(params[MOMENTUM]) + 1) ** 2


class Search:
    """Some workers on a study, whose records go through JSON as through a database."""

    def __init__(self, spec: StudySpec, workers: int = 1, seed: int = 0) -> None:
        self.spec = spec
        self.records: list[TrialRecord] = []
        self.join(workers, seed)

    def join(self, workers: int, seed: int) -> None:
        """Has other workers, who know the records alone, go on."""
        self.workers = [Proposer(self.spec, seed * 1000 + n) for n in range(workers)]
        for worker in self.workers:
            worker.history.add(self.records)

    def add(self, record: TrialRecord) -> None:
        self.records = [r for r in self.records if r.number != record.number] + [record]
        for worker in self.workers:
            worker.history.add([record])

    def run_defaults(self) -> None:
        for proposal in default_proposals(self.spec):
            self.add(TrialRecord(len(self.records), Outcome.COMPLETE, proposal, value=3.0))

    def start(self, worker: int) -> TrialRecord:
        trial = self.workers[worker].propose()
        record = TrialRecord(
            len(self.records),
            Outcome.RUNNING,
            record_of(0, params=trial.params).proposal,
            attributes=json.loads(json.dumps(trial.user_attrs)),
        )
        del record.proposal.params["sgd.lr"]
        self.add(record)
        return record

    def finish(self, record: TrialRecord, outcome: Outcome = Outcome.COMPLETE) -> None:
        value = off(record.proposal.params)
        if self.spec.study.direction == "maximize":
            value = -value
        ended = outcome is not Outcome.FAILED and outcome is not Outcome.DIVERGED
        self.add(
            TrialRecord(
                record.number,
                outcome,
                record.proposal,
                value if ended else None,
                {20: value} if ended else {},
                record.attributes,
            )
        )

    def run(self, trials: int) -> list[float]:
        """Runs trials, which finish in no order; returns how far each is off, by number."""
        draw = np.random.default_rng(0)
        running: list[TrialRecord] = []
        found: list[tuple[int, float]] = []
        while trials or running:
            while trials and len(running) < len(self.workers):
                running.append(self.start(len(running)))
                trials -= 1
            record = running.pop(draw.integers(len(running)))
            self.finish(record)
            found.append((record.number, off(record.proposal.params)))
        return [value for _, value in sorted(found)]


def points_of(search: Search) -> np.ndarray:
    cube = UnitCube(joint_space(search.spec))
    mine = [r for r in search.records if not r.is_default]
    return np.array([cube.to_point(r.proposal.params) for r in mine])


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(("sampler", "trials"), [("cmaes", 60), ("gp", 26)])
def test_a_model_draws_near_the_best_point(
    sampler: str, trials: int, direction: str, workers: int
) -> None:
    ends = {}
    for name in (sampler, "random"):
        search = Search(joint_spec(name, direction), workers)
        search.run_defaults()
        ends[name] = statistics.median(search.run(trials)[-10:])
    assert ends[sampler] < 0.25 * ends["random"]


def test_cma_es_goes_on_where_other_workers_left() -> None:
    search = Search(joint_spec("cmaes"), 2)
    for session in range(6):
        search.run(10)
        search.join(2, seed=session + 1)
    records = sorted(search.records, key=lambda record: record.number)
    generations = [record.attributes["sampler"]["generation"] for record in records]
    assert generations == sorted(generations)
    assert generations[-1] >= 7
    assert statistics.median(search.run(10)) < 0.2


def test_a_pruned_trial_counts_in_its_generation_as_worse_than_complete_ones() -> None:
    search = Search(joint_spec("cmaes"))
    for _ in range(90):
        record = search.start(0)
        good = off(record.proposal.params) < 1.0
        search.finish(record, Outcome.COMPLETE if good else Outcome.PRUNED)
    assert search.start(0).attributes["sampler"]["generation"] == 15
    assert statistics.median(off(r.proposal.params) for r in search.records[-10:]) < 0.2


def test_failed_and_running_trials_do_not_fill_a_generation() -> None:
    search = Search(joint_spec("cmaes"))
    for outcome in (Outcome.FAILED, Outcome.RUNNING):
        for _ in range(10):
            search.finish(search.start(0), outcome)
    assert search.start(0).attributes["sampler"]["generation"] == 0


@pytest.mark.parametrize("sampler", ["cmaes", "gp"])
def test_a_model_turns_away_from_what_diverges(sampler: str) -> None:
    search = Search(joint_spec(sampler))
    diverged = []
    for _ in range(40 if sampler == "cmaes" else 26):
        record = search.start(0)
        rate = record.proposal.params[RATE]
        assert isinstance(rate, float)
        diverged.append(rate > 0.05)
        search.finish(record, Outcome.DIVERGED if diverged[-1] else Outcome.COMPLETE)
    assert sum(diverged[-10:]) < sum(diverged[:10])


def test_a_gaussian_process_draws_elsewhere_while_a_point_is_tried() -> None:
    search = Search(joint_spec("gp"), 2)
    search.run(16)
    first, second = search.start(0), search.start(1)
    points = UnitCube(joint_space(search.spec))
    apart = points.to_point(first.proposal.params) - points.to_point(second.proposal.params)
    assert np.abs(apart).max() > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_a_sobol_sequence_is_spread_more_evenly_than_random_points(seed: int) -> None:
    spread = {}
    for sampler in ("qmc", "random"):
        search = Search(joint_spec(sampler), seed=seed)
        search.run_defaults()
        search.run(32)
        spread[sampler] = discrepancy(points_of(search))
    assert spread["qmc"] < 0.3 * spread["random"]


def test_a_dropped_proposal_leaves_no_hole_in_the_sequence() -> None:
    search = Search(joint_spec("qmc"))
    search.workers[0].propose()  # what the study starts with started in its place
    search.run(16)
    # Each of the sixteen equal parts of each axis holds exactly one point of a Sobol sequence.
    for axis in points_of(search).T:
        assert sorted((axis * 16).astype(int)) == list(range(16))


def test_a_cohort_draws_the_next_points_of_the_sequence() -> None:
    search, together = Search(joint_spec("qmc")), Search(joint_spec("qmc"))
    search.run(5)
    together.run(5)
    cohort = [trial.params for trial in together.workers[0].propose_many(11)]
    search.run(11)
    assert cohort == [record.proposal.params for record in search.records[-11:]]


def test_workers_draw_other_points_of_sobol_sequences() -> None:
    search = Search(joint_spec("qmc"), 4)
    search.run(32)
    search.join(4, seed=1)
    search.run(32)
    points = points_of(search)
    assert len(np.unique(points.round(6), axis=0)) == 64
    assert discrepancy(points) < discrepancy(np.random.default_rng(0).random((64, 2)))


def test_a_sobol_sequence_draws_every_choice_equally_often() -> None:
    train = {"batch_size": {"choices": [32, 64, 128, 256]}}
    search = Search(joint_spec("qmc", train=train))
    search.run(16)
    sizes = [r.proposal.params["batch_size"] for r in search.records]
    assert {size: sizes.count(size) for size in sizes} == {32: 4, 64: 4, 128: 4, 256: 4}


@joint_samplers
def test_defaults_are_kept_from_samplers_that_model_one_space(sampler: str) -> None:
    history = History(joint_spec(sampler))
    history.add([record_of(0, value=1.0, preset="default")])
    assert (len(history.study.trials), len(history.asked.trials)) == (1, 0)


def test_defaults_are_shown_to_tpe() -> None:
    history = History(make_spec())
    history.add([record_of(0, value=1.0, preset="default")])
    assert (len(history.study.trials), len(history.asked.trials)) == (1, 1)


@joint_samplers
def test_the_same_seed_proposes_the_same_trials_in_one_space(sampler: str) -> None:
    trials = 12 if sampler == "gp" else 24
    assert Search(joint_spec(sampler)).run(trials) == Search(joint_spec(sampler)).run(trials)


@joint_samplers
def test_a_space_of_one_point_can_be_searched_by_all_but_cma_es(
    sampler: str, portfolio: object
) -> None:
    fixed = {"momentum": {"lr": 0.1, "momentum": 0.9}}
    if sampler == "cmaes":
        with pytest.raises(SpecError, match="at least two ranges"):
            joint_spec(sampler, optimizer=fixed)
        return
    proposer = Proposer(joint_spec(sampler, optimizer=fixed), 0)
    [opening] = proposer.openings()
    assert opening.params == {"optimizer": "momentum", "schedule": "constant"}
    with pytest.raises(ExhaustedError, match="the one configuration of the space"):
        proposer.propose()


@pytest.mark.parametrize("sampler", ["tpe", "random", *JOINT_SAMPLERS])
def test_no_sampler_warns(sampler: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Search(joint_spec(sampler)).run(3)


# Places and costs of finished trials


def finished(outcome: Outcome, value: float | None, points: int = 1) -> FrozenTrial:
    evaluations = {} if value is None else dict.fromkeys(range(1, points + 1), value)
    return History(make_spec()).to_frozen(record_of(0, outcome, value, evaluations))


def test_complete_trials_rank_before_pruned_before_diverged_ones() -> None:
    trials = [
        finished(Outcome.DIVERGED, 0.0),
        finished(Outcome.PRUNED, 0.1, points=1),
        finished(Outcome.PRUNED, 5.0, points=3),
        finished(Outcome.COMPLETE, 9.0),
        finished(Outcome.COMPLETE, 8.0),
        finished(Outcome.DIVERGED, None),
    ]
    assert ranks(trials, StudyDirection.MINIMIZE) == [4.5, 3, 2, 1, 0, 4.5]
    assert ranks(trials, StudyDirection.MAXIMIZE) == [4.5, 3, 2, 0, 1, 4.5]


def test_a_cost_is_cut_off_where_it_is_just_bad() -> None:
    levels = [1.0, 2.0, 3.0, 4.0, 1e6]
    trials = [finished(Outcome.COMPLETE, level) for level in levels]
    trials.append(finished(Outcome.DIVERGED, 0.0))
    assert capped_costs(trials, StudyDirection.MINIMIZE) == [1.0, 2.0, 3.0, 4.0, 7.0, 7.0]


def test_where_all_diverged_all_cost_the_same() -> None:
    assert capped_costs([finished(Outcome.DIVERGED, 1.0)] * 2, StudyDirection.MINIMIZE) == [0, 0]


# The user's own

OWN = """
import optuna

class Fixed(optuna.samplers.BaseSampler):
    def __init__(self, seed):
        self.seed = seed
        self.seen = []

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        self.seen.append([t.system_attrs for t in done])
        study._storage.set_trial_system_attr(trial._trial_id, "turn", len(done))
        return {}

    def sample_independent(self, study, trial, name, distribution):
        if hasattr(distribution, "choices"):
            return distribution.choices[0]
        # A little further into the range each time: what has been tried is not tried again.
        return distribution.low + (distribution.high - distribution.low) * len(self.seen) / 64

def build(seed):
    return Fixed(seed)

class Raising(Fixed):
    def sample_independent(self, study, trial, name, distribution):
        raise ZeroDivisionError("mine")

def nothing(seed):
    return None

def broken(seed):
    raise RuntimeError("out of ideas")

def hidden(seed):
    inner = optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.PartialFixedSampler({}, inner)

def pruner():
    return optuna.pruners.ThresholdPruner(upper=1.0)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mysearch.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mysearch", raising=False)
    return "mysearch"


def test_a_sampler_of_the_user_s_proposes(own: str) -> None:
    spec = make_spec(search={"sampler": f"{own}:build"})
    axis = spec.optimizer["sgd"]["lr"]
    assert isinstance(axis, Float)
    rate = axis.low + (axis.high - axis.low) / 64
    assert Proposer(spec, 5).propose().params["sgd.lr"] == rate


def test_what_a_sampler_of_the_user_s_notes_with_a_trial_comes_back(own: str) -> None:
    search = Search(joint_spec(f"{own}:build"))
    search.run(2)
    search.join(1, seed=1)
    search.start(0)
    sampler: Any = search.workers[0].history.asked.sampler
    seen, *_ = sampler.seen
    assert seen == [{"turn": 0}, {"turn": 1}]


def test_what_a_sampler_of_the_user_s_raises_is_said_to_be_theirs(own: str) -> None:
    proposer = Proposer(make_spec(search={"sampler": f"{own}:Raising"}), 5)
    with pytest.raises(SpecError, match="mysearch:Raising' raised ZeroDivisionError: mine"):
        proposer.propose()


@pytest.mark.parametrize("name", ["TPESampler", "RandomSampler", "NSGAIISampler", "GPSampler"])
def test_a_class_of_optuna_s_works_by_name(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        search = Search(joint_spec(f"optuna.samplers:{name}"))
    search.run_defaults()
    assert len(search.run(12)) == 12


def test_what_a_database_holds_is_never_unpickled(own: str, tmp_path: Path) -> None:
    """Optuna's CMA-ES unpickles an attribute of trials, which any writer to the database sets."""
    with pytest.raises(SpecError, match="keeps its state with the trials as a pickle"):
        Search(joint_spec("optuna.samplers:CmaEsSampler"))

    # One that hides it inside gets to see none of it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        search = Search(joint_spec(f"{own}:hidden"))
    search.run_defaults()
    search.run(3)
    planted = pickle.dumps(Planted(tmp_path / "ran")).hex()
    search.records = [
        dataclasses.replace(
            r, attributes={**r.attributes, "sampler": {"cma:optimizer:0": planted, "cma:n": 1}}
        )
        for r in search.records
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        search.join(1, seed=9)
    search.run(3)
    assert not (tmp_path / "ran").exists()


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mysearch:nothing", "returned None, which is no Optuna BaseSampler"),
        ("mysearch:broken", "RuntimeError: out of ideas"),
        ("mysearch:pruner", "Name a callable that takes seed"),
        ("mysearch:absent", "has no 'absent'"),
        ("nowhere_to_be_found:build", "importing nowhere_to_be_found failed"),
    ],
)
def test_what_is_no_sampler_is_refused(own: str, name: str, said: str) -> None:
    with pytest.raises(SpecError, match=said) as refusal:
        build_sampler(make_spec(search={"sampler": name}), 0)
    assert str(refusal.value).startswith("search.sampler")
