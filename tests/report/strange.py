"""Studies that are easily drawn wrong, made by hand: for the tests of the page, and to look at."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from tests.analysis.contests import contest
from tests.report.summaries import START, averaging_summary, make_spec, summary_of, trial
from tuner.analysis.advice.rules import advise
from tuner.analysis.confirmed import Confirmed, summarize_confirmation
from tuner.analysis.importance import measure_importance
from tuner.analysis.summary import StudySummary, summarize
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Int, Value
from tuner.domain.catalog.optimizers import USUAL_OPTIMIZERS
from tuner.domain.confirmation import CONFIRMS, REPEAT
from tuner.domain.space import branches_of, walk
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, Proposal, TrialRecord
from tuner.report.charts.selection import choose_curves
from tuner.report.charts.view import View
from tuner.store.events import Event

STEPS = 500
EVALUATIONS = 10


@dataclass(frozen=True)
class Recipe:
    """How the trials of a made-up study come out.

    Attributes:
        spec: The study.
        trials: How many there are.
        diverged: The probability that one diverges.
        pruned: The probability that one is pruned.
        value: Returns a trial's last value from its badness, which is 1 at best.
        own: Returns a trial's own hyperparameters.
    """

    spec: StudySpec
    trials: int
    diverged: float = 0.1
    pruned: float = 0.45
    value: Callable[[float], float] = field(default=lambda badness: 0.05 * badness)
    own: Callable[[random.Random], dict[str, Value]] = field(default=lambda draw: {})


def make_records(recipe: Recipe, seed: int = 0) -> list[TrialRecord]:
    """Returns the trials of a made-up study: good near the middle of each range."""
    draw = random.Random(seed)  # noqa: S311 (a made-up study)
    return [_make_record(recipe, number, draw) for number in range(recipe.trials)]


def _make_record(recipe: Recipe, number: int, draw: random.Random) -> TrialRecord:
    spec = recipe.spec
    params = walk(spec, lambda name, axis: _sample(axis, draw))
    optimizer = str(params["optimizer"])
    at = _place(spec, params)
    rank = spec.space.optimizers.index(optimizer)
    badness = (1 + 0.2 * rank) * math.exp(6 * (at - 0.6) ** 2 + draw.gauss(0, 0.15))
    luck = draw.random()
    outcome, last = Outcome.COMPLETE, EVALUATIONS
    if luck < recipe.diverged + (0.5 if at > 0.95 else 0.0):
        outcome, last = Outcome.DIVERGED, draw.randint(1, 3)
    elif luck < recipe.diverged + recipe.pruned and number >= 4:
        outcome, last = Outcome.PRUNED, draw.choice((1, 2, 4))
    curve = {
        step * STEPS // EVALUATIONS: recipe.value(badness * (1 + 6 * (1 - step / EVALUATIONS) ** 2))
        for step in range(1, last + 1)
    }
    value = None if outcome is Outcome.DIVERGED else curve[max(curve)]
    steps = last * STEPS // EVALUATIONS
    started = START + timedelta(seconds=3 * (number // 4))
    last_loss = value
    if spec.study.target is not None and value is not None:
        last_loss = spec.study.target * value / steps
    metrics = {"val_accuracy": 0.9, spec.study.metric: last_loss}
    return TrialRecord(
        number,
        outcome,
        Proposal(params | recipe.own(draw)),
        value=value,
        evaluations=curve,
        attributes={
            "steps": steps,
            "total_steps": STEPS,
            "seed": 0,
            "train_s": 0.004 * steps,
            "eval_s": 0.05 * last,
            "lanes": 4,
            "metrics": metrics,
            **({"diverged_step": steps} if outcome is Outcome.DIVERGED else {}),
        },
        started_at=started,
        finished_at=started + timedelta(seconds=0.25 * last),
    )


def _sample(axis: Dimension, draw: random.Random) -> Value:
    match axis:
        case Choice():
            return draw.choice(axis.choices)
        case Fixed():
            return axis.value
        case Float() | Int():
            low, high = float(axis.low), float(axis.high)
            if axis.log:
                value = math.exp(draw.uniform(math.log(low), math.log(high)))
            else:
                value = draw.uniform(low, high)
            value = min(high, max(low, value))
            return value if isinstance(axis, Float) else round(value)


def _place(spec: StudySpec, params: Mapping[str, Value]) -> float:
    """Returns where the first searched number of a trial's optimizer lies in its range."""
    branch = next(iter(branches_of(spec, params)))
    for key, axis in branch.axes.items():
        value = params.get(branch.param(key))
        if isinstance(axis, Float) and axis.log and isinstance(value, float):
            return math.log(value / axis.low) / math.log(axis.high / axis.low)
    return 0.5


