"""How much training a search needs to find what plain Optuna finds with 60 trials.

    python -m benchmarks.search --quick             a few workloads, in minutes
    python -m benchmarks.search                     all tables, every strategy
    python -m benchmarks.search --live              trains, on workloads that nothing was learned on
    python -m benchmarks.search stopping            what studies lose that end by themselves
    python -m benchmarks.search tables              trains the tables anew, some 20 minutes
    python -m benchmarks.search learn               writes tuner/search/portfolio.toml from them
    python -m benchmarks.search published           what published curves say about pausing

A cell is the training of the median search up to its first complete trial that is as good as what
plain Optuna's median search ends with, over plain's whole training: 1 is level, .33 needs a third.
`never` did not get there in 40 full trials' worth of training (plain takes about 25). What tuner
knows beforehand is learned on the other families of workloads alone.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.search import stopping
from benchmarks.search.learning import learn, tables_without, to_lines
from benchmarks.search.published.report import report
from benchmarks.search.replay import (
    CurvesOf,
    Search,
    rank_correlation,
    ratio_to,
    ratios_to,
    run_side_by_side,
)
from benchmarks.search.spaces import EVALUATIONS, former_space, with_length
from benchmarks.search.strategies import PLAIN, STRATEGIES
from benchmarks.search.surrogate import Surrogate
from benchmarks.search.tables import DRAWN, STUDY_LENGTHS, Table, build, draw_points
from benchmarks.search.training import Trainer
from benchmarks.search.unused import UNUSED
from benchmarks.search.workloads import WORKLOADS
from tuner.search.knowledge import Knowledge

QUICK = ("parabola", "digits_mlp", "wine", "markov")
QUICK_STRATEGIES = (PLAIN, "tuner", "tuner, 8 lanes", "without portfolio")
PORTFOLIO_FILE = Path(__file__).parents[2] / "tuner" / "search" / "portfolio.toml"
_ORIGIN = """First trials of a study, in the order in which each adds most to those before it.
Written by `python -m benchmarks.search learn` from {count} workloads of benchmarks/search,
each at {lengths} steps, from 1,024 evenly drawn configurations, schedules complete.
The entry with lr = 0.001 is the usual choice for large models, which no table holds."""


def main() -> None:
    """Replays searches and prints a table, or makes what replays need."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = ("replay", "stopping", "tables", "learn", "published")
    parser.add_argument("command", nargs="?", choices=commands)
    parser.add_argument("--workloads", nargs="+", choices=sorted(WORKLOADS | UNUSED))
    parser.add_argument("--strategies", nargs="+", choices=sorted(STRATEGIES))
    parser.add_argument("--steps", nargs="+", type=int, choices=STUDY_LENGTHS)
    parser.add_argument("--seeds", type=int, help="searches of each strategy, an odd number")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--live", action="store_true", help="train every trial")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "tables":
        for name in arguments.workloads or WORKLOADS:
            build(name, draw_points(DRAWN, seed=0)).save()
    elif arguments.command == "learn":
        write_knowledge()
    elif arguments.command == "published":
        report()
    elif arguments.command == "stopping":
        print(tell_stopping(arguments))
    else:
        replay(arguments)


def tell_stopping(arguments: argparse.Namespace) -> str:
    """Returns what studies save and lose that end once little is left to gain."""
    rows = [
        stopping.stop(name, steps, arguments.seeds or 11, learn_without(WORKLOADS[name].family))
        for name in arguments.workloads or (QUICK if arguments.quick else WORKLOADS)
        for steps in arguments.steps or STUDY_LENGTHS
    ]
    return stopping.describe(rows)


def write_knowledge() -> None:
    """Writes the portfolio that ships with tuner, and prints the priors for the catalog."""
    found = learn(load_tables())
    lengths = " and ".join(map(str, STUDY_LENGTHS))
    origin = _ORIGIN.format(count=len(load_tables()), lengths=lengths)
    PORTFOLIO_FILE.write_text(to_lines(found.portfolio, origin), encoding="utf-8")
    for name, prior in found.priors.items():
        print(f"{name:>20} {prior.describe()}")


@functools.cache
def load_tables() -> list[Table]:
    """Returns all tables."""
    return [Table.load(name) for name in WORKLOADS]


@functools.cache
def learn_without(family: str) -> Knowledge:
    """Returns what the workloads of other families teach."""
    return learn(tables_without(family, load_tables()))


def replay(arguments: argparse.Namespace) -> None:
    """Replays the searches, and prints the table."""
    strategies = arguments.strategies or (QUICK_STRATEGIES if arguments.quick else [*STRATEGIES])
    strategies = list(dict.fromkeys([PLAIN, *strategies]))
    seeds = arguments.seeds or (11 if arguments.quick else 41)
    usual = UNUSED if arguments.live else QUICK if arguments.quick else WORKLOADS
    tasks = [
        (name, steps, strategies, seeds, arguments.live)
        for name in arguments.workloads or usual
        for steps in arguments.steps or (STUDY_LENGTHS[:1] if arguments.quick else STUDY_LENGTHS)
    ]
    rows = []
    with ProcessPoolExecutor(arguments.processes) as pool:
        for row in pool.map(compare, tasks):
            rows.append(row)
            print(f"{row['workload']} at {row['steps']} steps", file=sys.stderr)
    print(json.dumps(rows) if arguments.json else describe(rows, strategies))


