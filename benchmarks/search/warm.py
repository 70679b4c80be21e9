"""How much training a search needs that starts from an earlier study, over one that does not.

    python -m benchmarks.search.warm            every workload at both lengths
    python -m benchmarks.search.warm --seeds 3 --workloads wine recall

The earlier study is tuner's own search of the same workload with trials of a third of the length,
of the same length, or, to mislead, one of a workload of the next family. A cell is the training
until a complete trial is as good as what plain Optuna's median search ends with, over plain's whole
training, as in ``python -m benchmarks.search``.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from benchmarks.search.__main__ import learn_without
from benchmarks.search.plain import search_plainly
from benchmarks.search.play import search_by_tuner
from benchmarks.search.replay import Search, ratio_to, run_side_by_side
from benchmarks.search.spaces import former_space, present_space, with_length
from benchmarks.search.surrogate import Surrogate
from benchmarks.search.tables import STUDY_LENGTHS, Table
from benchmarks.search.workloads import WORKLOADS
from tuner.domain.spec import StudySpec
from tuner.search.knowledge import Knowledge
from tuner.search.warm_start import Earlier, take_over

SOURCES = ("a third of the length", "the same length", "another family")
COLD = "cold"


@functools.cache
def surrogate_of(workload: str, steps: int) -> Surrogate:
    """Returns what tells the curves of a workload at a length."""
    return Surrogate(Table.load(workload), steps)


def misleading(workload: str) -> str:
    """Returns a workload of another family: the first that follows, the list taken as a circle."""
    names = [*WORKLOADS]
    place = names.index(workload)
    others = names[place:] + names[:place]
    return next(n for n in others if WORKLOADS[n].family != WORKLOADS[workload].family)


def _search_before(
    workload: str, steps: int, seeds: Sequence[int], knowledge: Knowledge
) -> list[Earlier]:
    """Returns whole studies of a workload, one a seed."""
    spec = with_length(present_space(), steps)
    studies = [search_by_tuner(spec, 1_000 + seed, knowledge, evaluations=None) for seed in seeds]
    found = run_side_by_side(studies, surrogate_of(workload, steps).curves_of)
    return [Earlier(workload, spec, search.records) for search in found]


def compare(task: tuple[str, int, int]) -> dict[str, Any]:
    """Returns the figures of a workload at a length, cold and from every source."""
    name, steps, count = task
    seeds = range(count)
    knowledge = learn_without(WORKLOADS[name].family)
    curves_of = surrogate_of(name, steps).curves_of
    plain = run_side_by_side(
        [search_plainly(with_length(former_space(), steps), seed) for seed in seeds], curves_of
    )
    whole = float(np.median([search.evaluations for search in plain]))
    spec = with_length(present_space(), steps)

    def run(specs: Sequence[StudySpec]) -> list[Search]:
        pairs = zip(specs, seeds, strict=True)
        return run_side_by_side([search_by_tuner(own, s, knowledge) for own, s in pairs], curves_of)

    def start_from(earlier: Sequence[Earlier]) -> list[Search]:
        return run(
            [spec.model_copy(update={"warm_start": take_over(spec, one)}) for one in earlier]
        )

    other = misleading(name)
    found = {
        COLD: run([spec] * count),
        SOURCES[0]: start_from(_search_before(name, steps // 3, seeds, knowledge)),
        SOURCES[1]: start_from(_search_before(name, steps, seeds, knowledge)),
        SOURCES[2]: start_from(
            _search_before(other, steps // 3, seeds, learn_without(WORKLOADS[other].family))
        ),
    }
    return {"workload": name, "steps": steps} | {
        way: {
            "ratio": ratio_to(plain, searches),
            "end": float(np.median([search.best_by(whole) for search in searches])),
        }
        for way, searches in found.items()
    }


def describe(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the figures as a table of Markdown."""
    ways = (COLD, *SOURCES)
    lines = ["| workload | steps | " + " | ".join(ways) + " |", "| --- " * (len(ways) + 2) + "|"]
    for row in rows:
        cells = " | ".join(_cell(row[way]["ratio"]) for way in ways)
        lines.append(f"| {row['workload']} | {row['steps']} | {cells} |")
    ratios = {way: [min(row[way]["ratio"], 3.0) for row in rows] for way in ways}
    means = {way: math.exp(float(np.log(ratios[way]).mean())) for way in ways}
    lines.append("| **geometric mean** | | " + " | ".join(f"{means[w]:.3f}" for w in ways) + " |")
    over = (f"{means[way] / means[COLD]:.2f}" for way in ways)
    lines.append("| over cold | | " + " | ".join(over) + " |")
    for title, is_so in _COUNTED.items():
        counts = (str(sum(is_so(row, way) for row in rows)) for way in ways)
        lines.append(f"| {title} | | " + " | ".join(counts) + " |")
    return "\n".join(lines)


_COUNTED: dict[str, Callable[[dict[str, Any], str], bool]] = {
    "needs over a third more than cold": lambda row, way: (
        row[way]["ratio"] > 4 / 3 * row[COLD]["ratio"]
    ),
    "never gets there": lambda row, way: row[way]["ratio"] >= 3,
    "worse for the same": lambda row, way: row[way]["end"] > row[COLD]["end"],
    "better for the same": lambda row, way: row[way]["end"] < row[COLD]["end"],
}


def _cell(ratio: float) -> str:
    return "–" if ratio >= 3 else f"{ratio:.2f}".removeprefix("0")


def main() -> None:
    """Replays the searches, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=sorted(WORKLOADS), default=[*WORKLOADS])
    parser.add_argument("--steps", nargs="+", type=int, choices=STUDY_LENGTHS)
    parser.add_argument("--seeds", type=int, default=11)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    lengths = arguments.steps or STUDY_LENGTHS
    tasks = [(name, steps, arguments.seeds) for name in arguments.workloads for steps in lengths]
    with ProcessPoolExecutor(arguments.processes) as pool:
        rows = []
        for row in pool.map(compare, tasks):
            rows.append(row)
            print(f"{row['workload']} at {row['steps']} steps", file=sys.stderr)
    print(json.dumps(rows) if arguments.json else describe(rows))


if __name__ == "__main__":
    main()
