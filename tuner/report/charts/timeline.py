"""The trials over time, below the worker that trained each; those of a cohort lie side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.charts.frame import draw_rows
from tuner.report.charts.scales import Scale
from tuner.report.charts.selection import spread
from tuner.report.charts.svg import Chart, Key, Panel, write_element, write_number
from tuner.report.charts.view import View
from tuner.report.tables import duration, tell_count

BARS = 1500
"""The most trials that are drawn."""

_BEGUN = frozenset(("started", "taken_over", "continued", "started_over"))
_HALTED = frozenset(("paused", "released", "ended", "failed_attempts"))
_KINDS = {Outcome.COMPLETE: "", Outcome.DIVERGED: " hatched", Outcome.FAILED: " hatched"}


@dataclass(frozen=True)
class _Span:
    """A time in which a worker trained a trial, in seconds from the study's first."""

    record: TrialRecord
    worker: str
    start: float
    end: float


def draw_timeline(view: View) -> Chart | None:
    """Draws bars for the times in which trials trained; None where no trial has started."""
    spans = _spans(view)
    if not spans:
        return None
    shown = spread(spans, BARS)
    end = max(span.end for span in spans) or 1.0
    scale, title = _scale(end)
    by_worker: dict[str, list[_Span]] = {}
    for span in shown:
        by_worker.setdefault(span.worker, []).append(span)
    rows, told = [], []
    for name, own in sorted(by_worker.items()):
        lanes = _pack(own)
        size = max(3.0, min(12.0, 160 / max(1, len(lanes))))
        bars = [
            _bar(view, span, lane, size, scale, end)
            for lane, row in enumerate(lanes)
            for span in row
        ]
        trials = len({span.record.number for span in own})
        rows.append((f"{name}, {tell_count(trials, 'trial')}", round(size * len(lanes)) + 4, bars))
        spent = duration(sum(span.end - span.start for span in own))
        told.append((name, str(trials), str(len(lanes)), spent))
    finding = _tell(view, rows, end)
    drawn = f"Drawn are {len(shown):,} of {len(spans):,} bars, evenly."
    return Chart(
        "timeline",
        "Workers and cohorts over time",
        finding,
        (Panel(draw_rows(rows, finding, scale, title)),),
        (
            *view.palette.legend(view.optimizers),
            Key("complete", "ink", "bar-solid"),
            Key("pruned or not over", "ink hollow", "bar-solid"),
            Key("diverged or failed", "ink hatched", "bar-solid"),
        ),
        (drawn,) if len(shown) < len(spans) else (),
        ("worker", "trials", "at once, at most", "time of its trials, added up"),
        tuple(told),
    )


def _tell(view: View, rows: Sequence[object], end: float) -> str:
    records = view.summary.records
    lanes = max((int(r.attributes.get("lanes", 1) or 1) for r in records), default=1)
    as_one = f"; up to {lanes} trained as one" if lanes > 1 else ""
    trials = tell_count(sum(record.started_at is not None for record in records), "trial")
    if not view.events:  # who trained them is not on record
        return f"{trials} trained over {duration(end)}{as_one}."
    many = "One worker" if len(rows) == 1 else f"{len(rows)} workers"
    return f"{many} trained {trials} in {duration(end)}{as_one}."


def _spans(view: View) -> list[_Span]:
    """Returns the times of all trials, those between a pause and a promotion left out."""
    started = [r for r in view.summary.records if r.started_at is not None]
    moments = [m for r in started for m in (r.started_at, r.finished_at) if m is not None]
    if not moments:
        return []
    first, last = min(moments), max(moments)

    def since(moment: datetime) -> float:
        return max(0.0, (moment - first).total_seconds())

    told = _times(view, lambda at: since(datetime.fromtimestamp(at, UTC).replace(tzinfo=None)))
    spans = []
    for record in started:
        over = since(record.finished_at or last)
        own = told.get(record.number) or [("all workers", since(record.started_at or first), None)]
        for worker, start, end in own:
            spans.append(_Span(record, worker, start, max(start, over if end is None else end)))
    return sorted(spans, key=lambda span: (span.start, span.record.number))


def _times(
    view: View, since: Callable[[float], float]
) -> Mapping[int, list[tuple[str, float, float | None]]]:
    """Returns when which worker trained each trial, by the trial's number; an open end is None."""
    found: dict[int, list[tuple[str, float, float | None]]] = {}
    names: dict[str, str] = {}
    for event in view.events:
        if event.number is None or event.worker_id is None:
            continue
        own = found.setdefault(event.number, [])
        if own and own[-1][2] is None and event.kind in _BEGUN | _HALTED:
            own[-1] = (*own[-1][:2], since(event.at))
        if event.kind in _BEGUN:
            device = f" on {event.device}" if event.device else ""
            name = names.setdefault(event.worker_id, f"worker {len(names) + 1}{device}")
            own.append((name, since(event.at), None))
    return found


def _pack(spans: Sequence[_Span]) -> list[list[_Span]]:
    """Returns spans in as few lanes as do not overlap."""
    lanes: list[list[_Span]] = []
    for span in spans:
        free = next((lane for lane in lanes if lane[-1].end <= span.start), None)
        if free is None:
            lanes.append([span])
        else:
            free.append(span)
    return lanes


def _bar(view: View, span: _Span, lane: int, size: float, scale: Scale, end: float) -> Markup:
    unit = scale.high / (end * 1.02)
    start, stop = (100 * scale.place(at * unit) for at in (span.start, span.end))
    kind = view.palette.kind(span.record.optimizer)
    return write_element(
        "rect",
        x=f"{write_number(start, 2)}%",
        width=f"{write_number(max(0.1, stop - start), 2)}%",
        y=write_number(lane * size + 2),
        height=write_number(size - 1),
        class_=f"span {kind}{_KINDS.get(span.record.outcome, ' hollow')}",
        data_t=span.record.number,
    )


def _scale(end: float) -> tuple[Scale, str]:
    """Returns the axis of a time in seconds, in the unit that suits it."""
    for unit, size in (("hours", 3600.0), ("minutes", 60.0)):
        if end > 2 * size:
            return Scale(0, end * 1.02 / size), f"{unit} since the first trial started"
    return Scale(0, end * 1.02), "seconds since the first trial started"
