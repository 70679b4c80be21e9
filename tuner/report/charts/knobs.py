"""Values against a hyperparameter, a panel for each optimizer: where is it good, and how wide?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from tuner.domain.catalog.dimensions import Dimension, Float, Int
from tuner.domain.catalog.hyperparameters import Hyperparameter
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.charts.frame import Frame, draw, mark, rule, shade
from tuner.report.charts.scales import Scale, Tick, fit_scale, is_positive, write_value
from tuner.report.charts.svg import Chart, Key, Panel
from tuner.report.charts.view import View
from tuner.report.tables import tell_count

NEAR = 0.10
"""How far a value may be from its optimizer's best to lie in the band, as a part of the best."""


@dataclass(frozen=True)
class Knob:
    """A hyperparameter of an optimizer, as it is drawn along an axis.

    Attributes:
        optimizer: The optimizer.
        one: The hyperparameter.
        axis: The axis that it is searched on, in the form that is searched.
    """

    optimizer: str
    one: Hyperparameter
    axis: Dimension | None

    @property
    def ends(self) -> tuple[float, float] | None:
        """The ends of its range in torch's form, or None where it has no range."""
        if not isinstance(self.axis, Float | Int):
            return None
        low, high = float(self.axis.low), float(self.axis.high)
        return (1 - high, 1 - low) if self.one.complement else (low, high)

    @property
    def default(self) -> float | None:
        """Its default, or None where that is no number."""
        return _to_number(self.one.default)


def draw_rates(view: View) -> Chart | None:
    """Draws values against learning rates, or an optimizer's main knob where it has none."""
    knobs = [knob for name in view.optimizers if (knob := _find_rate(view, name))]
    return _draw(view, knobs, "rates", "learning rate") if knobs else None


def draw_momenta(view: View) -> Chart | None:
    """Draws values against momentum, or the first beta, of the optimizers that searched it."""
    found = []
    for name in view.optimizers:
        for one in OPTIMIZERS[name].hyperparameters:
            knob = Knob(name, one, _axis_of(view, name, one))
            if one.is_momentum and knob.ends is not None:
                found.append(knob)
                break
    return _draw(view, found, "momenta", "momentum, or first beta") if found else None


def _find_rate(view: View, name: str) -> Knob | None:
    """Returns an optimizer's learning rate, or its first knob that is searched."""
    row = OPTIMIZERS[name]
    ones = sorted(row.hyperparameters, key=lambda one: (one.name != row.rate, one.name != "lr"))
    knobs = [Knob(name, one, _axis_of(view, name, one)) for one in ones]
    searched = (knob for knob in knobs if knob.ends is not None)
    numbers = (knob for knob in knobs if knob.default is not None)
    first = knobs[0] if knobs and knobs[0].one.name in (row.rate, "lr") else None
    if first is not None and first.default is not None and first.ends is not None:
        return first
    return next(searched, first or next(numbers, None))


def _axis_of(view: View, name: str, one: Hyperparameter) -> Dimension | None:
    axes = view.summary.spec.optimizer.get(name, {})
    axis = axes.get(one.search_name)
    if axis is None and one.name in axes:  # searched in torch's form, though it has a complement
        axis = axes[one.name]
        return _complement(axis) if one.complement else axis
    return axis


def _complement(axis: Dimension) -> Dimension:
    if isinstance(axis, Float):
        return Float(low=1 - axis.high, high=1 - axis.low)
    return axis


def _draw(view: View, knobs: Sequence[Knob], name: str, title: str) -> Chart | None:
    shared: dict[str, list[Knob]] = {}
    for knob in knobs:
        shared.setdefault(_axis_name(name, knob), []).append(knob)
    scales = {axis: _x_scale(view, own) for axis, own in shared.items()}
    panels = [_Panel(view, knob, scales[_axis_name(name, knob)]) for knob in knobs]
    drawn = tuple(panel.draw() for panel in panels)
    seen = Counter(kind for panel in panels for kind in panel.seen)
    if not seen - Counter(("default not run", "ends")):
        return None
    near = f"within {NEAR:.0%}"
    return Chart(
        name,
        f"{view.objective} by {title}",
        _find(view, knobs, drawn),
        drawn,
        _legend(view, seen),
        tuple(_notes(view, knobs, name, sum(panel.lost for panel in panels))),
        ("optimizer", "setting", "its best at", view.objective, near, "range searched"),
        tuple(panel.row() for panel in panels),
    )


