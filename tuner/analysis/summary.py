"""The results of a study so far: counts, the best trial, a ranking of optimizers, and costs."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tuner.analysis.averages import AverageSummary, summarize_average
from tuner.analysis.edges import edge_names
from tuner.analysis.fusing import FusingSummary, summarize_fusing
from tuner.analysis.gain import ExpectedGain, expect_gain
from tuner.domain.catalog.averages import NO_AVERAGE
from tuner.domain.fuse_plan import FusePlan
from tuner.domain.lengths import split_by_length
from tuner.domain.spec import StudySpec
from tuner.domain.states import Activity, StudyState
from tuner.domain.trials import Decoder, Outcome, TrialConfig, TrialRecord, decode, ran_own_defaults
from tuner.errors import NotFoundError, SpecError

if TYPE_CHECKING:  # these import numpy, which tables of other things need not
    from tuner.analysis.advice.evidence import Advice
    from tuner.analysis.compared import Compared
    from tuner.analysis.confirmed import Confirmed
    from tuner.analysis.importance import Importance

_ROUNDING = 1e-9
"""Full trials by which sums of their parts may be off."""

SETTLED_FROM = 5
"""Finished trials, complete, pruned or diverged, from which on an optimizer has been compared."""


@dataclass(frozen=True)
class OptimizerSummary:
    """The results of one optimizer's trials.

    Attributes:
        optimizer: Its name.
        trials: Trials that started.
        best_value: Its best complete value, or None.
        best_trial: The trial that reached it, or None.
        best_schedule: That trial's schedule, or None.
        default_value: The value that its own defaults reached, or None.
        complete: Trials trained to the end.
        pruned: Trials stopped because they were behind.
        diverged: Trials whose loss became infinite or NaN.
        failed: Trials that raised.
        settled: Whether as many trials of it have finished as a comparison takes.
    """

    optimizer: str
    trials: int
    best_value: float | None
    best_trial: int | None
    best_schedule: str | None
    default_value: float | None
    complete: int
    pruned: int
    diverged: int
    failed: int
    settled: bool


@dataclass(frozen=True)
class BestTrial:
    """The best complete trial of a study.

    Attributes:
        record: The trial.
        config: Its hyperparameters.
        edges: Searched hyperparameters whose value lies at an end of its range.
        is_winner: Whether it is the best; not so if a person has chosen it.
        seeds: The fresh seeds that its value is the mean over, those left out on which it has none;
            0 where it is that of the trial.
    """

    record: TrialRecord
    config: TrialConfig
    edges: tuple[str, ...]
    is_winner: bool = True
    seeds: int = 0

    @property
    def basis(self) -> str:
        """The words that tell what its value is the mean of; none if it is of one run."""
        plural = "s" if self.seeds > 1 else ""
        return f" in the mean over {self.seeds} fresh seed{plural}" if self.seeds else ""

    @property
    def label(self) -> str:
        """The words that tell which trial it is."""
        return f"Trial {self.record.number}" if self.record.number >= 0 else "The usual defaults"

    @property
    def title(self) -> str:
        """The words by which exported code calls it."""
        return "The winner" if self.is_winner else "A trial"

    @property
    def full_steps(self) -> int:
        """The steps of a full trial, which the schedule spans even if its loop returned earlier."""
        attributes = self.record.attributes
        return int(attributes.get("total_steps", attributes["steps"]))

    @property
    def unread(self) -> tuple[str, ...]:
        """The settings that its loop never asked its run for, so that they changed nothing."""
        return tuple(self.record.attributes.get("unread", ()))

    @property
    def schedule_calls(self) -> tuple[Mapping[str, int | None], ...] | None:
        """The calls of each schedule's ``step()``; None where one followed every optimizer step.

        Each entry has the number of ``calls``, and the trial's ``steps`` and the
        ``optimizer_steps`` from one call to the next, None where they changed. It is empty where
        the loop took no schedule.
        """
        calls = self.record.attributes.get("schedule_calls")
        return None if calls is None else tuple(calls)


@dataclass(frozen=True)
class StudySummary:
    """The results of a study so far.

    Attributes:
        name: The study's name.
        spec: Its resolved spec.
        storage: Its database's URL without the password.
        counts: Trials by outcome.
        best: The best complete trial, or None.
        optimizers: One entry an optimizer, best first.
        averages: One entry an average, best first; none where no trial averages.
        records: Every trial, by number, without its evaluations.
        apart: Complete trials that have trained for longer or shorter than the ranked ones.
        wall_s: Seconds during which at least one worker lived.
        training_s: Seconds spent in training steps, all trials together.
        evaluation_s: Seconds spent in evaluations, all trials together.
        worker_s: Seconds all workers lived, added up.
        steps: Optimizer steps taken, all trials together.
        state: Whether it runs, is paused or stopped.
        fusing: The results of training trials fused, or None where none was fused or planned.
        exhausted: The reason that nothing is left to try, or None where something is.
        used: The full trials' worth of training used of a budget in full trials, counting what
            trials in training may yet take; None without such a budget.
        gain: The gain that more trials are expected to bring, or None where little is known.
        confirmed: Its finalists on fresh seeds, or None where they have not run again.
        compared: The comparison of its optimizers, or None where it compares none.
        importance: The shares that its choices explain, or None where they were not measured.
        advice: The next steps that its results give rise to, the most useful first.
    """

    name: str
    spec: StudySpec
    storage: str
    counts: dict[str, int]
    best: BestTrial | None
    optimizers: tuple[OptimizerSummary, ...]
    averages: tuple[AverageSummary, ...]
    records: tuple[TrialRecord, ...]
    apart: tuple[TrialRecord, ...]
    wall_s: float
    training_s: float
    evaluation_s: float
    worker_s: float
    steps: int
    state: StudyState = StudyState.RUNNING
    fusing: FusingSummary | None = None
    exhausted: str | None = None
    used: float | None = None
    gain: ExpectedGain | None = None
    confirmed: Confirmed | None = None
    compared: Compared | None = None
    importance: Importance | None = None
    advice: tuple[Advice, ...] = ()

    @property
    def finished(self) -> int:
        """The number of trials that are over, however they ended."""
        return sum(self.counts[outcome] for outcome in Outcome if outcome.is_over)

    @property
    def activity(self) -> Activity:
        """Whether a worker trains it, could, or is to wait; or whether it is done."""
        unfinished = sum(self.counts[outcome] for outcome in Outcome if not outcome.is_over)
        if not unfinished and self._is_used_up:
            return Activity.DONE
        if self.state is not StudyState.RUNNING:
            return Activity(self.state.value)
        return Activity.RUNNING if self.counts[Outcome.RUNNING] else Activity.IDLE

    @property
    def _is_used_up(self) -> bool:
        """Whether its budget allows no further trial, or nothing is left to try."""
        budget = self.spec.budget
        if self.exhausted is not None or len(self.records) >= budget.trials:
            return True
        if budget.wall_time is not None and self.wall_s >= budget.wall_time:
            return True
        limit, used = budget.full_trials, self.used
        return limit is not None and used is not None and limit - used < 1 - _ROUNDING

    @property
    def repeats(self) -> list[tuple[TrialRecord, ...]]:
        """The trials of each configuration that ran more than once, complete or not."""
        decoder = Decoder(self.spec)
        similar: dict[Hashable, list[TrialRecord]] = defaultdict(list)
        for record in self.records:
            if record.outcome.is_over and record.outcome is not Outcome.FAILED:
                similar[decoder.sketch(record.proposal)].append(record)
        alike: dict[str, list[TrialRecord]] = defaultdict(list)
        for record in (r for records in similar.values() if len(records) > 1 for r in records):
            config = asdict(decoder.decode(record.proposal))
            alike[json.dumps(config, sort_keys=True)].append(record)
        repeats = [tuple(records) for records in alike.values() if len(records) > 1]
        return sorted(repeats, key=lambda records: records[0].number)

    @property
    def trials_per_hour(self) -> float:
        """The finished trials per hour of wall time."""
        return 3600 * self.finished / self.wall_s if self.wall_s else 0.0

    @property
    def steps_per_s(self) -> float:
        """The optimizer steps per second of wall time."""
        return self.steps / self.wall_s if self.wall_s else 0.0

    @property
    def overhead(self) -> float:
        """The share of the workers' time outside training and evaluation, between 0 and 1."""
        if not self.worker_s:
            return 0.0
        return max(0.0, 1 - (self.training_s + self.evaluation_s) / self.worker_s)


