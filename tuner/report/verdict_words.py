"""The verdict on finalists in words: who beats whom, by how much, and what is not known."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tuner.domain.objective import tell_objective
from tuner.domain.printable import printable
from tuner.report.tables import number

if TYPE_CHECKING:  # numpy comes with these
    from tuner.analysis.choice import Interval
    from tuner.analysis.comparisons import Comparison
    from tuner.analysis.confirmed import Confirmed
    from tuner.analysis.verdict import ArmResult, Verdict

_WHY = {
    "simpler": "it has fewer settings to tune",
    "cheaper": "it is cheaper",
    "better": "it has the best mean",
    "diverged": "it diverged least often",
    "first": "it came first",
}


def tell_verdict(
    verdict: Verdict,
    names: Mapping[int, str],
    metric: str,
    *,
    redrawn: bool = False,
    lost: str = "diverged",
) -> list[str]:
    """Returns the verdict as sentences, the most important first.

    Args:
        verdict: The verdict.
        names: What to call each trial's arm, such as ``adamw with cosine (lr 0.0031)``.
        metric: The name of the metric.
        redrawn: Whether each seed also split the data anew.
        lost: What happened where an arm has no value.
    """
    words = _Words(verdict, names, metric, lost)
    return [printable(sentence) for sentence in words.say(redrawn)]


def tell_confirmed(confirmed: Confirmed) -> list[str]:
    """Returns the verdict on a study's finalists as sentences, the most important first."""
    names = {trial: _describe(confirmed, trial) for trial in confirmed.configs}
    metric = tell_objective(confirmed.spec.study)
    lost = "diverged" if confirmed.spec.study.target is None else "missed the target"
    sentences = tell_verdict(confirmed.verdict, names, metric, redrawn=confirmed.redrawn, lost=lost)
    if confirmed.heats.ran:
        sentences.append(
            f"Before that {len(confirmed.heats.all)} finalists, the best of each optimizer, ran on "
            f"{confirmed.heats.first} seeds, which chose one of each and do not count."
        )
    for trial, numbers in confirmed.failed.items():
        example = shlex.join(("tuner", "trial", "show", confirmed.name, str(numbers[0])))
        rerun = shlex.join(("tuner", "trial", "rerun", confirmed.name, str(numbers[0]), "--extend"))
        sentences.append(
            f"{names[trial]} has {len(numbers)} failed runs, which count as if they had {lost}: "
            f"see one with '{example}', and have it run again with '{rerun}'."
        )
    return sentences


def _describe(confirmed: Confirmed, trial: int) -> str:
    rate = confirmed.rate(trial)
    return confirmed.tell(trial) + ("" if rate is None else f" (lr {rate:.2g})")


