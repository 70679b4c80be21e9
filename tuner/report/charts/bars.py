"""Bars: the cost of each optimizer, the importance of choices, and where trials were stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from tuner.domain.catalog.hyperparameters import name_in_torch
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.charts.frame import draw_rows
from tuner.report.charts.scales import Scale
from tuner.report.charts.svg import Chart, Key, Panel, write_element, write_number
from tuner.report.charts.view import View
from tuner.report.tables import duration, tell_count

if TYPE_CHECKING:  # numpy comes with it
    from tuner.analysis.importance import Among

_HEIGHT = 18
_RUNGS = 24


def draw_cost(view: View) -> Chart | None:
    """Draws the seconds that the trials of each optimizer took, in training and in evaluations."""
    costs = {name: _seconds(records) for name, records in view.by_optimizer.items()}
    most = max((train + evaluate for train, evaluate in costs.values()), default=0.0)
    if not most:
        return None
    scale = Scale(0, most * 1.02)
    rows = []
    for name, (train, evaluate) in costs.items():
        kind = view.palette.kind(name)
        bars = [_bar(scale, 0, train, kind), _bar(scale, train, train + evaluate, f"{kind} hollow")]
        rows.append((name, _HEIGHT, bars))
    total = sum(train + evaluate for train, evaluate in costs.values())
    dearest = max(costs, key=lambda name: sum(costs[name]))
    most_of_it = f"; {dearest} took most, {sum(costs[dearest]) / total:.0%}"
    finding = (
        f"{duration(total)} of the devices' time in all: {duration(view.summary.training_s)} in "
        f"training, {duration(view.summary.evaluation_s)} in evaluations"
        f"{most_of_it if len(costs) > 1 else ''}."
    )
    return Chart(
        "cost",
        "Time by optimizer",
        finding,
        (Panel(draw_rows(rows, finding, scale, "seconds of training and evaluation, all trials")),),
        (Key("training", "ink", "bar-solid"), Key("evaluation", "ink hollow", "bar-solid")),
        (),
        ("optimizer", "trials", "training", "evaluation", "steps"),
        tuple(
            (
                name,
                str(len(view.by_optimizer[name])),
                duration(train),
                duration(evaluate),
                f"{sum(int(_read(r, 'steps')) for r in view.by_optimizer[name]):,}",
            )
            for name, (train, evaluate) in costs.items()
        ),
    )


def draw_rungs(view: View) -> Chart | None:
    """Draws at which step trials were stopped, pruned ones and diverged ones."""
    stops: dict[int, Counter[Outcome]] = {}
    for record in view.summary.records:
        if record.outcome in (Outcome.PRUNED, Outcome.DIVERGED):
            stops.setdefault(int(_read(record, "steps")), Counter())[record.outcome] += 1
    if not stops:
        return None
    places = sorted(stops)
    width, note = 1, ""
    if len(places) > _RUNGS:
        width = -(-(places[-1] + 1) // _RUNGS)
        note = f"Each bar holds {width:,} steps."
        binned: dict[int, Counter[Outcome]] = {}
        for step, counts in stops.items():
            binned.setdefault(step // width * width, Counter()).update(counts)
        stops, places = binned, sorted(binned)
    most = max(sum(counts.values()) for counts in stops.values())
    scale = Scale(0, most * 1.05, label=lambda value: f"{value:g}" if value == int(value) else "")
    rows = []
    for step in places:
        pruned, diverged = stops[step][Outcome.PRUNED], stops[step][Outcome.DIVERGED]
        bars = [
            _bar(scale, 0, pruned, "ink hollow"),
            _bar(scale, pruned, pruned + diverged, "ink hatched"),
        ]
        rows.append((f"step {step:,}" if width == 1 else f"from step {step:,}", _HEIGHT, bars))
    over = view.summary.finished
    count = {o: view.summary.counts[o] for o in (Outcome.PRUNED, Outcome.DIVERGED)}
    steps = round(sum(_read(r, "steps") for r in view.summary.records if r.outcome in count))
    told = " and ".join(f"{many:,} {how.value}" for how, many in count.items() if many)
    finding = f"{told} of {tell_count(over, 'trial')}, after {steps:,} steps in all."
    return Chart(
        "rungs",
        "Where trials were stopped",
        finding,
        (Panel(draw_rows(rows, finding, scale, "trials")),),
        (Key("pruned", "ink hollow", "bar-solid"), Key("diverged", "ink hatched", "bar-solid")),
        (note,) if note else (),
        ("step", "pruned", "diverged"),
        tuple(
            (f"{step:,}", str(stops[step][Outcome.PRUNED]), str(stops[step][Outcome.DIVERGED]))
            for step in places
        ),
    )


def draw_importance(view: View) -> list[Chart]:
    """Draws the shares that choices explain: that of the optimizer, then those inside of each."""
    measured = view.summary.importance
    if measured is None:
        return []
    among = [measured.choice, *measured.inside]
    known = [one for one in among if one is not None and any(s.share for s in one.shares)]
    return [_draw_among(one) for one in known]


def _draw_among(one: Among) -> Chart:
    whose = f"the settings of {one.optimizer}" if one.optimizer else "the choice of optimizer"
    verb = "explain" if one.optimizer else "explains"
    finding = (
        f"Among {tell_count(one.trials, 'trial')}, {whose} {verb} "
        f"{one.explained or 0:.0%} of the differences."
    )
    left = (f"There are too few trials for {', '.join(one.left_out)}.",) if one.left_out else ()
    return draw_shares(
        f"importance-{one.optimizer or 'all'}".replace(" ", "-"),
        f"Importance of {whose}",
        [(name_in_torch(share.name), share.share) for share in one.shares],
        finding,
        left,
    )


def draw_shares(
    name: str,
    title: str,
    shares: Sequence[tuple[str, float | None]],
    finding: str,
    notes: tuple[str, ...] = (),
) -> Chart:
    """Draws shares of a whole as bars.

    Args:
        name: The chart's anchor.
        title: Its heading.
        shares: A name and its share from 0 to 1 each; None where it is not told from noise.
        finding: What they show, in words.
        notes: How to read them.
    """
    scale = Scale(0, 1, label=lambda value: f"{value:.0%}")
    told = tuple((one, "not told from noise" if s is None else f"{s:.1%}") for one, s in shares)
    rows = [
        (f"{one}: {words}", _HEIGHT, [_bar(scale, 0, share, "ink")])
        for (one, words), (_, share) in zip(told, shares, strict=True)
        if share is not None
    ]
    noise = [one for one, share in shares if share is None]
    if noise:
        notes = (f"Not told from noise: {', '.join(noise)}.", *notes)
    panel = Panel(draw_rows(rows, finding, scale, "share of the differences that it explains"))
    return Chart(name, title, finding, (panel,), (), notes, ("choice", "share"), told)


def _bar(scale: Scale, low: float, high: float, kind: str) -> Markup:
    start, end = (100 * scale.place(value) for value in (low, high))
    return write_element(
        "rect",
        x=f"{write_number(start, 2)}%",
        width=f"{write_number(end - start, 2)}%",
        y=2,
        height=_HEIGHT - 4,
        class_=f"bar {kind}",
    )


def _seconds(records: Sequence[TrialRecord]) -> tuple[float, float]:
    return sum(_read(r, "train_s") for r in records), sum(_read(r, "eval_s") for r in records)


def _read(record: TrialRecord, attribute: str) -> float:
    value = record.attributes.get(attribute)
    return float(value) if isinstance(value, int | float) else 0.0
