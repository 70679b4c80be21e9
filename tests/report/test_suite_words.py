from __future__ import annotations

from tests.analysis.suites import even, plan_of, result_of, suite_of
from tuner.analysis.suite import SuiteSummary, summarize_suite
from tuner.report.suite_words import conclude_suite


def told(summary: SuiteSummary) -> str:
    return " ".join(conclude_suite(summary))


def test_the_best_score_and_its_speed_up_come_first() -> None:
    text = told(suite_of(digits=even(4, 6, 3), parabola=even(8, 8, 4)))
    assert text.startswith("muon scores best, 1.000 of at most 1, over 2 workloads. ")
    assert "muon reaches the targets 2.00 times as fast as adamw, in steps" in text
    assert "each of them makes 50% of a profile" in text


def test_who_misses_a_target_is_not_called_faster() -> None:
    late = even(4, 6, 1) | {"muon": [None] * 3}
    text = told(suite_of(digits=even(4, 6, 1), parabola=even(4, 6, 1), own=late))
    assert "muon scores best" in text
    assert "as fast as" not in text
    assert (
        "muon misses the target of own, where it counts as infinitely slow; its speed-up is "
        in text
    )
    assert "over the other 2 alone" in text


def test_a_baseline_that_is_best_is_not_compared_with_itself() -> None:
    text = told(suite_of(digits=even(4, 2, 3)))
    assert "adamw scores best" in text
    assert "as fast as" not in text
    assert "One workload tells nothing about others." in text


def test_equals_are_named_together() -> None:
    text = told(suite_of(digits=even(4, 6, 4)))
    assert "adam and muon score best, 1.000" in text
    assert "adam reaches the targets 1.50" in text
    assert "muon reaches the targets 1.50" in text


def test_a_suite_in_which_all_miss_has_no_best() -> None:
    nothing = {name: [None] * 3 for name in ("adam", "adamw", "muon")}
    assert "No optimizer scores anything" in told(suite_of(digits=nothing))


def test_what_is_missing_is_told() -> None:
    text = told(suite_of(digits=even(4, 6, 3), parabola="it has no study yet"))
    assert "over 1 of 2 workloads" in text
    assert "parabola is not scored: it has no study yet." in text
    assert conclude_suite(suite_of(parabola="gone")) == [
        "No workload is scored yet.",
        "parabola is not scored: gone.",
    ]


def test_targets_that_the_baseline_s_runs_set_are_told() -> None:
    text = told(summarize_suite(plan_of(), [result_of(even(4, 6, 3))]))
    assert "The target of digits is the value that adamw's runs end with" in text
    assert "adamw's runs end with" not in told(suite_of(digits=even(4, 6, 3)))


def test_seconds_that_runs_shared_are_not_compared() -> None:
    plan = plan_of()
    text = told(summarize_suite(plan, [result_of(even(4, 6, 3), plan, lanes=3)]))
    assert "Seconds are not compared: runs of digits trained as one" in text
    assert "Seconds are those of" in told(suite_of(digits=even(4, 6, 3)))
