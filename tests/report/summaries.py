"""Summaries to report on, made by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from tests.optim.networks import EVERY_OPTIMIZER
from tuner.analysis.advice.evidence import Advice
from tuner.analysis.confirmed import Confirmed
from tuner.analysis.importance import Among, Importance, Share
from tuner.analysis.summary import StudySummary, summarize
from tuner.domain.catalog.dimensions import Value
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, Proposal, TrialRecord

STEPS = 40
START = datetime.fromisoformat("2026-01-01T00:00:00")


def make_spec(
    name: str = "some_study", metric: str = "val_loss", direction: str = "minimize", **tables: Any
) -> StudySpec:
    tree: dict[str, Any] = {
        "study": {
            "name": name,
            "workload": "models.digits:Digits",
            "metric": metric,
            "direction": direction,
        },
        "budget": {"trials": 20, "steps": STEPS, "evaluations": 4},
        "space": {
            "breadth": 3,
            "optimizers": list(EVERY_OPTIMIZER),
            "schedules": list(SCHEDULES),
        },
    }
    return StudySpec.model_validate(tree | tables).resolve()


def make_timed_spec() -> StudySpec:
    """Returns the spec of a study that ranks trials by the steps to a loss of 0.5."""
    aim = {"objective": "time_to_target", "target": 0.5}
    return make_spec(study={"name": "some_study", "workload": "models.digits:Digits", **aim})


def trial(
    number: int,
    optimizer: str = "adam",
    value: float | None = None,
    outcome: Outcome = Outcome.COMPLETE,
    preset: str | None = None,
    schedule: str = "constant",
    params: Mapping[str, Value] | None = None,
) -> TrialRecord:
    point = {"optimizer": optimizer, "schedule": schedule} | dict(params or {})
    return TrialRecord(
        number,
        outcome,
        Proposal(point, preset),
        value=value,
        evaluations={} if value is None else {10: value + 1, 20: value + 0.5, STEPS: value},
        attributes={
            "steps": STEPS,
            "train_s": 2.0,
            "eval_s": 0.5,
            "metrics": {"val_loss": value, "val_accuracy": 0.9},
        },
        started_at=START + timedelta(seconds=number),
        finished_at=START + timedelta(seconds=number + 3),
    )


def summary_of(
    *records: TrialRecord, spec: StudySpec | None = None, confirmed: Confirmed | None = None
) -> StudySummary:
    spec = spec or make_spec()
    return summarize(
        spec.study.name,
        spec,
        records,
        storage="sqlite:///tuner_study.db",
        wall_s=100.0,
        worker_s=150.0,
        confirmed=confirmed,
    )


def with_line(record: TrialRecord, line: Iterable[tuple[float, float | None]]) -> TrialRecord:
    """Returns a trial whose average was compared, with the line as JSON gives it back."""
    points = [list(point) for point in line]
    return replace(record, attributes={**record.attributes, "average_line": points})


def averaging_summary() -> StudySummary:
    """Returns a study in which averaging pays once, and costs once."""
    lines = {1: (0.6, 0.5, 0.4), 2: (0.5, None, 0.7), 3: (0.45, 0.5, 0.55)}
    records = [
        trial(0, "sgd", 0.8, preset="default", params={"average": "none"}),
        trial(1, "adam", 0.4, params={"average": "ema", "ema.one_minus_decay": 0.01}),
        trial(2, "adam", 0.7, params={"average": "ema"}),
        trial(3, "sgd", 0.55, params={"average": "swa"}),
        trial(4, "sgd", 0.9, Outcome.PRUNED, params={"average": "swa"}),
    ]
    for number, values in lines.items():
        line = zip((0.0, 0.5, 1.0), values, strict=True)
        records[number] = with_line(records[number], line)
    spec = make_spec(train={"average": {"choices": ["none", "ema", "swa"]}})
    return summary_of(*records, spec=spec)


def mixed_summary(spec: StudySpec | None = None) -> StudySummary:
    """Returns a study in which something of everything happened."""
    if spec is None:  # the best rate lies at the end of its range
        spec = make_spec(optimizer={"adam": {"lr": {"low": 1e-4, "high": 0.1, "log": True}}})
    return summary_of(
        trial(0, "sgd", 0.8, preset="default"),
        trial(1, "adam", 0.5, preset="default"),
        trial(2, "adam", 0.25, schedule="cosine", params={"adam.lr": 0.1}),
        trial(3, "adam", 0.9, Outcome.PRUNED),
        trial(4, "muon", outcome=Outcome.DIVERGED),
        trial(5, "muon", outcome=Outcome.FAILED),
        trial(6, "sgd", outcome=Outcome.RUNNING),
        spec=spec,
    )


def half_settled_summary() -> StudySummary:
    """Returns a study in which five trials of adam and one of sgd, which did better, have ended."""
    spec = make_spec(space={"optimizers": ["sgd", "adam"]})
    own = [trial(number, "adam", 0.5 + number / 10) for number in range(5)]
    return summary_of(*own, trial(5, "sgd", 0.4), spec=spec)


def advised_summary(pieces: int = 1) -> StudySummary:
    """Returns a study with advice, and with the importance of some choices."""
    advice = Advice("noise", "It <b>may</b> be noise.", "tuner study confirm 'a `b` <c>'")
    shares = Share("adam.lr", 0.42, 0.001, 0.9), Share("adam.eps", None, 0.7, 0.1)
    inside = (
        Among("adam", 30, 0.5, shares),
        Among("sgd", 30, 0.0, shares[1:]),
        Among("muon", 2, None),
    )
    choice = Among(None, 62, 0.2, (Share("optimizer", 0.2, 0.01, 1.0),))
    measured = Importance(choice, inside)
    return replace(mixed_summary(), advice=(advice,) * pieces, importance=measured)
