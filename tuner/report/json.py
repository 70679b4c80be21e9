"""A study's report as one JSON object, for programs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tuner.analysis.summary import StudySummary
from tuner.domain.objective import describe_objective
from tuner.domain.trials import WARM_START, TrialRecord
from tuner.report.suite_words import conclude_suite
from tuner.report.verdict_words import tell_confirmed

if TYPE_CHECKING:
    from tuner.analysis.compared import Compared
    from tuner.analysis.confirmed import Confirmed, Tested
    from tuner.analysis.profiles import Score
    from tuner.analysis.suite import SuiteSummary, WorkloadResult


def to_json(summary: StudySummary) -> dict[str, Any]:
    """Returns a study's report as plain values: times in seconds, None where not known yet."""
    spec, best = summary.spec, summary.best
    return {
        "study": summary.name,
        "workload": spec.study.workload,
        "metric": spec.study.metric,
        "direction": spec.study.direction,
        **describe_objective(spec.study),
        "storage": summary.storage,
        "state": summary.state.value,
        "activity": summary.activity.value,
        "exhausted": summary.exhausted,
        "budget": spec.budget.model_dump(mode="json", exclude_none=True),
        "full_trials_used": summary.used,
        "expected_gain": None if summary.gain is None else dataclasses.asdict(summary.gain),
        "counts": summary.counts,
        "best": best
        and {
            "trial": best.record.number,
            "value": best.record.value,
            "seeds": best.seeds,
            "optimizer": best.config.optimizer,
            "schedule": best.config.schedule,
            "params": best.config.to_json(),
            "metrics": best.record.attributes.get("metrics", {}),
            "groups": best.record.attributes.get("groups", []),
            "at_edge": list(best.edges),
        },
        **_describe_confirmation(summary.confirmed),
        "comparison": None if summary.compared is None else _describe_comparison(summary.compared),
        "optimizers": [dataclasses.asdict(optimizer) for optimizer in summary.optimizers],
        "warm_start": spec.warm_start
        and {
            "study": spec.warm_start.study,
            "trials": spec.warm_start.trials,
            "value": spec.warm_start.value,
            "led": best is not None and best.record.proposal.preset == WARM_START,
        },
        "averages": [dataclasses.asdict(average) for average in summary.averages],
        "apart": [_describe_length(record) for record in summary.apart],
        "stopped_early": [
            _describe_length(record)
            for record in summary.records
            if "stopped_early" in record.attributes
        ],
        "importance": _describe_importance(summary),
        "advice": [dataclasses.asdict(advice) for advice in summary.advice],
        "wall_s": summary.wall_s,
        "training_s": summary.training_s,
        "evaluation_s": summary.evaluation_s,
        "worker_s": summary.worker_s,
        "overhead": summary.overhead,
        "fusing": None if summary.fusing is None else dataclasses.asdict(summary.fusing),
        "trials_per_hour": summary.trials_per_hour,
        "steps": summary.steps,
        "steps_per_s": summary.steps_per_s,
    }


def _describe_importance(summary: StudySummary) -> list[dict[str, Any]]:
    """Returns what each choice explains: of the optimizer first, then inside of each optimizer."""
    if summary.importance is None:
        return []
    choice, inside = summary.importance.choice, summary.importance.inside
    return [dataclasses.asdict(among) for among in (*([choice] if choice else []), *inside)]


