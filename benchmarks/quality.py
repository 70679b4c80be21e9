"""Whether trials that train as one find as much, for the same training, as one after another.

Two searches of a study share a budget of optimizer steps: what its trials take one at a time, each
proposed knowing all that ended before. The other proposes and prunes whole cohorts. Nothing is
written to a database, and both train by the same fused step, so that only the search differs.
What counts at a point of the budget is the best value of the trials complete by then.

    python -m benchmarks.quality --workload digits --repeats 20
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, cast

import torch
from optuna.trial import FrozenTrial
from scipy.stats import wilcoxon

from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, Proposal, TrialRecord, decode, progress_at
from tuner.fused.cohort import Cohort
from tuner.fused.lane import LaneStart
from tuner.fused.model import FusedModel
from tuner.search import Proposer, Pruner, Verdict
from tuner.search.history import SAMPLER_STATE
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.rehearsal import Rehearsal
from tuner.training.reporting import Evaluation
from tuner.training.workload import Workload, load_workload

# As in studies/, but digits at a third of its steps.
LENGTH = {"parabola": {"epochs": 12}, "digits": {"steps": 150}}
BATCH = {"parabola": 32, "digits": 128}
FRACTIONS = (0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass
class Search:
    """How far a search has come.

    Attributes:
        steps: Optimizer steps taken, of all trials.
        records: Its trials, in order.
        spent: Steps taken when each trial's cohort had ended.
        ends: The same of each complete trial, and its value.
    """

    steps: int = 0
    records: list[TrialRecord] = dataclasses.field(default_factory=list)
    ends: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    spent: list[int] = dataclasses.field(default_factory=list)

    def add(self, lanes: Lanes) -> None:
        """Takes in a cohort that has ended."""
        self.steps += sum(lanes.taken)
        for record in lanes.records:
            through = record.outcome is Outcome.RUNNING
            if through:
                self.ends.append((self.steps, cast("float", record.value)))
            outcome = Outcome.COMPLETE if through else record.outcome
            self.records.append(dataclasses.replace(record, outcome=outcome))
            self.spent.append(self.steps)

    def best_by(self, steps: float) -> float:
        """Returns the best value of the trials complete when so much was spent."""
        return min((value for spent, value in self.ends if spent <= steps), default=math.inf)


class Lanes(Rehearsal):
    """A cohort's reporter: judges its lanes and keeps what became of them."""

    def __init__(self, spec: StudySpec, pruner: Pruner, records: list[TrialRecord]) -> None:
        super().__init__()
        self._spec, self._pruner = spec, pruner
        self.records = records
        self.taken = [0] * len(records)
        self.step = self.total_steps = 0

    def report(self, evaluations: Sequence[Evaluation | None]) -> list[bool]:
        """Takes an evaluation of every lane; returns who goes on."""
        for lane, evaluation in enumerate(evaluations):
            if evaluation is not None:
                self.taken[lane] = evaluation.step
                value = evaluation.metrics[self._spec.study.metric]
                progress = progress_at(self._spec, evaluation.index, self.total_steps)
                known = {**self.records[lane].evaluations, progress: value}
                self._change(lane, evaluations=known, value=value)
        if max(self.taken) == self.total_steps:
            return [True] * len(self.records)
        lanes = [(record, record.evaluations) for record in self.records]
        # Nobody is promoted here: who pauses has ended as it stands.
        goes_on = [v is Verdict.GO_ON for v in self._pruner.judge(lanes, self.total_steps)]
        for lane, goes in enumerate(goes_on):
            if not goes:
                self._change(lane, outcome=Outcome.PRUNED)
        return goes_on

    def diverged(self, lane: int, step: int) -> None:
        """Hears that a lane is over, which has trained up to here."""
        self.taken[lane] = self.step
        self._change(lane, outcome=Outcome.DIVERGED)

    def advance(self, step: int) -> bool:
        """Goes on."""
        self.step = step
        return True

    def _change(self, lane: int, **changes: Any) -> None:
        self.records[lane] = dataclasses.replace(self.records[lane], **changes)