def make_spec_of(name: str, trials: int, **tables: Any) -> StudySpec:
    """Returns the spec of a made-up study."""
    return make_spec(
        name,
        budget={"trials": trials, "steps": STEPS, "evaluations": EVALUATIONS},
        **{"space": {"optimizers": list(USUAL_OPTIMIZERS)}} | tables,
    )


def view_of(recipe: Recipe, *, confirm: bool = False, seed: int = 0) -> View:
    """Returns a made-up study as charts see it."""
    records = make_records(recipe, seed)
    spec = recipe.spec
    summary = summarize(
        spec.study.name,
        spec,
        records,
        storage="sqlite:///tuner.db",
        wall_s=100.0,
        worker_s=150.0,
        confirmed=_confirm(spec, records) if confirm else None,
    )
    importance = measure_importance(spec, records)
    advice = advise(summary, records, importance)
    summary = replace(summary, importance=importance, advice=advice)
    chosen = set(choose_curves(summary))
    curves = {r.number: r.evaluations for r in records if r.number in chosen}
    return View(summary, curves, _events(records))


def _events(records: list[TrialRecord]) -> list[Event]:
    events = []
    for record in records:
        worker = f"w{record.number // 4 % 2}"
        for moment, kind in ((record.started_at, "started"), (record.finished_at, "ended")):
            assert moment is not None
            at = (moment - START).total_seconds() + 1767225600.0  # START, as UTC
            events.append(Event(at, kind, record.number, worker, "host", 1, "cuda:0", ""))
    return sorted(events, key=lambda event: event.at)


def _confirm(spec: StudySpec, records: list[TrialRecord]) -> Confirmed | None:
    """Returns the confirmation of a study's three best trials on ten seeds."""
    complete = [r for r in records if r.outcome is Outcome.COMPLETE]
    best = sorted(complete, key=lambda r: r.value or 0.0)[:3]
    finalists = [{"trial": r.number, "params": dict(r.proposal.params)} for r in best]
    confirmation = {"study": "0" * 32, "finalists": finalists, "seeds": 10, "runs": 30}
    tree = spec.model_dump(mode="json", exclude_none=True) | {"confirmation": confirmation}
    draw = random.Random(1)  # noqa: S311 (made-up values)
    runs = [
        replace(
            finalist,
            number=seed * len(best) + place,
            value=0.1 * (1 + place) * math.exp(draw.gauss(0, 0.08)),
            attributes={**finalist.attributes, CONFIRMS: finalist.number, REPEAT: seed},
        )
        for seed in range(10)
        for place, finalist in enumerate(best)
    ]
    return summarize_confirmation(
        f"{spec.study.name}.confirm", StudySpec.model_validate(tree), runs
    )


def _of(summary: StudySummary) -> View:
    return View(summary, {r.number: r.evaluations for r in summary.records if r.evaluations})


def _failed(number: int, error: str) -> TrialRecord:
    record = trial(number, "adam", outcome=Outcome.FAILED)
    return replace(record, attributes={"error": error, "error_at": "models/mine.py:41"})


def _diverged() -> View:
    return view_of(Recipe(make_spec_of("all_diverged", 24), 24, diverged=1.0))


def _all_failed() -> View:
    error = "RuntimeError: mat1 and mat2 shapes cannot be multiplied (128x64 and 32x10)"
    records = [*(_failed(n, error) for n in range(4)), _failed(4, "KeyError: 'label'")]
    return _of(summary_of(*records, spec=make_spec("all_failed")))


def _markup() -> View:
    name = '<img src=x onerror=alert(1)> & "quotes" ]]>'
    return view_of(Recipe(make_spec_of(name, 30), 30))


