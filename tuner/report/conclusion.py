"""The conclusion of a study in words: the optimizer to use, how it compares, and doubts."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from tuner.analysis.averages import line_of
from tuner.analysis.summary import SETTLED_FROM, BestTrial, OptimizerSummary, StudySummary
from tuner.domain.catalog.averages import NO_AVERAGE
from tuner.domain.catalog.dimensions import format_value
from tuner.domain.lengths import FULL, length_of, tell_length
from tuner.domain.names import name_some
from tuner.domain.objective import is_reached, tell_metric, tell_target, tell_value
from tuner.domain.printable import cut, printable
from tuner.domain.search import COMPARE
from tuner.domain.study_section import StudySection
from tuner.domain.trials import WARM_START, Outcome, TrialConfig, TrialRecord, bent_defaults
from tuner.report.comparison import tell_comparison
from tuner.report.tables import number
from tuner.report.verdict_words import tell_confirmed

if TYPE_CHECKING:
    from tuner.analysis.confirmed import Confirmed

_LONGEST_ERROR = 200
_REASONS = 3
_NAMED = 6


def conclude(summary: StudySummary) -> list[str]:
    """Returns the conclusion of a study as sentences, the most important first."""
    return [printable(sentence) for sentence in _conclude(summary)]


def _conclude(summary: StudySummary) -> list[str]:
    best = summary.best
    if best is None:
        return [_explain_nothing(summary), *_tell_failures(summary)]
    if summary.spec.search.mode == COMPARE and not _is_confirmed(summary):
        told = [*_conclude_comparison(summary), *_tell_lengths(summary, best)]
        return [*told, *_tell_failures(summary)]
    leader = next(o for o in summary.optimizers if o.optimizer == best.config.optimizer)
    settings = ", ".join(
        f"{key}={format_value(value)}" for key, value in best.config.optimizer_values.items()
    )
    study, number = summary.spec.study, best.record.number
    sentences = [
        f"Use {best.config.optimizer} with the {best.config.schedule} schedule ({settings})"
        f"{_describe_average(best.config)}: {_tell_best(study, best.record.value)}{best.basis}"
        f"{f', trial {number}' if number >= 0 else ''}.",
        *_tell_confirmation(summary),
        *tell_comparison(summary),
        *_doubt_target(study, best),
        *_compare_to_last(study, best),
        *_compare_to_default(study, best, leader),
        *_explain_default(summary, leader),
        *_compare_to_runner_up(summary),
        *_tell_warm_start(summary, best),
    ]
    sentences += [*_tell_untried(summary), *_doubt_ranking(summary)]
    sentences += [*_tell_lengths(summary, best), *_doubt_schedule(best)]
    sentences += [*_tell_failures(summary), *_tell_gain(summary)]
    if summary.confirmed is not None and summary.confirmed.race.settled:
        # Where none is fit, that comes first.
        return (
            sentences
            if _is_confirmed(summary)
            else [*tell_confirmed(summary.confirmed), *sentences]
        )
    return [*sentences, _doubt_differences(summary)]


def _conclude_comparison(summary: StudySummary) -> list[str]:
    """Returns the conclusion of a comparison without a verdict: one seed shows nobody better."""
    confirmed = summary.confirmed
    if confirmed is not None and confirmed.race.settled:
        return [*tell_confirmed(confirmed), *tell_comparison(summary)]
    if confirmed is not None:
        told = _tell_confirmation(summary)
    else:
        confirm = shlex.join(("tuner", "study", "confirm", summary.name))
        told = [f"Compare them on fresh seeds: '{confirm}'."]
    return [
        "No optimizer is shown to be better yet: each best value is the luckiest of its trials, on "
        "one seed.",
        *told,
        *tell_comparison(summary),
    ]


def _is_confirmed(summary: StudySummary) -> bool:
    """Tells whether the best trial was found best on fresh seeds."""
    return summary.confirmed is not None and summary.confirmed.winner is not None


def _tell_confirmation(summary: StudySummary) -> list[str]:
    """Returns the verdict on a study's finalists, or how far their race has come."""
    confirmed = summary.confirmed
    if confirmed is None:
        return []
    if _is_confirmed(summary):
        return [*tell_confirmed(confirmed), *_doubt_age(summary, confirmed)]
    if confirmed.race.settled:
        return ["That was the best of the search, on one seed."]
    return [
        f"Its finalists run again: {confirmed.runs} of {confirmed.confirmation.runs} runs at most "
        "are over, and nothing is settled yet."
    ]


