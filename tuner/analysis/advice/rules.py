"""All rules of advice, in the order in which they are told: the most useful first."""

from __future__ import annotations

from collections.abc import Iterable

from tuner.analysis.advice import ranking_rules, search_rules, training_rules
from tuner.analysis.advice.calls import to_calls
from tuner.analysis.advice.evidence import Advice, Evidence, Rule
from tuner.analysis.importance import Importance
from tuner.analysis.summary import StudySummary
from tuner.domain.trials import TrialRecord

RULES: tuple[Rule, ...] = (
    training_rules.all_diverged,
    search_rules.range_edge,
    training_rules.many_diverged,
    ranking_rules.unsettled,
    ranking_rules.starved,
    ranking_rules.noise,
    search_rules.late_bloomers,
    training_rules.still_falling,
    search_rules.few_trials,
    training_rules.idle_device,
    search_rules.no_effect,
)


def advise(
    summary: StudySummary, curves: Iterable[TrialRecord], importance: Importance
) -> tuple[Advice, ...]:
    """Returns the advice on a study, the most useful first; none on one that confirms another.

    Args:
        summary: The study.
        curves: Its trials with their evaluations; of a large study, a part.
        importance: The shares that its choices explain.
    """
    if summary.spec.confirmation is not None:
        return ()
    evaluations = {record.number: record.evaluations for record in curves}
    evidence = Evidence(summary, evaluations, importance)
    advice = (advice for rule in RULES for advice in rule(evidence))
    passed = summary.spec.passed
    return tuple(advice if passed is None else to_calls(advice, passed))
