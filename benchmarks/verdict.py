"""Simulates confirmations of which the truth is known, and judges them as tuner does.

``python -m benchmarks.verdict`` prints the table of docs/statistics.md in some minutes, on one
core; ``--quick`` in some seconds, from a tenth of the studies.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from tuner.analysis.arms import Arm
from tuner.analysis.choice import Interval, interval_of
from tuner.analysis.race import LEVEL, PLANNED
from tuner.analysis.verdict import Verdict, judge

Floats = NDArray[np.float64]

CANDIDATES = 4
"""Candidates of the search for each finalist."""

SHARED = 3.0
"""The standard deviation that seeds give all arms alike, where noise is paired."""

TRUTHS: dict[str, Callable[[int], Floats]] = {
    "equal": np.zeros,
    "one better by 1.5": lambda count: np.where(np.arange(count) == 0, -1.5, 0.0),
    "steps of 0.75": lambda count: 0.75 * np.minimum(np.arange(count), count // CANDIDATES),
    "half better by 1.5": lambda count: np.where(
        np.arange(count) < count // (2 * CANDIDATES), -1.5, 0.0
    ),
    "one better by 6": lambda count: np.where(np.arange(count) == 0, -6.0, 0.0),
}
"""The true means of a search's candidates by name, in paired standard deviations."""


@dataclass(frozen=True)
class Case:
    """A kind of study.

    Attributes:
        finalists: The number of arms.
        truth: How their true means differ.
        paired: Whether a seed moves all arms alike, beside each on its own.
        tail: ``normal``; ``t3`` for Student's t with 3 degrees of freedom; ``uneven`` where a
            quarter of the arms, or one, is thrice as noisy; ``diverging`` where one run in ten
            diverges.
    """

    finalists: int
    truth: str
    paired: bool
    tail: str


@dataclass(frozen=True)
class Study:
    """One simulated study.

    Attributes:
        truth: The true means of its finalists.
        values: Their values on all planned seeds; nan where they diverged.
        single: Whether one candidate was better than all others.
    """

    truth: Floats
    values: Floats
    single: bool


@dataclass(frozen=True)
class Score:
    """What one study shows.

    Attributes:
        false: Whether any claim is wrong.
        plain_false: The same of Holm on all ten seeds.
        found: The share of the best arm's true advantages that are claimed, or nan without any.
        plain_found: The same of Holm on all ten seeds.
        over_all: Whether the best arm is found to beat all others, or nan without a single best.
        plain_over_all: The same of Holm on all ten seeds.
        kept: Whether a best arm wins or is tied with the winner.
        covered: Whether the interval of the winner's mean holds its true mean.
        plain_covered: The same of Student's interval as if it had not been chosen.
        together: Whether the intervals of all differences hold.
        seeds: Seeds per arm.
    """

    false: float
    plain_false: float
    found: float
    plain_found: float
    over_all: float
    plain_over_all: float
    kept: float
    covered: float
    plain_covered: float
    together: float
    seeds: float