def _describe_confirmation(confirmed: Confirmed | None) -> dict[str, Any]:
    """Returns the finalists with their values on fresh seeds, and the verdict on them."""
    if confirmed is None:
        return {"confirmation": None, "verdict": None}
    verdict, race = confirmed.verdict, confirmed.race
    values = {arm.trial: arm.values for arm in confirmed.arms}
    return {
        "confirmation": {
            "study": confirmed.name,
            "seeds": race.seeds,
            "settled": race.settled,
            "runs": confirmed.runs,
            "heats": [
                {
                    "trial": arm.trial,
                    "optimizer": confirmed.configs[arm.trial].optimizer,
                    "values": arm.values[: confirmed.heats.first],
                    "races": arm.trial in values,
                }
                for arm in (confirmed.heats.all if confirmed.heats.ran else ())
            ],
            "finalists": [
                {
                    "trial": arm.trial,
                    "name": confirmed.tell(arm.trial),
                    "optimizer": confirmed.configs[arm.trial].optimizer,
                    "schedule": confirmed.configs[arm.trial].schedule,
                    "mean": arm.mean,
                    "sd": arm.deviation,
                    "interval": arm.interval,
                    "diverged": arm.diverged,
                    "standing": arm.standing,
                    "values": values[arm.trial],
                    "test": {
                        name: _describe_test(confirmed.test_of(arm.trial, name))
                        for name in confirmed.tested
                    },
                }
                for arm in verdict.arms
            ],
        },
        "verdict": {
            "winner": confirmed.winner,
            "tied": list(verdict.tied),
            "sentence": tell_confirmed(confirmed)[0],
            "comparisons": [dataclasses.asdict(pair) for pair in verdict.comparisons],
        },
    }


def _describe_comparison(compared: Compared) -> dict[str, Any]:
    """Returns the tuning of each optimizer, its curves included, and who beats whom."""
    beats = compared.beats or {}
    speeds = {speed.optimizer: dataclasses.asdict(speed) for speed in compared.speeds}
    return {
        "target": None if compared.target is None else dataclasses.asdict(compared.target),
        "optimizers": [
            {
                **dataclasses.asdict(tuning),
                "draws": tuning.draws.values,
                "random": None if random is None else dataclasses.asdict(random),
                "gain": tuning.gain,
                "relative_gain": tuning.relative_gain,
                "speed": speeds.get(tuning.optimizer),
                "beats": beats.get(tuning.optimizer),
            }
            for tuning, random in ((one, one.draws.curve) for one in compared.tunings)
        ],
        "undertuned": [dataclasses.asdict(one) for one in compared.undertuned],
    }


def _describe_test(tested: Tested) -> dict[str, Any]:
    return {"mean": tested.mean, "sd": tested.deviation, "values": tested.values}


def _describe_length(record: TrialRecord) -> dict[str, Any]:
    """Returns the steps a trial trained, its value, and the reason if its loop stopped it early."""
    told = {name: record.attributes.get(name) for name in ("steps", "total_steps", "stopped_early")}
    return {"trial": record.number, "value": record.value, **told}


def to_suite_json(summary: SuiteSummary) -> dict[str, Any]:
    """Returns a suite's report as plain values, None where a target was missed or nothing is known.

    The scores come by steps and by seconds, the best first; ``profile`` has the share of targets
    reached by the ratio to the fewest.
    """
    return {
        "suite": summary.name,
        "baseline": summary.baseline,
        "optimizers": list(summary.optimizers),
        "scored": len(summary.scored),
        "workloads": [_describe_workload(workload) for workload in summary.workloads],
        "scores": {
            "steps": [_describe_score(score) for score in summary.steps],
            "seconds": [_describe_score(score) for score in summary.seconds],
        },
        "conclusion": conclude_suite(summary),
    }


def _describe_score(score: Score) -> dict[str, Any]:
    return {
        "optimizer": score.optimizer,
        "score": score.area,
        "profile": {f"{tau:g}": share for tau, share in score.profile.items()},
        "speedup": dataclasses.asdict(score.speedup),
    }


def _describe_workload(workload: WorkloadResult) -> dict[str, Any]:
    study = None if workload.spec is None else workload.spec.study
    return {
        "workload": workload.name,
        "study": workload.study,
        "metric": study and study.metric,
        "direction": study and study.direction,
        "missing": workload.missing or None,
        "target": workload.target and workload.target.value,
        "set_by": workload.target and workload.target.reached_by,
        "fused": workload.fused,
        "failed": workload.failed,
        "standings": [
            {
                **dataclasses.asdict(standing.speed),
                "seconds": None if workload.fused else standing.speed.seconds,
                "value": standing.value,
                "ratio": standing.ratio,
            }
            for standing in workload.standings
        ],
    }
