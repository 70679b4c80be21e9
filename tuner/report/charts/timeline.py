"""The trials over time, below the worker that trained each; those of a cohort lie side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.charts.curves import spread
from tuner.report.charts.frame import draw_rows
from tuner.report.charts.scales import Scale
from tuner.report.charts.svg import Chart, Key, Panel, write_element, write_number
from tuner.report.charts.view import View
from tuner.report.tables import duration

BARS = 1500
"""The most trials that are drawn."""

_TAKEN = frozenset(("started", "taken_over", "continued", "promoted", "rerun"))
_KINDS = {Outcome.COMPLETE: "", Outcome.DIVERGED: " hatched", Outcome.FAILED: " hatched"}


@dataclass(frozen=True)
class _Span:
    """A trial's time: seconds from the first start."""

    record: TrialRecord
    start: float
    end: float


def draw_timeline(view: View) -> Chart | None:
    """Draws a bar from each trial's start to its end; None where no trial has started."""
    spans = _spans(view.summary.records)
    if not spans:
        return None
    shown = spread(spans, BARS)
    end = max(span.end for span in spans) or 1.0
    scale, title = _scale(end)
    rows, told = [], []
    for name, own in sorted(_by_worker(view, shown).items()):
        lanes = _pack(own)
        size = max(3.0, min(12.0, 160 / max(1, len(lanes))))
        bars = [_bar(view, span, lane, size, scale, end) for lane, row in enumerate(lanes) for span in row]
        rows.append((f"{name}, {len(own)} trials", round(size * len(lanes)) + 4, bars))
        told.append((name, str(len(own)), str(len(lanes)), duration(sum(s.end - s.start for s in own))))
    lanes = max(int(r.attributes.get("lanes", 1) or 1) for r in view.summary.records)
    as_one = f"; up to {lanes} trained as one" if lanes > 1 else ""
    many = "One worker" if len(rows) == 1 else f"{len(rows)} workers"
    finding = f"{many} trained {len(spans):,} trials in {duration(end)}{as_one}."
    notes = []
    if len(shown) < len(spans):
        notes.append(f"Drawn are {len(shown):,} of {len(spans):,} trials, evenly.")
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
        tuple(notes),
        ("worker", "trials", "at once, at most", "time of its trials, added up"),
        tuple(told),
    )


def _spans(records: Sequence[TrialRecord]) -> list[_Span]:
    started = [(r, r.started_at) for r in records if r.started_at is not None]
    if not started:
        return []
    first = min(at for _, at in started)
    known = [moment for r, at in started for moment in (at, r.finished_at) if moment]
    last = max(known)

    def since(moment: datetime) -> float:
        return (moment - first).total_seconds()

    spans = [_Span(r, since(at), since(r.finished_at or last)) for r, at in started]
    return sorted(spans, key=lambda span: (span.start, span.record.number))


def _by_worker(view: View, spans: Sequence[_Span]) -> dict[str, list[_Span]]:
    workers = _workers(view)
    own: dict[str, list[_Span]] = {}
    for span in spans:
        own.setdefault(workers.get(span.record.number, "all workers"), []).append(span)
    return own


def _workers(view: View) -> Mapping[int, str]:
    """Returns the name of the worker that trained each trial last, by the trial's number."""
    ids: dict[int, str] = {}
    names: dict[str, str] = {}
    for event in view.events:
        if event.number is not None and event.worker_id and event.kind in _TAKEN:
            place = len(names) + 1
            device = f" on {event.device}" if event.device else ""
            names.setdefault(event.worker_id, f"worker {place}{device}")
            ids[event.number] = names[event.worker_id]
    return ids


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