def _axis_name(name: str, knob: Knob) -> str:
    """Returns what panels have in common that share their axis."""
    return "" if name == "momenta" else knob.one.name


def _notes(view: View, knobs: Sequence[Knob], name: str, lost: int) -> list[str]:
    notes = [view.omission] if view.omission else []
    if knobs[0].one.complement:
        notes.append("Along the axis 0.9, 0.99 and 0.999 are equally far apart.")
    if name == "rates" and any(knob.one.name != "lr" for knob in knobs):
        notes.append("An optimizer that finds its learning rate itself is drawn by its main knob.")
    if lost:
        told = tell_count(lost, "trial")
        notes.append(f"Not drawn: {told} that failed, or ended before the first evaluation.")
    return notes


def _legend(view: View, seen: Collection[str]) -> tuple[Key, ...]:
    """Returns the legend of the marks that are there."""
    target = "" if view.study.target is None else ", or missed the target"
    keys = {
        "complete": Key("complete", "ink", "dot"),
        "open": Key("pruned or in training, at its last value", "ink hollow", "dot"),
        "lost": Key(f"diverged{target}: at the {view.edge} edge", "ink stroke", "cross"),
        "beyond": Key("worse than the axis goes", "ink hollow", _beyond(view)),
        "default": Key("the default, where it ran", "ink", "diamond"),
        "default not run": Key("the default, not run: on the axis", "ink", "tick"),
        "best": Key("the optimizer's best", "ring", "ring"),
        "near": Key(f"within {NEAR:.0%} of the optimizer's best", "swatch", "bar-solid"),
        "ends": Key("end of the range searched", "ink stroke ends", "bracket"),
    }
    return tuple(key for kind, key in keys.items() if kind in seen)


def _beyond(view: View) -> str:
    """Returns the mark of values that are worse than the axis goes: it points to where they lie."""
    return "arrow" if view.worse > 0 else "down"


def _find(view: View, knobs: Sequence[Knob], panels: Sequence[Panel]) -> str:
    """Returns the finding of the panel of the best optimizer."""
    if not view.ranked:
        return "No trial is complete yet, so no setting is known to be good."
    return f"{knobs[0].optimizer}: {panels[0].finding}"