class _Words:
    """A verdict with the names that it is told in."""

    def __init__(self, verdict: Verdict, names: Mapping[int, str], metric: str, lost: str) -> None:
        self._verdict, self._metric, self._lost = verdict, metric, lost
        self._why = _WHY | {"diverged": f"it {lost} least often"}
        self._names = {
            arm.trial: names.get(arm.trial, f"trial {arm.trial}") for arm in verdict.arms
        }

    def say(self, redrawn: bool) -> list[str]:
        verdict = self._verdict
        if verdict.winner is None:
            return [*self._explain_nothing(), *self._tell_divergences()]
        sentences = self._tell_tied() if verdict.tied else self._tell_beaten()
        sentences += [*self._tell_mean(verdict.arms[0]), *self._tell_divergences()]
        return [*sentences, *self._tell_end(), *self._tell_meaning(redrawn)]

    def _tell_beaten(self) -> list[str]:
        """Returns sentences on a winner that nothing is tied with."""
        winner = self._names[self._verdict.winner or 0]
        beaten = [pair for pair in self._own() if pair.beats]
        out = [self._names[a.trial] for a in self._verdict.arms if a.standing == "diverged"]
        if not beaten:
            others = f"; {_join(out)} {self._lost} too often" if out else ""
            alone = f"{winner} is the only finalist{' left' if out else ''}{others}"
            return [f"{alone}: there is nothing to compare it with."]
        # The closest rival matters most.
        ranks = {arm.trial: place for place, arm in enumerate(self._verdict.arms)}
        beaten.sort(key=lambda pair: ranks[pair.worse])
        sentences = [f"{winner} {self._tell_gain(beaten[0])}."]
        if len(beaten) > 1:
            told = [self._tell_gain(pair).removeprefix("beats ") for pair in beaten[1:]]
            sentences.append(f"It also beats {'; '.join(told)}.")
        return sentences

    def _tell_tied(self) -> list[str]:
        """Returns sentences on a winner that others are tied with."""
        verdict = self._verdict
        winner = self._names[verdict.winner or 0]
        others = [trial for trial in verdict.tied if trial != verdict.winner]
        among = _join([winner, *(self._names[trial] for trial in others)])
        between = "between" if len(others) == 1 else "among"
        sentences = [
            f"No difference {between} {among} can be shown over {_seeds(verdict.seeds)}; {winner} "
            f"is chosen, since {self._why.get(verdict.reason, 'it came first')}."
        ]
        for pair in self._own():
            if len(others) == 1 and not pair.beats and pair.gain:
                sentences.append(
                    f"In the mean {self._names[pair.better]} is better{self._tell_amount(pair)}."
                )
        beaten = [self._tell_gain(pair) for pair in self._own() if pair.beats]
        if beaten:
            sentences.append(f"{winner} {'; '.join(beaten)}.")
        claimed = {pair.worse for pair in self._own() if pair.beats}
        rest = [
            self._names[arm.trial]
            for arm in verdict.arms
            if arm.standing == "beaten" and arm.trial not in claimed
        ]
        if rest:
            verb = "is" if len(rest) == 1 else "are"
            sentences.append(f"{_join(rest)} {verb} beaten by another of them.")
        return sentences

    def _tell_gain(self, pair: Comparison) -> str:
        told = f"beats {self._names[pair.worse]}{self._tell_amount(pair)}"
        told = f"{told} over {_seeds(pair.seeds)}"
        if pair.implied:
            return f"{told} (this follows from other comparisons)"
        return f"{told}, by ranks" if pair.test == "ranks" else told

    def _tell_amount(self, pair: Comparison) -> str:
        """Returns by how much, with its interval.

        That is in per cent where all values are above 0 and no more than 100% is told: a loss
        above 0 cannot fall by more.
        """
        if pair.gain is None:
            return ""
        ends = pair.relative_interval or ()
        if pair.relative is not None and all(abs(end) <= 1 for end in (pair.relative, *ends)):
            share = _interval(pair.relative_interval, 100)
            return f" by {_short(100 * pair.relative)}%{share} in {self._metric}"
        return f" by {_short(pair.gain)}{_interval(pair.interval)} in {self._metric}"

    def _own(self) -> list[Comparison]:
        """Returns the comparisons of the winner."""
        winner = self._verdict.winner
        return [p for p in self._verdict.comparisons if winner in (p.better, p.worse)]

    def _tell_mean(self, arm: ArmResult) -> list[str]:
        if arm.mean is None:
            return []
        mean = f"{number(arm.mean)}{_interval(arm.interval)}"
        name = self._names[arm.trial]
        known = _seeds(arm.seeds - arm.diverged)
        return [f"The mean {self._metric} of {name} over {known} is {mean}."]

    def _tell_divergences(self) -> list[str]:
        return [
            f"{self._names[arm.trial]} {self._lost} on {arm.diverged} of {_seeds(arm.seeds)}."
            for arm in self._verdict.arms
            if arm.diverged
        ]

    def _explain_nothing(self) -> list[str]:
        if not any(arm.seeds for arm in self._verdict.arms):
            return ["No seed that all finalists train on is over yet: nothing can be said."]
        advice = "Search again with lower learning rates." if self._lost == "diverged" else ""
        return [
            f"No finalist can be used: each of them {self._lost} on at least half of its seeds. "
            f"{advice}".strip()
        ]

    def _tell_end(self) -> list[str]:
        verdict = self._verdict
        if not verdict.tied or verdict.seeds >= verdict.planned:
            return []
        return [
            f"Only {verdict.seeds} of {_seeds(verdict.planned)} were trained: more may tell them "
            "apart."
        ]

    def _tell_meaning(self, redrawn: bool) -> list[str]:
        """Returns sentences on what the intervals cover."""
        splits = "and splits of the data" if redrawn else "on the same split of the data"
        told = f"Intervals cover other seeds {splits}, nothing else."
        if not self._verdict.comparisons:
            return [told]
        return [
            told,
            f"At most {self._verdict.level:.0%} of such verdicts claim a difference that is not "
            "there.",
        ]


def _interval(interval: Interval | None, factor: float = 1.0) -> str:
    if interval is None:
        return ""
    return f" [{_short(factor * interval[0])}, {_short(factor * interval[1])}]"


def _short(value: float) -> str:
    """Returns a number in three digits: seeds are few, and tell no more."""
    return number(float(f"{value:.3g}"))


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
