"""The tables every report shows, as plain text, whatever then draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.analysis.fusing import FusingSummary
from tuner.analysis.summary import StudySummary
from tuner.domain.catalog.dimensions import format_value
from tuner.domain.lengths import tell_length
from tuner.domain.printable import printable
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome

_SHOWN_APART = 20


@dataclass(frozen=True)
class TextTable:
    """A table of text, each cell a line that is fit to be shown.

    Attributes:
        title: What it shows.
        columns: Its heads.
        rows: Its rows.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", printable(self.title))
        object.__setattr__(self, "columns", tuple(map(printable, self.columns)))
        object.__setattr__(self, "rows", tuple(tuple(map(printable, row)) for row in self.rows))


def ranking(summary: StudySummary) -> TextTable:
    """Returns the optimizers, best first; how trials ended is shown where any did so."""
    endings = [
        ending
        for ending in (Outcome.PRUNED, Outcome.DIVERGED, Outcome.FAILED)
        if summary.counts[ending]
    ]
    return TextTable(
        f"Optimizers by {summary.spec.study.metric}, best first",
        ("optimizer", "best", "trial", "schedule", "defaults", "trials", *endings),
        tuple(
            (
                row.optimizer,
                number(row.best_value),
                "–" if row.best_trial is None else str(row.best_trial),
                row.best_schedule or "–",
                number(row.default_value),
                str(row.trials),
                *(str(getattr(row, ending.value)) for ending in endings),
            )
            for row in summary.optimizers
        ),
    )


def averages(summary: StudySummary) -> TextTable:
    """Returns the averages, best first, each beside the last weights of its own trials."""
    return TextTable(
        f"Averages of weights by {summary.spec.study.metric}, best first",
        ("average", "best", "trial", "its last weights", "better than them", "trials"),
        tuple(
            (
                row.average,
                number(row.best_value),
                "–" if row.best_trial is None else str(row.best_trial),
                number(row.last_value),
                f"{row.gained} of {row.compared}" if row.compared else "–",
                str(row.trials),
            )
            for row in summary.averages
        ),
    )


def settings(summary: StudySummary) -> TextTable:
    """Returns the best trial's configuration, in torch's form."""
    unread = summary.best.unread if summary.best else ()
    values = summary.best.config.to_json() if summary.best else {}
    values = {key: value for key, value in values.items() if key not in unread}
    return TextTable(
        f"Best trial: {summary.best.record.number}" if summary.best else "Best trial: none yet",
        ("setting", "value"),
        tuple((key, format_value(value)) for key, value in values.items()),
    )


def groups(described: Sequence[Mapping[str, Any]]) -> TextTable:
    """Returns the effective settings of a trial's parameter groups.

    Args:
        described: What the trial recorded of its groups: plain values by name.
    """
    return TextTable(
        "Parameter groups, as they trained",
        ("group", "parameters", "lr", "weight decay", "momentum", "frozen until"),
        tuple(
            (
                group["name"],
                f"{group['parameters']:,}",
                *(number(group[key]) for key in ("lr", "weight_decay", "momentum")),
                f"{group['frozen_until']:.0%}" if group["frozen_until"] else "–",
            )
            for group in described
        ),
    )


def apart(summary: StudySummary) -> TextTable:
    """Returns the complete trials that have trained for longer or shorter than the ranked ones."""
    shown = summary.apart[:_SHOWN_APART]
    more = f", the first {len(shown)} of {len(summary.apart)}" if summary.apart != shown else ""
    return TextTable(
        f"Trials of another length, not ranked{more}",
        ("trial", "optimizer", summary.spec.study.metric, "trained"),
        tuple(
            (
                str(record.number),
                record.optimizer,
                number(record.value),
                tell_length(record.attributes).removeprefix("trained ") or "a full trial",
            )
            for record in shown
        ),
    )


def best_tables(summary: StudySummary) -> list[TextTable]:
    """Returns what is shown between ranking and costs.

    Those are trials that cannot be ranked with the others, averages, and the settings and groups
    of the best trial.
    """
    if summary.best is None:
        return []
    described = summary.best.record.attributes.get("groups")
    return [
        *([apart(summary)] if summary.apart else []),
        *([averages(summary)] if summary.averages else []),
        settings(summary),
        *([groups(described)] if described else []),
    ]


def facts(summary: StudySummary) -> TextTable:
    """Returns counts and costs."""
    counts = ", ".join(
        f"{summary.counts[outcome]} {outcome.value}"
        for outcome in Outcome
        if outcome not in (Outcome.RUNNING, Outcome.WAITING) or summary.counts[outcome]
    )
    started = sum(summary.counts.values())
    halted = "" if summary.state is StudyState.RUNNING else f" ({summary.state})"
    if summary.exhausted is not None:
        halted = f" ({summary.exhausted})"
    return TextTable(
        "Cost",
        ("fact", "value"),
        (
            ("trials", f"{started} of {summary.spec.budget.trials}{halted}: {counts}"),
            ("wall time", duration(summary.wall_s)),
            ("training", duration(summary.training_s)),
            ("evaluation", duration(summary.evaluation_s)),
            ("outside both", f"{summary.overhead:.1%} of the workers' time"),
            ("trials an hour", f"{summary.trials_per_hour:,.0f}"),
            ("steps a second", f"{summary.steps_per_s:,.0f}"),
            *_fused(summary.fusing),
            ("database", summary.storage),
        ),
    )


def _fused(fusing: FusingSummary | None) -> list[tuple[str, str]]:
    """Returns how many trials trained as one, and what that gained."""
    if fusing is None:
        return []
    if not fusing.trials:
        return [("trained as one", f"none: {fusing.reason}")]
    said = [f"{fusing.trials} trials, up to {fusing.lanes} at once"]
    if fusing.occupancy is not None:
        said.append(f"of a cohort's trials {fusing.occupancy:.0%} in training on average")
    rows = [("trained as one", "; ".join(said))]
    return [*rows, ("why as one", fusing.reason)] if fusing.reason else rows


def number(value: float | None) -> str:
    """Returns a metric in four significant digits, or a dash."""
    return "–" if value is None else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Returns a duration as a person says it.

    >>> duration(3.21), duration(75), duration(7322)
    ('3.2 s', '1 min 15 s', '2 h 2 min')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