def _doubt_age(summary: StudySummary, confirmed: Confirmed) -> list[str]:
    """Returns a sentence on the trials of the search that came after the verdict's finalists."""
    began = confirmed.began_at
    later = [r for r in summary.records if began and r.started_at and r.started_at > began]
    if not later:
        return []
    delete = shlex.join(("tuner", "study", "delete", confirmed.name))
    confirm = shlex.join(("tuner", "study", "confirm", summary.name))
    many = "One trial is" if len(later) == 1 else f"{len(later)} trials are"
    return [
        f"{many} newer than this verdict. For one on all of them: '{delete}', then '{confirm}'."
    ]


def _tell_best(study: StudySection, value: float | None) -> str:
    if study.target is None:
        return f"{tell_metric(study)} {number(value)}"
    if value is None or not is_reached(study, value):
        return f"no trial has reached {tell_target(study)}, and it came nearest"
    return f"it reaches {tell_target(study)} in {tell_value(study, value)}"


def _doubt_target(study: StudySection, best: BestTrial) -> list[str]:
    """Returns a sentence where the target is reached too early to tell trials apart."""
    value = best.record.value
    if value is None or not is_reached(study, value) or len(best.record.evaluations) != 1:
        return []
    return [
        "That is its first evaluation, so trials that reach it sooner are not told apart: set a "
        "harder study.target, or more budget.evaluations."
    ]


def _tell_gain(summary: StudySummary) -> list[str]:
    """Returns a sentence on the gain that more trials are expected to bring."""
    gain = summary.gain
    if gain is None:
        return []
    study = summary.spec.study
    amount = f"{gain.value:.2g} {study.unit if study.target is not None else 'of ' + study.metric}"
    told = amount
    if gain.share is not None and gain.share < 1:
        share = f"{gain.share:.1%}"
        told = f"{amount}, {share} of what is left to 1" if gain.to_one else f"{share} ({amount})"
    return [f"Another {gain.trials} trials are expected to gain {told}."]


def _tell_lengths(summary: StudySummary, best: BestTrial) -> list[str]:
    """Returns sentences on the trials that did not train for a full trial's steps."""
    sentences = []
    attributes = best.record.attributes
    if length_of(attributes) != FULL:
        sentences.append(
            "No trial trained as long as [budget] says: the ranking compares those that "
            f"{tell_length(attributes)}."
        )
    if summary.apart:
        many = "Another trial has" if len(summary.apart) == 1 else f"{len(summary.apart)} more have"
        sentences.append(
            f"{many} trained for longer or shorter, and cannot be ranked with these: a loop that "
            'ends early on purpose should call run.stop("why").'
        )
    stopped = [r.attributes for r in summary.records if "stopped_early" in r.attributes]
    if stopped:
        reasons = Counter(str(a["stopped_early"]) for a in stopped).most_common(_REASONS)
        sentences.append(
            f"{len(stopped)} {'trial' if len(stopped) == 1 else 'trials'} ended early by the "
            f"loop's own decision ({'; '.join(reason for reason, _ in reasons)})."
        )
    return sentences


def _doubt_schedule(best: BestTrial) -> list[str]:
    calls = best.schedule_calls
    if calls is None or any(call["calls"] for call in calls):
        return []
    missing = "took no schedule from its run" if not calls else "never stepped its schedule"
    return [
        f"The training loop {missing}, so {best.config.schedule!r} changed nothing: call "
        "run.schedule(optimizer), and its step() as the loop trains."
    ]