def draw(case: Case, generator: np.random.Generator) -> Study:
    """Returns a study whose finalists a search has chosen by one noisy value of each candidate.

    If one candidate is better than all others it is a finalist: otherwise nothing is to be found.

    Args:
        case: The kind of study.
        generator: What draws.
    """
    truth = TRUTHS[case.truth](CANDIDATES * case.finalists)
    best = np.flatnonzero(truth == truth.min())
    while True:
        seen = truth + noise(case, generator, (len(truth),))
        chosen = np.argsort(seen)[: case.finalists]
        if len(best) > 1 or best[0] in chosen:
            break
    means = truth[chosen]
    own = noise(case, generator, (case.finalists, PLANNED))
    if case.tail == "uneven":
        own[: max(1, case.finalists // 4)] *= 3
    if case.tail == "diverging":
        own[generator.random(own.shape) < 0.1] = np.nan
    values = means[:, None] + own
    if case.paired:
        values += SHARED * generator.standard_normal(PLANNED)
    return Study(means, values, len(best) == 1)


def noise(case: Case, generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Returns noise of each arm's own; the difference of two has standard deviation 1.

    Args:
        case: The kind of study.
        generator: What draws.
        shape: How much of it.
    """
    heavy = case.tail == "t3"  # whose variance is 3
    drawn = generator.standard_t(3, shape) / 3**0.5 if heavy else generator.standard_normal(shape)
    return np.asarray(drawn / 2**0.5)


def score(study: Study) -> Score:
    """Returns what tuner's verdict on a study shows, and what Holm on all its seeds does.

    Args:
        study: The study.
    """
    arms = [Arm(trial, tuple(row.tolist())) for trial, row in enumerate(study.values)]
    verdict = judge(arms, "minimize")
    ours = {(pair.better, pair.worse) for pair in verdict.comparisons if pair.beats}
    plain = plain_holm(study.values)
    best = int(np.argmin(study.truth))
    true = {(best, arm) for arm, mean in enumerate(study.truth) if mean > study.truth[best]}
    winner = verdict.arms[0]
    told = study.values[winner.trial, : winner.seeds]
    mean = float(study.truth[winner.trial])
    leaders = verdict.tied or (winner.trial,)
    return Score(
        false=is_wrong(ours, study.truth),
        plain_false=is_wrong(plain, study.truth),
        found=len(true & ours) / len(true) if true else np.nan,
        plain_found=len(true & plain) / len(true) if true else np.nan,
        over_all=float(true <= ours) if study.single else np.nan,
        plain_over_all=float(true <= plain) if study.single else np.nan,
        kept=any(study.truth[arm] == study.truth[best] for arm in leaders),
        covered=holds(winner.interval, mean) if winner.interval else np.nan,
        plain_covered=holds(interval_of(told), mean) if winner.interval else np.nan,
        together=float(are_right(verdict, study.truth)),
        seeds=float(np.mean([arm.seeds for arm in verdict.arms])),
    )


def plain_holm(values: Floats) -> set[tuple[int, int]]:
    """Returns the pairs (better, worse) that Holm finds on all seeds at once, the yardstick.

    Args:
        values: The values of every arm.
    """
    pairs = list(itertools.combinations(range(len(values)), 2))
    first, second = (values[[pair[end] for pair in pairs]] for end in (0, 1))
    gains = first - second
    t = gains.mean(axis=1) / gains.std(axis=1, ddof=1) * gains.shape[1] ** 0.5
    p = np.nan_to_num(2 * stdtr(gains.shape[1] - 1, -np.abs(t)), nan=1.0)  # it knows no divergence
    found = set()
    for step, at in enumerate(np.argsort(p)):
        if p[at] > LEVEL / (len(pairs) - step):
            break
        one, two = pairs[at]
        found.add((one, two) if values[one].mean() < values[two].mean() else (two, one))
    return found


def is_wrong(claims: set[tuple[int, int]], truth: Floats) -> bool:
    """Tells whether any claim (better, worse) is false.

    Args:
        claims: The claims.
        truth: The true means.
    """
    return any(truth[better] >= truth[worse] for better, worse in claims)


def holds(interval: Interval | None, value: float) -> bool:
    """Tells whether a value lies in an interval.

    Args:
        interval: The interval.
        value: The value.
    """
    return interval is not None and interval[0] <= value <= interval[1]


def are_right(verdict: Verdict, truth: Floats) -> bool:
    """Tells whether the intervals of all differences hold the true ones.

    Args:
        verdict: The verdict.
        truth: The true means.
    """
    return all(
        holds(pair.interval, float(truth[pair.worse] - truth[pair.better]))
        for pair in verdict.comparisons
        if pair.interval is not None
    )


def simulate(case: Case, studies: int, seed: int = 0) -> dict[str, float]:
    """Returns the means of the scores of many studies.

    Args:
        case: The kind of study.
        studies: Their number.
        seed: What their draws depend on, with the case.
    """
    generator = np.random.default_rng([seed, case.finalists, case.paired, case.tail == "t3"])
    scores = [vars(score(draw(case, generator))) for _ in range(studies)]
    columns = {name: np.array([row[name] for row in scores], float) for name in scores[0]}
    return {
        name: float(np.nanmean(column)) if not np.isnan(column).all() else np.nan
        for name, column in columns.items()
    }


COLUMNS = {
    "false": "false claim",
    "plain_false": "Holm",
    "found": "pair found",
    "plain_found": "Holm",
    "over_all": "beats all",
    "plain_over_all": "Holm",
    "kept": "best kept",
    "covered": "winner covered",
    "plain_covered": "plain t",
    "together": "all intervals",
}


def table(cases: Sequence[Case], studies: int) -> Iterator[str]:
    """Yields the lines of a table in Markdown, each as soon as it is known.

    Args:
        cases: The kinds of studies, a line each.
        studies: How many of each.
    """
    heads = ["arms", "truth", "noise", *COLUMNS.values(), "seeds"]
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for case in cases:
        means = simulate(case, studies)
        told = [tell(means[name]) for name in COLUMNS]
        kind = f"{case.tail}, {'paired' if case.paired else 'unpaired'}"
        cells = [str(case.finalists), case.truth, kind, *told, f"{means['seeds']:.1f}"]
        yield f"| {' | '.join(cells)} |"


def tell(share: float) -> str:
    """Returns a share as text.

    >>> tell(0.0475), tell(float("nan")), tell(1.0)
    ('.048', '–', '1.000')

    Args:
        share: The share.
    """
    return "–" if np.isnan(share) else f"{share:.3f}".removeprefix("0")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000, help="of each kind (2000)")
    parser.add_argument("--quick", action="store_true", help="a tenth of them")
    arguments = parser.parse_args()
    cases = [
        Case(finalists, truth, paired, tail)
        for finalists in (2, 8)
        for truth in TRUTHS
        for tail in ("normal", "t3", *(("uneven", "diverging") if truth == "equal" else ()))
        for paired in (True, False)
        if finalists == 8 or not truth.startswith("half")
    ]
    studies = arguments.studies // 10 if arguments.quick else arguments.studies
    print(f"{studies} studies a line\n")
    for line in table(cases, studies):
        print(line, flush=True)


if __name__ == "__main__":
    main()