def summarize(
    name: str,
    spec: StudySpec,
    records: Sequence[TrialRecord],
    *,
    storage: str,
    wall_s: float,
    worker_s: float,
    state: StudyState = StudyState.RUNNING,
    plans: Collection[FusePlan] = (),
    exhausted: str | None = None,
    used: float | None = None,
    confirmed: Confirmed | None = None,
) -> StudySummary:
    """Returns the results of a study so far.

    Args:
        name: Its name.
        spec: Its resolved spec.
        records: Its trials.
        storage: Its database's URL without the password.
        wall_s: Seconds during which at least one worker lived.
        worker_s: Seconds all workers lived, added up.
        state: Whether it runs, is paused or stopped.
        plans: The decisions how many trials train as one, one for each kind of device.
        exhausted: The reason that nothing is left to try, or None.
        used: The full trials' worth of training used of a budget in full trials, or None.
        confirmed: Its finalists on fresh seeds, or None. Once their race is over, its winner is the
            best trial.
    """
    counts = Counter(record.outcome.value for record in records)
    ranked, apart = split_by_length(records)
    best = _find_winner(records, confirmed) or _first(spec, ranked)
    own, rivals = _by_optimizer(records), _by_optimizer(ranked)
    summaries = [
        _summarize_optimizer(spec, optimizer, own[optimizer], rivals[optimizer])
        for optimizer in spec.space.optimizers
    ]
    return StudySummary(
        name=name,
        spec=spec,
        storage=storage,
        counts={outcome.value: counts.get(outcome.value, 0) for outcome in Outcome},
        best=_describe_best(spec, best, confirmed) if best else None,
        optimizers=tuple(
            sorted(summaries, key=lambda s: (_rank(spec, s.best_value), s.best_trial or 0))
        ),
        averages=_summarize_averages(spec, records, {record.number for record in apart}),
        records=tuple(sorted(records, key=lambda record: record.number)),
        apart=tuple(sorted(apart, key=lambda record: record.number)),
        wall_s=wall_s,
        training_s=_total(records, "train_s"),
        evaluation_s=_total(records, "eval_s"),
        worker_s=worker_s,
        steps=round(_total(records, "steps")),
        state=state,
        fusing=summarize_fusing(records, plans),
        exhausted=exhausted,
        used=used,
        gain=expect_gain(spec, records),
        confirmed=confirmed,
    )