def _doubt_differences(summary: StudySummary) -> str:
    seeds = {r.attributes["seed"] for r in summary.records if "seed" in r.attributes}
    on = f"on {len(seeds)} seeds" if len(seeds) > 1 else "on one seed"
    advice = "treat small differences as undecided."
    repeats = summary.repeats
    if not repeats:
        return f"Every configuration ran once, {on}: {advice}"
    many = "One configuration" if len(repeats) == 1 else f"{len(repeats)} configurations"
    return (
        f"{many} ran more than once, {_describe_spread(repeats)}, all others once, {on}: {advice}"
    )


def _describe_spread(repeats: Sequence[Sequence[TrialRecord]]) -> str:
    """Returns in words the largest difference between values of one configuration."""
    spreads = []
    for repeated in repeats:
        complete = {r.number: r.value for r in repeated if r.outcome is Outcome.COMPLETE}
        values = [value for value in complete.values() if value is not None]
        if len(values) > 1:
            spreads.append((max(values) - min(values), ", ".join(map(str, complete))))
    if not spreads:
        return "but to the end once at most"
    widest, numbers = max(spreads)
    if not widest:
        return "with the same values each time"
    return f"with values up to {widest:.2g} apart (trials {numbers})"


def _explain_nothing(summary: StudySummary) -> str:
    if not summary.finished:
        return "No trial has finished yet."
    endings = (Outcome.PRUNED, Outcome.DIVERGED, Outcome.FAILED)
    counts = [f"{summary.counts[how]} {how.value}" for how in endings if summary.counts[how]]
    return f"No trial was trained to its end ({', '.join(counts)})."


def _tell_failures(summary: StudySummary) -> list[str]:
    """Returns a sentence on the trials that raised, with the error that most of them share."""
    failed = [record for record in summary.records if record.outcome is Outcome.FAILED]
    if not failed:
        return []
    errors = Counter(map(_tell_error, failed))
    error, alike = errors.most_common(1)[0]
    example = next(record.number for record in failed if _tell_error(record) == error)
    often = "" if len(errors) == 1 else f", {alike} of them"
    many = "One trial" if len(failed) == 1 else f"{len(failed)} trials"
    show = shlex.join(("tuner", "trial", "show", summary.name, str(example)))
    return [f"{many} of {len(summary.records)} failed{often} with {error}: see it with '{show}'."]


def _tell_error(record: TrialRecord) -> str:
    """Returns the error of a failed trial in one line, with the name of its file and the line."""
    lines = str(record.attributes.get("error", "")).splitlines()
    place = PurePath(str(record.attributes.get("error_at", ""))).name
    at = f" ({place})" if place else ""
    return f"{cut(lines[0], _LONGEST_ERROR) if lines else 'an unknown error'}{at}"


def _describe_average(config: TrialConfig) -> str:
    if config.average == NO_AVERAGE:
        return ""
    values = config.average_values.items()
    settings = ", ".join(f"{key}={format_value(value)}" for key, value in values)
    return f", and its weights averaged by {config.average} ({settings})"


def _compare_to_last(study: StudySection, best: BestTrial) -> list[str]:
    line = line_of(best.record)
    if not line or line[0][1] is None or study.target is not None:
        return []
    last = line[0][1]
    return [
        f"Its last weights alone reach {number(last)}{_compare(study, last, best.record.value)}."
    ]


def _compare_to_default(
    study: StudySection, best: BestTrial, leader: OptimizerSummary
) -> list[str]:
    if best.record.is_default:
        return [f"Tuning has not beaten {leader.optimizer}'s own defaults."]
    value = best.record.value  # the one that is stated, which may be a mean over fresh seeds
    if leader.default_value is None or value is None:
        return []
    if value == leader.default_value:
        return [f"Tuning has not beaten {leader.optimizer}'s own defaults."]
    on = " on one seed" if best.seeds else ""
    return [
        f"{leader.optimizer}'s defaults {_tell_default(study, leader.default_value)}{on}"
        f"{_compare(study, leader.default_value, value)}."
    ]