def main() -> None:
    """Runs the pairs of searches and prints what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=sorted(LENGTH), default="parabola")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--lanes", type=int, help="of a cohort; left out, an eighth of the trials")
    parser.add_argument("--pruner", default="median")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.repeats < 2:
        parser.error("--repeats: a spread needs at least two")
    with ProcessPoolExecutor(arguments.processes) as pool:
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.repeats)
        pairs = list(pool.map(functools.partial(compare, arguments), seeds))
    found = summarize(arguments, pairs)
    print(json.dumps(found) if arguments.json else describe(found))


def compare(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Returns what both searches of a study found, their proposals drawn from a seed."""
    began = time.perf_counter()
    trials = arguments.trials
    model = prepare(arguments.workload, trials, arguments.sampler, arguments.pruner)
    lanes = arguments.lanes or -(-trials // 8)
    single = run(model, 1, seed, trials=trials)
    fused = run(model, lanes, seed, trials=trials, steps=single.steps)
    return {
        "seed": seed,
        "lanes": lanes,
        "budget": single.steps,
        "single": report_of(single, single.steps, trials),
        "fused": report_of(fused, single.steps, trials),
        "seconds": time.perf_counter() - began,
    }


@functools.cache
def prepare(name: str, trials: int, sampler: str, pruner: str) -> FusedModel:
    """Returns the study's model, compiled once for all searches."""
    torch.set_num_threads(1)
    target = f"models.{name}:{name.capitalize()}"
    spec = StudySpec.model_validate(
        {
            "study": {"name": name, "workload": target},
            "budget": {"trials": trials, **LENGTH[name]},
            "search": {"sampler": sampler, "pruner": pruner},
            "train": {"batch_size": BATCH[name]},
        }
    ).resolve()
    prepared = PreparedWorkload.prepare(
        cast("Workload", load_workload(target)), torch.device("cpu"), "float32"
    )
    return FusedModel(prepared, spec, compiled=True)


def report_of(search: Search, budget: int, trials: int) -> dict[str, Any]:
    """Returns the figures of a search."""
    started = len(search.records)
    spent = search.spent[trials - 1]
    return {
        "best": [search.best_by(fraction * budget) for fraction in FRACTIONS],
        "started": started,
        "pruned": sum(r.outcome is Outcome.PRUNED for r in search.records) / started,
        "steps": spent,
        "best_of_trials": search.best_by(spent),
    }


def run(model: FusedModel, lanes: int, seed: int, *, trials: int, steps: int = 0) -> Search:
    """Searches until so many trials have started and so many steps are taken."""
    spec, search = model.spec, Search()
    proposer = Proposer(spec, seed)
    pruner = Pruner(spec, proposer.history)
    waiting = proposer.openings()
    while search.steps < steps or len(search.records) < trials:
        drawn = [waiting.pop(0) for _ in range(min(lanes, len(waiting)))]
        if lanes == 1:
            drawn = drawn or [proposer.propose()]
        elif len(drawn) < lanes:
            drawn += proposer.propose_many(lanes - len(drawn))
        first = len(search.records)
        records = [record_of(trial, number) for number, trial in enumerate(drawn, first)]
        reporter = Lanes(spec, pruner, records)
        starts = [LaneStart(decode(spec, record.proposal)) for record in reporter.records]
        cohort = Cohort(model, starts, reporter)
        reporter.total_steps = cohort.total_steps
        cohort.train()
        search.add(reporter)
        proposer.history.add(search.records[first:])
    return search


def record_of(trial: FrozenTrial, number: int) -> TrialRecord:
    """Returns a proposed trial as one that has started."""
    attributes = trial.user_attrs
    return TrialRecord(
        number,
        Outcome.RUNNING,
        Proposal(trial.params, attributes.get("preset")),
        attributes={SAMPLER_STATE: attributes.get(SAMPLER_STATE)},
    )


def summarize(arguments: argparse.Namespace, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns medians, quartiles and tests over all pairs."""
    ways = {}
    for way in ("single", "fused"):
        found = [pair[way] for pair in pairs]
        ways[way] = {
            "best": [
                quartiles([one["best"][index] for one in found]) for index in range(len(FRACTIONS))
            ],
            **{
                key: quartiles([one[key] for one in found])
                for key in ("started", "pruned", "steps", "best_of_trials")
            },
        }
    return {
        "workload": arguments.workload,
        "sampler": arguments.sampler,
        "pruner": arguments.pruner,
        "trials": arguments.trials,
        "lanes": pairs[0]["lanes"],
        "repeats": len(pairs),
        "budget": quartiles([pair["budget"] for pair in pairs]),
        "ways": ways,
        "tests": [
            test(
                [pair["single"]["best"][index] for pair in pairs],
                [pair["fused"]["best"][index] for pair in pairs],
            )
            for index in range(len(FRACTIONS))
        ],
        "seconds": sum(pair["seconds"] for pair in pairs),
        "pairs": pairs,
    }


def quartiles(values: list[float]) -> list[float]:
    """Returns the median and the quartiles around it."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return [middle, low, high]


def test(single: list[float], fused: list[float]) -> dict[str, float]:
    """Returns how often the fused search found more, and how likely luck alone makes it so bad."""
    gaps = [f - s for s, f in zip(single, fused, strict=True) if f != s]
    return {
        "better": sum(gap < 0 for gap in gaps),
        "worse": sum(gap > 0 for gap in gaps),
        "p_worse": float(wilcoxon(gaps, alternative="greater").pvalue) if gaps else 1.0,
    }


def describe(found: dict[str, Any]) -> str:
    """Returns the figures as a table."""
    lines = [
        "{workload}, {trials} trials, {sampler}, {pruner}, {lanes} lanes, {repeats} repeats; "
        "{seconds:.0f} s".format(**found),
        f"{'best by':>16} {'single':>24} {'fused':>24}  better/worse  p(worse)",
    ]

    def cell(figures: list[float], digits: str) -> str:
        return "{0:{d}} ({1:{d}}-{2:{d}})".format(*figures, d=digits).rjust(24)

    single, fused = found["ways"]["single"], found["ways"]["fused"]
    for index, fraction in enumerate(FRACTIONS):
        cells = [cell(way["best"][index], ".5f") for way in (single, fused)]
        outcome = "{better:>7}/{worse:<5} {p_worse:>9.3f}".format(**found["tests"][index])
        lines.append(f"{fraction:>16.0%} {cells[0]} {cells[1]} {outcome}")
    rows = {
        "trials started": ("started", ".0f"),
        "share pruned": ("pruned", ".0%"),
        f"steps of {found['trials']}": ("steps", ".0f"),
        f"best of {found['trials']}": ("best_of_trials", ".5f"),
    }
    for title, (key, digits) in rows.items():
        lines.append(f"{title:>16} {cell(single[key], digits)} {cell(fused[key], digits)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
