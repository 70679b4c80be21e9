"""How much training searches of other libraries need to find what plain Optuna finds.

    make rivals                                             makes the environment
    .venv-rivals/bin/python -m benchmarks.rivals --quick    three workloads, the fast ones
    .venv-rivals/bin/python -m benchmarks.rivals            everything, many hours on two cores

A cell is that of `python -m benchmarks.search`: the training of the median search up to its first
complete trial that is as good as what plain Optuna's median search ends with, over plain's whole
training; 40 full trials' worth at most. Whatever is trained once is never counted twice: a library
that asks for a configuration again, up to a higher rung, trains it on from where it stands.

Results are added to a file, line by line, and what it holds is not run again: so the slow ones can
be run on fewer workloads, or with fewer seeds, than the fast ones.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.rivals.asking import Rival, search_by
from benchmarks.search.__main__ import learn_without
from benchmarks.search.replay import CurvesOf, Searching, run_side_by_side
from benchmarks.search.spaces import former_space, present_space, with_length
from benchmarks.search.strategies import PLAIN, STRATEGIES
from benchmarks.search.surrogate import Surrogate
from benchmarks.search.tables import STUDY_LENGTHS, Table
from benchmarks.search.workloads import WORKLOADS
from tuner.domain.spec import StudySpec
from tuner.search.knowledge import Knowledge

OURS = ("random + ASHA", "tuner")
"""Searches of :mod:`benchmarks.search` to compare with, beside plain Optuna's."""

_ADAPTERS = {
    "ASHA": "syne:start_asha",
    "DEHB": "dehb_evolution:start",
    "PriorBand": "neps_priorband:start",
    "PriorBand, sure": "neps_priorband:start_surely",
    "SMAC3": "smac_hyperband:start",
    "CQR": "syne:start_cqr",
}
_SPACES = {"": former_space, ", our space": present_space}

RIVALS = {
    f"{name}{where}": (adapter, space)
    for name, adapter in _ADAPTERS.items()
    for where, space in _SPACES.items()
}
"""Their adapters and spaces by name; without more words, the space is that of plain Optuna."""

_FAST = ("ASHA", "DEHB", "ASHA, our space", "DEHB, our space")
_QUICK = ("parabola", "digits_mlp", "wine")
MOST = 400
"""Evaluations of a search at most, 40 full trials' worth."""
_WORST = 3.0


@dataclass(frozen=True)
class Row:
    """What a strategy has shown on a workload.

    Attributes:
        workload: Its name.
        steps: The length of its trials.
        strategy: The strategy's name.
        seeds: The searches that the median is of.
        spent: Evaluations that the median search takes to the target, infinite if it never does.
        target: What plain Optuna's median search ends with.
        whole: Evaluations of plain Optuna's median search.
    """

    workload: str
    steps: int
    strategy: str
    seeds: int
    spent: float
    target: float
    whole: float

    @property
    def place(self) -> Place:
        """The workload and the length."""
        return self.workload, self.steps

    @property
    def ratio(self) -> float:
        """The training over all of plain's."""
        return self.spent / self.whole


def main() -> None:
    """Replays what is not in the file yet, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=sorted(WORKLOADS))
    parser.add_argument("--steps", nargs="+", type=int, choices=STUDY_LENGTHS)
    parser.add_argument("--strategies", nargs="+", choices=[*OURS, *RIVALS])
    parser.add_argument("--seeds", type=int, default=11, help="searches of each, an odd number")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("rivals.jsonl"))
    arguments = parser.parse_args()
    places = [
        (name, steps)
        for name in arguments.workloads or (_QUICK if arguments.quick else WORKLOADS)
        for steps in arguments.steps or STUDY_LENGTHS[: 1 if arguments.quick else None]
    ]
    default = [*OURS, *_FAST] if arguments.quick else [*OURS, *RIVALS]
    rows = load_rows(arguments.results)
    with ProcessPoolExecutor(arguments.processes) as pool:
        # What plain Optuna finds is the target of all others.
        tasks: list[Task] = [
            (PLAIN, place, None, arguments.seeds) for place in places if (place, PLAIN) not in rows
        ]
        keep(rows, pool.map(run, tasks), arguments.results)
        tasks = [
            (strategy, place, rows[place, PLAIN], arguments.seeds)
            for strategy in arguments.strategies or default
            for place in places
            if (place, strategy) not in rows
        ]
        keep(rows, pool.map(run, tasks), arguments.results)
    print(describe([*rows.values()]))


Place = tuple[str, int]
Rows = dict[tuple[Place, str], Row]
Task = tuple[str, Place, Row | None, int]
"""A strategy, a workload and a length, what plain Optuna finds there, and the number of seeds."""


def load_rows(path: Path) -> Rows:
    """Returns the rows of a file, none if there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [Row(**json.loads(line)) for line in lines]
    return {(row.place, row.strategy): row for row in rows}


