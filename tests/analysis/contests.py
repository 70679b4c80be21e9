"""Studies that compare optimizers, made by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.report.summaries import make_spec, summary_of, trial
from tuner.analysis.compared import compare_optimizers
from tuner.analysis.confirmed import summarize_confirmation
from tuner.analysis.finalists import plan_confirmation
from tuner.analysis.summary import StudySummary
from tuner.domain.confirmation import CONFIRMS, HEAT_SEEDS, REPEAT, Confirm
from tuner.domain.search import COMPARE
from tuner.domain.spec import StudySpec
from tuner.domain.trials import DEFAULT, RANDOM, Outcome, TrialRecord

Rows = Mapping[str, Sequence[float | None]]
"""The values of each optimizer's trials: its defaults, half of the others drawn evenly, then those
that were chosen; None where one diverged."""


def contest_spec(optimizers: Sequence[str], trials: int, **tables: Any) -> StudySpec:
    """Returns the spec of a study that compares optimizers."""
    return make_spec(
        search={"mode": COMPARE},
        budget={"trials": trials, "steps": 40, "evaluations": 4},
        space={"optimizers": list(optimizers), "schedules": ["constant"], "breadth": 1},
        **tables,
    )


def records_of(rows: Rows) -> list[TrialRecord]:
    """Returns the trials of a study, the first of every optimizer before the second of any."""
    each = max(len(values) for values in rows.values())
    found: list[TrialRecord] = []
    for place in range(each):
        preset = DEFAULT if place == 0 else RANDOM if place <= each // 2 else None
        for name, values in rows.items():
            if place < len(values):
                outcome = Outcome.DIVERGED if values[place] is None else Outcome.COMPLETE
                rate = {f"{name}.lr": 1e-3 * (1 + place)}
                number = len(found)
                found.append(trial(number, name, values[place], outcome, preset, params=rate))
    return found


def contest(
    rows: Rows,
    records: Sequence[TrialRecord] | None = None,
    fresh: Rows | None = None,
    **tables: Any,
) -> StudySummary:
    """Returns a study that compares optimizers, with its comparison.

    Args:
        rows: The values of each optimizer's trials.
        records: The trials, if they are others than those that have these values.
        fresh: The values of each optimizer's runs on fresh seeds, if it is confirmed.
        tables: Other tables of its spec.
    """
    records = records_of(rows) if records is None else list(records)
    each = max(4, *(len(values) for values in rows.values()))
    summary = summary_of(*records, spec=contest_spec(tuple(rows), each * len(rows), **tables))
    runs: list[TrialRecord] = []
    if fresh is not None:
        confirmation = plan_confirmation(summary, "0" * 32, Confirm(cost=10))
        assert confirmation is not None
        met: Counter[str] = Counter()
        for finalist in confirmation.finalists:
            name = str(finalist.params["optimizer"])
            # The best of the search wins the heats, and races alone.
            values = [*[float(met[name])] * HEAT_SEEDS, *([] if met[name] else fresh[name])]
            met[name] += 1
            for repeat, value in enumerate(values):
                outcome = Outcome.DIVERGED if value is None else Outcome.COMPLETE
                run = trial(len(runs), name, value, outcome)
                noted = {**run.attributes, CONFIRMS: finalist.trial, REPEAT: repeat}
                runs.append(replace(run, attributes=noted))
        spec = summary.spec.model_copy(update={"confirmation": confirmation})
        confirmed = summarize_confirmation("some_study.confirm", spec, runs)
        summary = summary_of(*records, spec=summary.spec, confirmed=confirmed)
    bests = {row.best_trial for row in summary.optimizers}
    curves = [record for record in records if record.number in bests]
    return replace(summary, compared=compare_optimizers(summary, curves, runs))