def _tell_default(study: StudySection, value: float) -> str:
    if study.target is None:
        return f"reach {number(value)}"
    if not is_reached(study, value):
        return f"do not reach {tell_target(study)}"
    return f"need {tell_value(study, value)}"


def _explain_default(summary: StudySummary, leader: OptimizerSummary) -> list[str]:
    """Returns sentences on the leading optimizer's defaults outside the study file's ranges."""
    spec = summary.spec
    for record in summary.records:
        if record.is_default and record.optimizer == leader.optimizer:
            # What the trial has on record counts: older versions tried defaults as they are.
            bent = bent_defaults(spec, record.proposal.params)
            return [f"{b}." for b in bent if record.proposal.params.get(b.name) == b.value]
    return []


def _compare_to_runner_up(summary: StudySummary) -> list[str]:
    """Returns a sentence on the next optimizer that has been compared, as far as one seed tells."""
    study = summary.spec.study
    ranked = [row for row in summary.optimizers if row.best_value is not None]
    others = [row for row in ranked[1:] if row.settled]
    if not others or _is_confirmed(summary):
        return []
    name, value = others[0].optimizer, others[0].best_value
    if study.target is not None and value is not None and not is_reached(study, value):
        return [f"Next comes {name}, which has not reached it."]
    compared = _compare(study, value, ranked[0].best_value)
    return [f"Next comes {name} with {tell_value(study, value)}{compared}."]


def _tell_warm_start(summary: StudySummary, best: BestTrial) -> list[str]:
    """Returns a sentence on the earlier study that this one started from, if there is one."""
    taken = summary.spec.warm_start
    if taken is None:
        return []
    came = "came" if best.record.proposal.preset == WARM_START else "did not come"
    return [
        f"It started from the best of the study {taken.study} ({taken.trials} complete trials, "
        f"best {taken.best}); the best of this study {came} from there."
    ]


def _tell_untried(summary: StudySummary) -> list[str]:
    """Returns a sentence on the optimizers of the study that no trial was started of."""
    tried = {record.optimizer for record in summary.records}
    if summary.confirmed is not None:
        tried |= {config.optimizer for config in summary.confirmed.configs.values()}
    untried = [name for name in summary.spec.space.optimizers if name not in tried]
    if not untried:
        return []
    return [f"No trial has tried {name_some(untried, most=_NAMED)}."]


def _doubt_ranking(summary: StudySummary) -> list[str]:
    """Returns a sentence where no optimizer has been compared with any other yet."""
    rows = [row for row in summary.optimizers if row.trials]
    unsettled = [row.optimizer for row in rows if not row.settled]
    if len(summary.optimizers) < 2 or not unsettled:
        return []
    if len(rows) == 1:
        return [f"No comparison yet: every trial was of {rows[0].optimizer}."]
    if len(unsettled) < len(rows):
        return []  # the table and the advice name them
    few = f"fewer than {SETTLED_FROM} finished trials"
    return [f"No comparison of optimizers is settled: each has {few}."]


def _compare(study: StudySection, other: float | None, leader: float | None) -> str:
    """Returns in words the ratio of a value to the leader's; nothing unless both are positive."""
    if other is None or leader is None or min(other, leader) <= 0:
        return ""
    if study.target is not None and not is_reached(study, max(other, leader)):
        return ""
    if other == leader:
        return ", the same"
    ratio = other / leader
    if not 0.5 < ratio < 2:
        return f", {ratio:.3g} times the value"
    return f", {abs(ratio - 1):.0%} {'above' if ratio > 1 else 'below'}"