def _find_winner(records: Sequence[TrialRecord], confirmed: Confirmed | None) -> TrialRecord | None:
    """Returns the trial whose configuration won on fresh seeds, with their mean as its value.

    The value of the search would be the lucky one that it was chosen for.
    """
    if confirmed is None or confirmed.winner is None:
        return None
    own = (r for r in records if r.number == confirmed.winner and r.outcome is Outcome.COMPLETE)
    found = next(own, confirmed.examples.get(confirmed.winner))
    return None if found is None else replace(found, value=confirmed.mean_of(confirmed.winner))


def refuse_companion(summary: StudySummary) -> None:
    """Refuses to name the winner of a study that confirms another one: that one has the verdict.

    Raises:
        SpecError: If it does.
    """
    if summary.spec.confirmation is not None:
        raise SpecError(
            f"The study {summary.name!r} confirms another one, and has no winner of its own: its "
            "best run was lucky. Name the other study, which has the verdict."
        )


def choose_trial(summary: StudySummary, number: int) -> StudySummary:
    """Returns a summary in which a trial takes the place of the best one.

    Args:
        summary: The study.
        number: The number of the trial.

    Raises:
        NotFoundError: If there is no such trial, or it is not complete.
    """
    for record in summary.records:
        if record.number == number and record.outcome is Outcome.COMPLETE:
            chosen = replace(_describe_best(summary.spec, record), is_winner=False)
            return replace(summary, best=chosen)
    found = next((r.outcome.value for r in summary.records if r.number == number), None)
    raise NotFoundError(
        f"The study {summary.name!r} has no complete trial {number}"
        + (": there is none of that number." if found is None else f": that one is {found}.")
        + f" See them with: tuner trial list {shlex.quote(summary.name)}"
    )