def compare(task: tuple[str, int, Sequence[str], int, bool]) -> dict[str, Any]:
    """Returns the figures of every strategy on a workload at a length."""
    name, steps, strategies, seeds, live = task
    workload = (WORKLOADS | UNUSED)[name]
    curves_of: CurvesOf
    if live:
        trainer = Trainer(workload)
        curves_of = functools.partial(trainer.train, steps=steps, evaluations=EVALUATIONS)
    else:
        curves_of = Surrogate(Table.load(name), steps).curves_of
    knowledge = learn_without(workload.family)
    spec = with_length(former_space(), steps)

    def run(strategy: str) -> list[Search]:
        searches = [STRATEGIES[strategy](steps, seed, knowledge) for seed in range(seeds)]
        return run_side_by_side(searches, curves_of)

    plain = run(PLAIN)
    whole = float(np.median([search.evaluations for search in plain]))
    truth = Table.load(name).best_by_optimizer(steps) if name in WORKLOADS else None
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"workload": name, "steps": steps, "trials": spec.budget.trials}
    for strategy in strategies:
        searches = plain if strategy == PLAIN else run(strategy)
        found[strategy] = {
            "ratio": ratio_to(plain, searches),
            "ratios": ratios_to(plain, searches, rng).tolist(),
            "end": float(np.median([search.best_by(whole) for search in searches])),
            "last": float(np.median([search.best_by(math.inf) for search in searches])),
            "spent": float(np.median([search.evaluations for search in searches])) / whole,
        }
        if truth is not None:
            found[strategy]["rank"] = rank_correlation(searches, truth)
    return found


def describe(rows: Sequence[dict[str, Any]], strategies: Sequence[str]) -> str:
    """Returns the figures as a table: a row a workload and length, a column a strategy."""
    head = f"{'':22}" + "".join(f"{name:>19}" for name in strategies)
    lines = [head]
    for row in rows:
        cells = "".join(f"{_cell(row[name]['ratio']):>19}" for name in strategies)
        lines.append(f"{row['workload']:>14} {row['steps']:>6} {cells}")
    ratios = {name: [min(row[name]["ratio"], NEVER) for row in rows] for name in strategies}
    columns = {
        "geometric mean": {name: f"{_mean(ratios[name]):.2f}" for name in strategies},
        "of 95% of seeds": {name: _interval(rows, name) for name in strategies},
        "worst": {name: _cell(max(ratios[name])) for name in strategies},
        "above .6": {name: f"{sum(r > 0.6 for r in ratios[name])}" for name in strategies},
        "above 1": {name: f"{sum(r > 1 for r in ratios[name])}" for name in strategies},
        "above 1 for certain": {name: f"{_count_certain(rows, name)}" for name in strategies},
        "worse for the same": {name: _count_behind(rows, name, "end") for name in strategies},
        "training, all": {name: _average(rows, name, "spent") for name in strategies},
        "worse at its end": {name: _count_behind(rows, name, "last") for name in strategies},
        "optimizers' ranks": {name: _average(rows, name, "rank") for name in strategies},
    }
    for title, own in columns.items():
        lines.append(f"{title:>22}" + "".join(f"{own[strategy]:>19}" for strategy in strategies))
    return "\n".join(lines)


NEVER = 3.0
"""What a search that did not get there counts as in a mean."""


def _mean(ratios: Sequence[float]) -> float:
    return math.exp(float(np.log(ratios).mean()))


def _interval(rows: Sequence[dict[str, Any]], strategy: str) -> str:
    """Returns the middle 95% of the geometric means that other seeds might have given."""
    means = np.exp(np.mean([np.log(_drawn(row, strategy)) for row in rows], axis=0))
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{low:.2f} to {high:.2f}"


def _drawn(row: dict[str, Any], strategy: str) -> npt.NDArray[np.float64]:
    """Returns the ratios that other seeds might have given, bounded by :data:`NEVER`."""
    drawn: npt.NDArray[np.float64] = np.minimum(row[strategy]["ratios"], NEVER)
    return drawn


def _count_certain(rows: Sequence[dict[str, Any]], strategy: str) -> int:
    """Returns in how many rows the ratio's 95% interval lies above 1."""
    return sum(float(np.quantile(_drawn(row, strategy), 0.025)) > 1 for row in rows)


def _count_behind(rows: Sequence[dict[str, Any]], strategy: str, when: str) -> str:
    return f"{sum(row[strategy][when] > row[PLAIN]['last'] for row in rows)} of {len(rows)}"


def _average(rows: Sequence[dict[str, Any]], strategy: str, figure: str) -> str:
    values = [row[strategy][figure] for row in rows if figure in row[strategy]]
    return f"{np.mean(values):.2f}" if values else ""


def _cell(ratio: float) -> str:
    return "never" if ratio >= NEVER else f"{ratio:.2f}"


if __name__ == "__main__":
    main()