def _long_names() -> View:
    name = "a_very_long_name_without_any_space_" * 5
    return view_of(
        Recipe(
            make_spec_of(
                name,
                30,
                space={
                    "optimizers": [
                        "lookahead(adamw)",
                        "pytorch_optimizer:Adan",
                        "schedulefree_adamw",
                    ]
                },
            ),
            30,
        )
    )


def _own() -> View:
    def own(draw: random.Random) -> dict[str, Value]:
        return {
            "width": draw.choice((64, 128, 256)),
            "dropout": draw.uniform(0, 0.5),
            "norm": draw.choice(("batch", "layer")),
        }

    return view_of(Recipe(make_spec_of("own_hyperparameters", 40), 40, own=own))


def _maximised() -> View:
    spec = make_spec(
        "maximised",
        "val_accuracy",
        "maximize",
        budget={"trials": 40, "steps": STEPS, "evaluations": EVALUATIONS},
        space={"optimizers": list(USUAL_OPTIMIZERS)},
    )
    return view_of(Recipe(spec, 40, value=lambda badness: math.exp(-0.03 * badness)))


def _to_target() -> View:
    aim = {
        "objective": "time_to_target",
        "target": 0.5,
        "name": "to_target",
        "workload": "models.digits:Digits",
    }
    spec = make_spec_of("to_target", 30, study=aim)
    view = view_of(Recipe(spec, 30, value=lambda badness: 60 * badness))
    took = {record.number: record.value or STEPS for record in view.summary.records}
    return View(
        view.summary,
        {n: {s: 0.5 * took[n] / s for s in own} for n, own in view.curves.items()},
        view.events,
    )


def _comparison() -> View:
    draw = random.Random(3)  # noqa: S311 (made-up values)
    rows: dict[str, list[float | None]] = {
        name: [
            None if draw.random() < 0.1 else (0.1 + 0.02 * rank) * math.exp(draw.gauss(0, 0.6))
            for _ in range(24)
        ]
        for rank, name in enumerate(USUAL_OPTIMIZERS)
    }
    return _of(contest(rows))


STRANGE: dict[str, Callable[[], View]] = {
    "usual": lambda: view_of(Recipe(make_spec_of("usual", 60), 60), confirm=True),
    "none_finished": lambda: _of(
        summary_of(trial(0, outcome=Outcome.RUNNING), spec=make_spec("none_finished"))
    ),
    "no_trial": lambda: _of(summary_of(spec=make_spec("no_trial"))),
    "one_trial": lambda: _of(summary_of(trial(0, "adam", 0.5), spec=make_spec("one_trial"))),
    "all_diverged": _diverged,
    "all_failed": _all_failed,
    "one_optimizer": lambda: view_of(
        Recipe(make_spec_of("one_optimizer", 30, space={"optimizers": ["adamw"]}), 30)
    ),
    "thousand": lambda: view_of(Recipe(make_spec_of("thousand", 1000), 1000)),
    "markup": _markup,
    "right_to_left": lambda: view_of(Recipe(make_spec_of("مقارنة المحسنات על ספרות", 30), 30)),
    "long_names": _long_names,
    "maximised": _maximised,
    "negative": lambda: view_of(
        Recipe(make_spec_of("negative", 40), 40, value=lambda badness: badness - 2.5)
    ),
    "own_hyperparameters": _own,
    "rate_free": lambda: view_of(
        Recipe(
            make_spec_of(
                "rate_free",
                40,
                space={"optimizers": ["prodigy", "dadapt_adam", "yellowfin", "sgd"]},
            ),
            40,
        )
    ),
    "many_optimizers": lambda: view_of(
        Recipe(
            make_spec_of(
                "many_optimizers",
                90,
                space={
                    "optimizers": [
                        *USUAL_OPTIMIZERS,
                        "lion",
                        "nadam",
                        "radam",
                        "adamax",
                        "prodigy",
                        "schedulefree_sgd",
                    ]
                },
            ),
            90,
        )
    ),
    "to_target": _to_target,
    "comparison": _comparison,
    "averaging": lambda: _of(averaging_summary()),
}
"""Strange studies by name: each is made when it is asked for."""
