"""The verdict on finalists in words."""

from __future__ import annotations

import re
from dataclasses import replace

from tests.analysis.confirmations import SEEDS, arms_of, cut, noisy_arms
from tuner.analysis.arms import Arm
from tuner.analysis.verdict import judge
from tuner.domain.study_section import Direction
from tuner.report.verdict_words import tell_verdict

NAMES = {0: "adamw with cosine (lr 0.0031)", 1: "momentum", 2: "nadam", 3: "sgd"}


def say(arms: list[Arm], direction: Direction = "minimize", redrawn: bool = False) -> list[str]:
    return tell_verdict(judge(arms, direction), NAMES, "val_loss", redrawn=redrawn)


def test_winner_its_lead_and_the_interval_come_first() -> None:
    first = say(noisy_arms([100, 102]))[0]
    pattern = (
        r"adamw with cosine \(lr 0\.0031\) beats momentum by ([\d.]+)% \[([\d.]+), ([\d.]+)\] "
        r"in val_loss over (\d+) seeds\."
    )
    found = re.fullmatch(pattern, first)
    assert found, first
    gain, low, high, seeds = map(float, found.groups())
    assert 0 < low < gain < high
    assert 5 <= seeds <= SEEDS


def test_all_that_are_beaten_are_named_the_closest_first() -> None:
    first, second, *_ = say(noisy_arms([100, 150, 110, 300], spread=0.5))
    assert " beats nadam by " in first
    assert second.startswith("It also beats ")
    assert "momentum by " in second
    assert "sgd by " in second


def test_tie_is_told_with_its_reason() -> None:
    # A difference of no account, by turns.
    arms = [replace(arm, complexity=arm.trial) for arm in arms_of([100, 102] * 5, [100.9, 101] * 5)]
    first, second, *_ = say(arms)
    assert first.startswith("No difference between adamw with cosine (lr 0.0031) and momentum can ")
    assert "over 10 seeds; adamw with cosine (lr 0.0031) is chosen, since it has fewer" in first
    assert re.match(r"In the mean .* is better by [\d.]+% \[-[\d.]+, [\d.]+\] in val_loss", second)


def test_tie_of_some_names_those_that_are_beaten_too() -> None:
    told = " ".join(say(noisy_arms([100, 100, 150])))
    assert "No difference between " in told
    assert "beats nadam by " in told


def test_single_arm_has_nothing_to_be_compared_with() -> None:
    first, second, third = say(noisy_arms([100])[:1])
    assert first.endswith("is the only finalist: there is nothing to compare it with.")
    assert re.search(r"over 5 seeds is [\d.]+ \[[\d.]+, [\d.]+\]", second)
    assert third.startswith("Intervals cover other seeds")


def test_arms_that_all_diverged_leave_no_winner() -> None:
    told = say(arms_of([None] * SEEDS, [None] * SEEDS))
    assert told[0].startswith("No finalist can be used: each of them diverged")
    assert "momentum diverged on 10 of 10 seeds." in told


def test_nothing_is_said_before_a_seed_has_ended() -> None:
    assert say([Arm(0), Arm(1)]) == [
        "No seed that all finalists train on is over yet: nothing can be said."
    ]


def test_metric_around_zero_is_told_without_per_cent() -> None:
    for means in ([0, 20], [-100, -80]):
        told = say(noisy_arms(means))
        assert "%" not in told[0]
        assert re.search(r"beats momentum by [\d.]+ \[[\d.]+, [\d.]+\] in val_loss", told[0])


def test_larger_values_win_where_the_metric_is_to_grow() -> None:
    assert say(noisy_arms([100, 150]), "maximize")[0].startswith("momentum beats adamw")


def test_divergences_are_told_and_compared_by_ranks() -> None:
    fine = noisy_arms([100])[0]
    worse = Arm(1, tuple(None if s < 2 else (v or 0) + 9 for s, v in enumerate(fine.values)))
    told = say([fine, worse])
    assert told[0].endswith("beats momentum over 10 seeds, by ranks.")
    assert "momentum diverged on 2 of 10 seeds." in told
    alone = say([replace(worse, trial=0)])
    assert any(" over 3 seeds is " in sentence for sentence in alone)
    often = Arm(1, (None,) * SEEDS)
    assert say([fine, often])[0].endswith(
        "is the only finalist left; momentum diverged too often: "
        "there is nothing to compare it with."
    )


def test_race_that_was_cut_short_says_so() -> None:
    told = say([cut(arm, 4) for arm in noisy_arms([100, 100])])
    assert "Only 4 of 10 seeds were trained: more may tell them apart." in told
    assert "Only" not in " ".join(say(noisy_arms([100, 100])))


def test_intervals_say_what_they_cover() -> None:
    arms = noisy_arms([100, 110])
    assert "Intervals cover other seeds on the same split of the data, nothing else." in say(arms)
    assert "Intervals cover other seeds and splits of the data, nothing else." in say(
        arms, redrawn=True
    )


def test_names_of_others_are_cleaned() -> None:
    verdict = judge(noisy_arms([100, 110]), "minimize")
    told = " ".join(tell_verdict(verdict, {0: "evil\x1b[31m"}, "loss"))
    assert "\x1b" not in told
    assert "trial 1" in told


def test_claim_that_only_follows_from_others_says_so() -> None:
    verdict = judge(noisy_arms([100, 110]), "minimize")
    implied = replace(verdict.comparisons[0], implied=True)
    told = tell_verdict(replace(verdict, comparisons=(implied,)), NAMES, "val_loss")
    assert told[0].endswith("seeds (this follows from other comparisons).")


def test_amounts_beyond_a_hundred_per_cent_are_told_in_the_unit_of_the_metric() -> None:
    verdict = judge(noisy_arms([100, 110]), "minimize")
    pair = verdict.comparisons[0]
    for ends, told in (((0.05, 0.9), "%"), ((0.05, 1.2), ""), ((-1.1, 0.9), "")):
        of = replace(pair, gain=10.0, interval=(5.0, 12.0), relative=0.5, relative_interval=ends)
        first = tell_verdict(replace(verdict, comparisons=(of,)), NAMES, "val_loss")[0]
        assert ("%" in first) is bool(told), first
        assert told or " by 10 [5, 12] in val_loss" in first


def test_zero_has_no_sign() -> None:
    told = " ".join(say(arms_of([0.0] * 10, [-1.0] * 10), "maximize"))
    assert "over 10 seeds is 0" in told or "over 5 seeds is 0" in told, told
    assert "-0" not in told