def keep(rows: Rows, found: Iterable[Row], path: Path) -> None:
    """Adds rows to others, and to a file as each is found."""
    for row in found:
        rows[row.place, row.strategy] = row
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        shown = f"{row.workload} at {row.steps} steps, {row.strategy}: {row.ratio:.2f}"
        print(shown, file=sys.stderr, flush=True)


def run(task: Task) -> Row:
    """Returns what a strategy shows on a workload at a length, which its task names."""
    strategy, (name, steps), plain, seeds = task
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore")  # those of other libraries are not ours to heed
    knowledge = learn_without(WORKLOADS[name].family)
    curves_of = _surrogate(name, steps).curves_of
    if plain is None:
        searches = [STRATEGIES[PLAIN](steps, seed, knowledge) for seed in range(seeds)]
        found = run_side_by_side(searches, curves_of)
        target = float(np.median([search.best_by(math.inf) for search in found]))
        whole = float(np.median([search.evaluations for search in found]))
        spent = float(np.median([search.spent_to(target) for search in found]))
        return Row(name, steps, PLAIN, seeds, spent, target, whole)

    def start(seed: int, most: int) -> Searching:
        if strategy in STRATEGIES:
            return STRATEGIES[strategy](steps, seed, knowledge)
        adapter, space = RIVALS[strategy]
        spec = with_length(space(), steps)
        begin = functools.partial(load(adapter), spec, seed, knowledge)
        return search_by(begin, spec, seed, enough=plain.target, evaluations=most)

    spent = find_median(start, seeds, plain.target, curves_of)
    return Row(name, steps, strategy, seeds, spent, plain.target, plain.whole)


@functools.cache
def _surrogate(name: str, steps: int) -> Surrogate:
    return Surrogate(Table.load(name), steps)


def load(adapter: str) -> Callable[[StudySpec, int, Knowledge], Rival]:
    """Returns what starts a library's search; only now is the library loaded.

    Args:
        adapter: The module and the name in it, as in ``syne:start_asha``.
    """
    module, _, name = adapter.partition(":")
    found: Callable[[StudySpec, int, Knowledge], Rival] = getattr(
        importlib.import_module(f"benchmarks.rivals.{module}"), name
    )
    return found


def find_median(
    start: Callable[[int, int], Searching], seeds: int, target: float, curves_of: CurvesOf
) -> float:
    """Returns the evaluations that the median of searches takes to a target.

    No search runs on once it cannot change the median.

    Args:
        start: Starts the search of a seed, of so many evaluations at most.
        seeds: The number of searches, odd.
        target: The loss to reach.
        curves_of: Returns the curves of configurations.
    """
    half = seeds // 2 + 1
    reached = list[float]()
    for seed in range(seeds):
        most = min(MOST, sorted(reached)[half - 1]) if len(reached) >= half else MOST
        [search] = run_side_by_side([start(seed, int(most))], curves_of)
        spent = search.spent_to(target)
        if math.isfinite(spent):
            reached.append(spent)
        elif seed + 1 - len(reached) >= half:
            return math.inf
    return sorted(reached)[half - 1]


def describe(rows: Sequence[Row]) -> str:
    """Returns rows as a table in Markdown: a line a workload and length, a column a strategy."""
    names = [n for n in (PLAIN, *OURS, *RIVALS) if any(row.strategy == n for row in rows)]
    found = {(row.place, row.strategy): row.ratio for row in rows}
    places = list(dict.fromkeys(row.place for row in rows))
    lines = [
        _line(["workload", "steps", *names]),
        _line(["---"] * (len(names) + 2)),
    ]
    for place in places:
        cells = [_cell(found.get((place, name))) for name in names]
        lines.append(_line([place[0], str(place[1]), *cells]))

    def mean(name: str, of: Sequence[Place]) -> str:
        ratios = [min(found[place, name], _WORST) for place in of if (place, name) in found]
        return _number(math.exp(np.log(ratios).mean())) if ratios else ""

    own = {name: [place for place in places if (place, name) in found] for name in names}
    seeds = {name: sorted({row.seeds for row in rows if row.strategy == name}) for name in names}
    means = [f"**{mean(name, own[name])}**" for name in names]
    lines.append(_line(["**geometric mean**", "", *means]))
    lines.append(_line(["tuner on these rows", "", *(mean("tuner", own[n]) for n in names)]))
    above = [str(sum(found[place, n] > 1 for place in own[n])) for n in names]
    lines.append(_line(["above 1", "", *above]))
    lines.append(_line(["rows", "", *(str(len(own[n])) for n in names)]))
    lines.append(_line(["seeds", "", *(" or ".join(map(str, seeds[n])) for n in names)]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return "–" if ratio >= _WORST else _number(ratio)


def _number(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


if __name__ == "__main__":
    main()