def best_of(spec: StudySpec, records: Sequence[TrialRecord]) -> TrialRecord | None:
    """Returns the ranked trial with the best value, the earliest among equals, or None."""
    return _first(spec, split_by_length(records)[0])


def _first(spec: StudySpec, ranked: Iterable[TrialRecord]) -> TrialRecord | None:
    return min(ranked, key=lambda r: (_rank(spec, r.value), r.number), default=None)


def _by_optimizer(records: Iterable[TrialRecord]) -> dict[str, list[TrialRecord]]:
    found: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        found[record.optimizer].append(record)
    return found


def _summarize_optimizer(
    spec: StudySpec, optimizer: str, own: Sequence[TrialRecord], rivals: Sequence[TrialRecord]
) -> OptimizerSummary:
    best = _first(spec, rivals)
    default = _first(spec, [record for record in rivals if ran_own_defaults(spec, record)])
    outcomes = Counter(record.outcome for record in own)
    return OptimizerSummary(
        optimizer=optimizer,
        trials=len(own),
        best_value=best.value if best else None,
        best_trial=best.number if best else None,
        best_schedule=best.schedule if best else None,
        default_value=default.value if default else None,
        complete=outcomes[Outcome.COMPLETE],
        pruned=outcomes[Outcome.PRUNED],
        diverged=outcomes[Outcome.DIVERGED],
        failed=outcomes[Outcome.FAILED],
        settled=sum(outcomes[o] for o in _COMPARED) >= SETTLED_FROM,
    )


_COMPARED = (Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED)
"""How the trials end by which optimizers are compared."""


def _summarize_averages(
    spec: StudySpec, records: Sequence[TrialRecord], apart: Collection[int]
) -> tuple[AverageSummary, ...]:
    if spec.train.averages == (NO_AVERAGE,):
        return ()
    own: dict[str, list[TrialRecord]] = {average: [] for average in spec.train.averages}
    decoder = Decoder(spec)
    for record in records:
        own.setdefault(decoder.decode(record.proposal).average, []).append(record)
    summaries = [
        summarize_average(average, trials, lambda value: _rank(spec, value), apart)
        for average, trials in own.items()
    ]
    return tuple(sorted(summaries, key=lambda s: (_rank(spec, s.best_value), s.best_trial or 0)))


def _describe_best(
    spec: StudySpec, record: TrialRecord, confirmed: Confirmed | None = None
) -> BestTrial:
    seeds = 0
    if confirmed is not None and confirmed.winner is not None:
        winner = confirmed.verdict.arms[0]
        seeds = winner.seeds - winner.diverged
    edges = tuple(edge_names(spec, record))
    return BestTrial(record, decode(spec, record.proposal), edges, seeds=seeds)


def _rank(spec: StudySpec, value: float | None) -> float:
    if value is None:
        return math.inf
    return value if spec.study.ranking == "minimize" else -value


def _total(records: Sequence[TrialRecord], attribute: str) -> float:
    return math.fsum(float(_number(record.attributes.get(attribute))) for record in records)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