class _Panel:
    """The panel of one optimizer."""

    def __init__(self, view: View, knob: Knob, scale: Scale) -> None:
        self._view, self._knob, self._scale = view, knob, scale
        self._read = _reader(view, knob)
        self._records = view.by_optimizer.get(knob.optimizer, [])
        self._shown = [r for r in view.listed if r.optimizer == knob.optimizer]
        self.lost = 0
        self.seen: set[str] = set()

    def draw(self) -> Panel:
        view, knob = self._view, self._knob
        ticks = None if view.has_values else ()
        frame = Frame(self._scale, view.scale, 190, knob.one.name, view.objective, None, ticks)
        kind = view.palette.kind(knob.optimizer)
        marks = [*self._behind(frame, kind)]
        marks += [m for record in self._shown if (m := self._mark(frame, record, kind))]
        default = knob.default
        if default is not None and not self._ran_default() and self._scale.holds(default):
            self.seen.add("default not run")
            marks.append(mark(frame, default, frame.y.low, "tick", kind))
        label = f"{knob.optimizer}: {view.objective} against {knob.one.name}. {self._tell()}"
        key = replace(view.palette.key(knob.optimizer), symbol="dot")
        return Panel(draw(frame, label, marks=marks), knob.optimizer, self._tell(), key)

    def _behind(self, frame: Frame, kind: str) -> Iterator[Markup]:
        """Yields what lies behind the trials: the band, the ends of the range, a ring."""
        if (near := self._near()) is not None and near[0] < near[1]:
            self.seen.add("near")
            yield shade(frame, *near, f"near {kind}")
        for end in self._knob.ends or ():
            self.seen.add("ends")
            yield rule(frame, end, "ends")
        best = self._view.best_of(self._knob.optimizer)
        if best is not None and (x := self._read(best)) is not None:
            self.seen.add("best")
            yield mark(frame, x, self._view.ranked[best.number], "ring", "ring")

    def row(self) -> tuple[str, ...]:
        view, knob = self._view, self._knob
        best = view.best_of(knob.optimizer)
        near = self._near()
        at = None if best is None else self._read(best)
        return (
            knob.optimizer,
            knob.one.name,
            _tell_number(at),
            view.tell(None if best is None else view.ranked[best.number]),
            "–" if near is None else f"{_tell_number(near[0])} to {_tell_number(near[1])}",
            "–" if knob.ends is None else " to ".join(map(_tell_number, knob.ends)),
        )

    def _mark(self, frame: Frame, record: TrialRecord, kind: str) -> Markup | None:
        view, x = self._view, self._read(record)
        value = view.value(record)
        worst = frame.y.high if view.worse > 0 else frame.y.low
        if value is None or x is None:
            missed = record.value is not None and record.outcome is not Outcome.FAILED
            if x is None or not (missed or record.outcome is Outcome.DIVERGED):
                self.lost += record.outcome.is_over
                return None
            self.seen.add("lost")
            return mark(frame, x, worst, "cross", f"{kind} stroke", record.number)
        is_open = record.outcome is not Outcome.COMPLETE
        self.seen.add("open" if is_open else "complete")
        if not frame.y.holds(value):
            self.seen.add("beyond")
            return mark(frame, x, worst, _beyond(view), f"{kind} hollow", record.number)
        if record.is_default:
            self.seen.add("default")
        symbol = "diamond" if record.is_default else "dot"
        hollow = " hollow" if is_open else ""
        return mark(frame, x, value, symbol, kind + hollow, record.number)

    def _ran_default(self) -> bool:
        return any(record.is_default for record in self._records)

    def _near(self) -> tuple[float, float] | None:
        """Returns the ends of where this optimizer's values lie near its best, or None."""
        view = self._view
        best = view.best_of(self._knob.optimizer)
        if best is None:
            return None
        value = view.ranked[best.number]
        limit = view.worse * value + NEAR * abs(value)
        good = [
            x
            for record in self._records
            if (own := view.ranked.get(record.number)) is not None
            and view.worse * own <= limit
            and (x := self._read(record)) is not None
        ]
        return (min(good), max(good)) if good else None

    def _tell(self) -> str:
        view, knob = self._view, self._knob
        best, near = view.best_of(knob.optimizer), self._near()
        if best is None or near is None:
            return f"none of {tell_count(len(self._records), 'trial')} is complete."
        at = _tell_number(self._read(best))
        told = f"best {view.tell(view.ranked[best.number])} at {knob.one.name} {at}"
        if near[0] == near[1]:
            return f"{told}; no other trial comes within {NEAR:.0%}."
        low, high = map(_tell_number, near)
        return f"{told}; within {NEAR:.0%} from {low} to {high}."


def _reader(view: View, knob: Knob) -> Callable[[TrialRecord], float | None]:
    def read(record: TrialRecord) -> float | None:
        return _to_number(view.config(record).optimizer_values.get(knob.one.name))

    return read


def _x_scale(view: View, knobs: Sequence[Knob]) -> Scale:
    """Returns the axis that several panels share: it holds all ranges, values and defaults."""
    values: list[float] = []
    for knob in knobs:
        read = _reader(view, knob)
        own = (read(record) for record in view.listed if record.optimizer == knob.optimizer)
        values += [value for value in own if value is not None]
        values += knob.ends or ()
        values += [knob.default] if knob.default is not None else []
    log = any(isinstance(knob.axis, Float | Int) and knob.axis.log for knob in knobs)
    if knobs[0].one.complement:
        return _Complement.of([1 - value for value in values], log)
    if log or max(values) > 20 * max(1e-12, min(values)):
        above = [value for value in values if value > 0]
        return fit_scale(above if is_positive(above) else values, log=True, pad=0.06)
    return fit_scale(values, pad=0.06)


@dataclass(frozen=True)
class _Complement(Scale):
    """A scale of values that lies along the logarithm of 1 - value, larger values to the right."""

    inner: Scale = field(default_factory=lambda: Scale(0, 1))

    @classmethod
    def of(cls, complements: Sequence[float], log: bool) -> _Complement:
        inner = fit_scale([value for value in complements if value > 0], log=log, pad=0.06)
        return cls(1 - inner.high, 1 - inner.low, inner=inner)

    def place(self, value: float) -> float:
        return 1 - self.inner.place(1 - value)

    def ticks(self, count: int = 5) -> list[Tick]:
        usual = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
        held = [value for value in usual if self.holds(value)]
        every = max(1, -(-len(held) // count))
        return [Tick(value, f"{value:g}") for value in held[::every]]


def _to_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _tell_number(value: float | None) -> str:
    return "–" if value is None else write_value(float(f"{value:.3g}"))
