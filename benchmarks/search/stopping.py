"""Replays whole studies, and tells where they would have ended by themselves, and at what loss."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.search.play import Play
from benchmarks.search.replay import CurvesOf
from benchmarks.search.spaces import present_space, with_length
from benchmarks.search.surrogate import Surrogate
from benchmarks.search.tables import Table
from benchmarks.search.training import Params
from tuner.analysis.gain import AHEAD, expect_gain, is_enough
from tuner.domain.spec import StudySpec
from tuner.search.knowledge import Knowledge


@dataclass(frozen=True)
class Moment:
    """A study at a moment at which it starts a trial, or at its end.

    Attributes:
        started: Trials that have started.
        evaluations: The training of all of them, in evaluations.
        best: The best value of a complete trial.
        share: The gain expected of ten more trials as a share of the best value.
        ends: Whether it may end by itself here.
    """

    started: int
    evaluations: int
    best: float
    share: float
    ends: bool


Studying = Generator[list[Params], list[Sequence[float]], list[Moment]]


def study(spec: StudySpec, seed: int, knowledge: Knowledge) -> Studying:
    """Plays a whole study; see :mod:`benchmarks.search.replay`.

    Args:
        spec: The space, and the length and number of trials.
        seed: The worker's seed.
        knowledge: The portfolio and priors.
    """
    play = Play(spec, seed, knowledge, foresees=False)
    moments = []
    while True:
        cohort = play.find_promoted(1)
        if not cohort:
            moments.append(look(spec, play))
            if moments[-1].started == spec.budget.trials:
                return moments
            drawn = play.propose(1)
            cohort = play.start(drawn, (yield [trial.params for trial in drawn]))
        play.train(cohort)


def look(spec: StudySpec, play: Play) -> Moment:
    """Returns a study as it stands."""
    records = play.shown()
    gain = expect_gain(spec, records)
    return Moment(
        len(records),
        play.search.evaluations,
        play.search.best_by(math.inf),
        math.inf if gain is None or gain.share is None else gain.share,
        is_enough(spec, records, gain),
    )


def stop(name: str, steps: int, seeds: int, knowledge: Knowledge) -> dict[str, Any]:
    """Returns what studies of a workload at a length save and lose where they end by themselves.

    Args:
        name: The workload.
        steps: The length.
        seeds: The number of studies.
        knowledge: What they know beforehand.
    """
    spec = with_length(present_space(), steps)
    curves_of = Surrogate(Table.load(name), steps).curves_of
    played = [_play(study(spec, seed, knowledge), curves_of) for seed in range(seeds)]
    pairs = []
    for moments in played:
        at = {moment.started: moment for moment in moments}
        pairs += [
            (now.share, 1 - later.best / now.best)
            for now in moments
            if (later := at.get(now.started + AHEAD)) and math.isfinite(now.share) and now.best
        ]
    ends = [next((m for m in moments if m.ends), moments[-1]) for moments in played]
    lasts = [moments[-1] for moments in played]
    return {
        "workload": name,
        "steps": steps,
        "trials": float(np.median([end.started for end in ends])),
        "saved": [
            1 - end.evaluations / last.evaluations for end, last in zip(ends, lasts, strict=True)
        ],
        "lost": [
            end.best / last.best - 1 if last.best else 0.0
            for end, last in zip(ends, lasts, strict=True)
        ],
        "expected": pairs,
    }


def _play(studying: Studying, curves_of: CurvesOf) -> list[Moment]:
    points = next(studying)
    while True:
        try:
            points = studying.send(curves_of(points).tolist())
        except StopIteration as end:
            found: list[Moment] = end.value
            return found


def describe(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the figures as a table, a row a workload and length, and the calibration."""
    lines = [
        "| workload | steps | trials | saved | lost, median | lost, worst |",
        "|" + " --- |" * 6,
    ]
    every: dict[str, list[float]] = {"saved": [], "lost": []}
    pairs: list[tuple[float, float]] = []
    for row in rows:
        saved, lost = np.array(row["saved"]), np.array(row["lost"])
        every["saved"] += saved.tolist()
        every["lost"] += lost.tolist()
        pairs += row["expected"]
        cells = f"{saved.mean():.0%} | {np.median(lost):.1%} | {lost.max():.1%}"
        lines.append(f"| {row['workload']} | {row['steps']} | {row['trials']:.0f} | {cells} |")
    lost = np.array(every["lost"])
    lines.append(
        f"\nsaved {np.mean(every['saved']):.0%}; lost {lost.mean():.2%} in the mean, "
        f"more than 1% in {(lost > 0.01).mean():.0%} and 5% in {(lost > 0.05).mean():.0%}\n"
    )
    shares = np.array(pairs)
    for low, high in ((0, 0.002), (0.002, 0.005), (0.005, 0.01), (0.01, 0.03), (0.03, 0.1)):
        own = shares[(shares[:, 0] >= low) & (shares[:, 0] < high)]
        lines.append(
            f"| {low:.1%} to {high:.1%} | {len(own)} | {own[:, 0].mean():.2%} | "
            f"{own[:, 1].mean():.2%} | {(own[:, 1] > 0.01).mean():.0%} |"
        )
    return "\n".join(lines)
