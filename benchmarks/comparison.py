"""Comparisons of optimizers against a reference: which pairs does each tell apart, and how?

The reference compares the same optimizers under 30 seeds of the search, each a study of its own
whose winners run again on fresh seeds. It separates a pair if one is the better over those 30
studies by signed ranks (Wilcoxon 1945; all pairs corrected as Holm does, 95%): a mean would be that
of a single study whose winner blew up. Three further studies, under other seeds, are then read as a
user reads them: by the verdict of one study alone.

The studies are kept in a folder, so that a run that was stopped goes on.

    python -m benchmarks.comparison --folder comparison
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tuner.analysis.paired_tests import flip_signs
from tuner.service.summaries import read_summary
from tuner.store import Database, Studies, open_database

ROOT = Path(__file__).parents[1]

FIRST_REFERENCE = 1000
"""The search seed of the first study of the reference; those that are judged have 0, 1, 2."""


class Tuned(NamedTuple):
    """One study: what each optimizer's best reached on fresh seeds, and whom it beat.

    Attributes:
        means: The mean on fresh seeds, by optimizer; None where it diverged on all.
        beats: The pairs of optimizers told apart, the better one first.
    """

    means: dict[str, float | None]
    beats: set[tuple[str, str]]


def main() -> None:
    """Runs the studies that are missing, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", default="studies/comparison.toml", help="a study file")
    parser.add_argument("--trials", type=int, default=256)
    parser.add_argument("--reference", type=int, default=30, help="seeds of the reference")
    parser.add_argument("--seeds", type=int, default=3, help="studies that are judged by it")
    parser.add_argument("--folder", type=Path, required=True, help="where the studies are kept")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{given.folder.resolve() / 'tuner.db'}"
    seeds = [*range(given.seeds), *range(FIRST_REFERENCE, FIRST_REFERENCE + given.reference)]
    for seed in seeds:
        train(given.file, given.trials, seed, url)
    with contextlib.closing(open_database(url)) as database:
        found = {seed: read(database, seed) for seed in seeds}
    reference = [found[seed] for seed in seeds[given.seeds :]]
    print("\n".join(describe([found[seed] for seed in seeds[: given.seeds]], reference)))


def train(file: str, trials: int, seed: int, url: str) -> None:
    """Trains one study to its verdict; one that has it already is left as it is."""
    command = [
        *(sys.executable, "-m", "tuner", "run", str(ROOT / file), "--name", name_of(seed)),
        *("--storage", url, "--set", f"budget.trials={trials}"),
        *("--set", f"search.seed={seed}"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    print(f"seed {seed}: done", file=sys.stderr)


def name_of(seed: int) -> str:
    """Returns the name of the study of a seed."""
    return f"seed-{seed}"


def read(database: Database, seed: int) -> Tuned:
    """Returns what a study found."""
    study = Studies(database).get(name_of(seed))
    summary = None if study is None else read_summary(database, study)
    if summary is None or summary.confirmed is None or summary.compared is None:
        raise SystemExit(f"the study of seed {seed} has no verdict: was it stopped?")
    name = {trial: config.optimizer for trial, config in summary.confirmed.configs.items()}
    beats = summary.compared.beats or {}
    return Tuned(
        {name[arm.trial]: arm.mean for arm in summary.confirmed.verdict.arms},
        {(better, worse) for better, beaten in beats.items() for worse in beaten},
    )


def describe(judged: Sequence[Tuned], reference: Sequence[Tuned]) -> Iterator[str]:
    """Yields the lines of the table."""
    names = sorted({name for tuned in reference for name in tuned.means})
    costs = {name: [_cost(tuned.means.get(name)) for tuned in reference] for name in names}
    true = _separate(costs)
    yield f"| optimizer | median of {len(reference)} searches | middle half | beats |"
    yield "| --- | --- | --- | --- |"
    for name in sorted(names, key=lambda name: statistics.median(costs[name])):
        low, middle, high = statistics.quantiles(costs[name], n=4)
        beaten = ", ".join(sorted(worse for better, worse in true if better == name)) or "none"
        yield f"| {name} | {middle:.4g} | {low:.4g} to {high:.4g} | {beaten} |"
    yield ""
    pairs = len(names) * (len(names) - 1) // 2
    yield f"The reference separates {len(true)} of {pairs} pairs."
    yield ""
    yield "| study | of these pairs separated | ordered wrongly | other pairs separated |"
    yield "| --- | --- | --- | --- |"
    for seed, tuned in enumerate(judged):
        right, wrong = tuned.beats & true, _turn(true) & tuned.beats
        told = "; ".join(f"{a} over {b}" for a, b in sorted(wrong)) or "none"
        other = len(tuned.beats) - len(right) - len(wrong)
        yield f"| seed {seed} | {len(right)} of {len(true)} | {told} | {other} |"
    claims = sum(len(tuned.beats) for tuned in reference)
    misled = sum(len(_turn(true) & tuned.beats) for tuned in reference)
    found = sum(len(tuned.beats & true) for tuned in reference) / len(reference)
    yield ""
    yield (
        f"Each of the {len(reference)} studies of the reference, read by itself: {found:.1f} of "
        f"these pairs separated on average, {misled} of {claims} claims ordered wrongly."
    )


def _cost(mean: float | None) -> float:
    return math.inf if mean is None else mean


def _separate(costs: Mapping[str, Sequence[float]]) -> set[tuple[str, str]]:
    """Returns the pairs that are told apart, the better one first, by Holm's steps."""
    tested = []
    for one, other in itertools.combinations(costs, 2):
        both = zip(costs[one], costs[other], strict=True)
        p, side = flip_signs([0.0 if a == b else a - b for a, b in both])
        tested.append((p, (one, other) if side < 0 else (other, one)))
    found = set()
    for place, (p, pair) in enumerate(sorted(tested)):
        if p * (len(tested) - place) > LEVEL:
            break
        found.add(pair)
    return found


LEVEL = 0.05
"""The probability, at most, that the reference separates any pair wrongly."""


def _turn(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(worse, better) for better, worse in pairs}


if __name__ == "__main__":
    main()
