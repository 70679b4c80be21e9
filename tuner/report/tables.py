"""The tables that every report format shows, as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.analysis.fusing import FusingSummary
from tuner.analysis.summary import SETTLED_FROM, OptimizerSummary, StudySummary
from tuner.domain.catalog.dimensions import format_value
from tuner.domain.catalog.hyperparameters import name_in_torch
from tuner.domain.lengths import tell_length
from tuner.domain.names import name_some
from tuner.domain.objective import tell_objective, tell_value
from tuner.domain.printable import printable
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome

if TYPE_CHECKING:
    from tuner.analysis.confirmed import Confirmed, Tested
    from tuner.analysis.importance import Importance

_SHOWN_APART, _SHOWN_TESTS = 20, 2


@dataclass(frozen=True)
class TextTable:
    """A table of text, each cell one line that is safe to show on a terminal.

    Attributes:
        title: The heading above it.
        columns: The heads of its columns.
        rows: Its cells, row by row.
        lit: The number of a row to be lit up, or None.
        line: The number of the row above which there is a line, or None.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lit: int | None = None
    line: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", printable(self.title))
        object.__setattr__(self, "columns", tuple(map(printable, self.columns)))
        object.__setattr__(self, "rows", tuple(tuple(map(printable, row)) for row in self.rows))


def ranking(summary: StudySummary) -> TextTable:
    """Returns the table of optimizers, best first, and how many of their trials ended early.

    Those that too few trials have tried stand below a line, without a rank.

    What an optimizer's own defaults reached is known of the one that a study ended with, or of all
    where an earlier version of tuner began with them.
    """
    endings = [
        ending
        for ending in (Outcome.PRUNED, Outcome.DIVERGED, Outcome.FAILED)
        if summary.counts[ending]
    ]
    study = summary.spec.study
    known = any(row.default_value is not None for row in summary.optimizers)
    defaults = ["defaults"] if known else []
    rows, settled = _order(summary)
    ranks = ["rank"] if len(rows) > 1 else []
    few = f"; without a rank: not settled, fewer than {SETTLED_FROM} finished trials"
    unsettled = few if ranks and settled < len(rows) else ""
    return TextTable(
        f"Optimizers by {tell_objective(study)}, best first{unsettled}",
        ("optimizer", *ranks, "best", "trial", "schedule", *defaults, "trials", *endings),
        tuple(
            (
                row.optimizer,
                *(str(place) if place <= settled else "–" for _ in ranks),
                tell_value(study, row.best_value),
                "–" if row.best_trial is None else str(row.best_trial),
                row.best_schedule or "–",
                *(tell_value(study, row.default_value) for _ in defaults),
                str(row.trials),
                *(str(getattr(row, ending.value)) for ending in endings),
            )
            for place, row in enumerate(rows, start=1)
        ),
        lit=_find_winner(summary, rows),
        line=settled if unsettled else None,
    )


def _order(summary: StudySummary) -> tuple[list[OptimizerSummary], int]:
    """Returns the optimizers, those that have been compared first, and how many those are."""
    rows = sorted(summary.optimizers, key=lambda row: not row.settled)
    return rows, sum(row.settled for row in rows)


def _find_winner(summary: StudySummary, rows: Sequence[OptimizerSummary]) -> int | None:
    """Returns the row of the best trial's optimizer, which fresh seeds may have chosen."""
    if summary.best is None:
        return None
    names = [row.optimizer for row in rows]
    return names.index(summary.best.config.optimizer)


def averages(summary: StudySummary) -> TextTable:
    """Returns the table of averages, best first, each beside its best trial's last weights."""
    return TextTable(
        f"Averages of weights by {tell_objective(summary.spec.study)}, best first",
        ("average", "best", "trial", "its last weights", "better than them", "trials"),
        tuple(
            (
                row.average,
                tell_value(summary.spec.study, row.best_value),
                "–" if row.best_trial is None else str(row.best_trial),
                number(row.last_value),
                f"{row.gained} of {row.compared}" if row.compared else "–",
                str(row.trials),
            )
            for row in summary.averages
        ),
    )


def finalists(confirmed: Confirmed) -> TextTable:
    """Returns the table of a study's finalists on fresh seeds, the best first."""
    arms = confirmed.verdict.arms
    why = "diverged" if confirmed.spec.study.target is None else "missed"
    lost = [why] if any(arm.diverged for arm in arms) else []
    return TextTable(
        f"Finalists on fresh seeds, by mean {tell_objective(confirmed.spec.study)}",
        ("finalist", "standing", "mean", "95% interval", "seeds", *lost, "lr", "trial"),
        tuple(
            (
                confirmed.tell(arm.trial),
                arm.standing,
                number(arm.mean),
                "–" if arm.interval is None else "–".join(f"{end:.3g}" for end in arm.interval),
                str(arm.seeds),
                *(str(arm.diverged) for _ in lost),
                number(confirmed.rate(arm.trial)),
                "–" if arm.trial < 0 else str(arm.trial),
            )
            for arm in arms
        ),
    )


def over_test_data(confirmed: Confirmed) -> TextTable:
    """Returns the table of a study's finalists over test data, by its first metrics."""
    shown = confirmed.tested[:_SHOWN_TESTS]
    return TextTable(
        "Finalists over test data, which chose none of them: mean ± standard deviation",
        ("finalist", "trial", *(f"test {name}" for name in shown)),
        tuple(
            (
                confirmed.tell(arm.trial),
                "–" if arm.trial < 0 else str(arm.trial),
                *(_tell_spread(confirmed.test_of(arm.trial, name)) for name in shown),
            )
            for arm in confirmed.verdict.arms
        ),
    )


def _tell_spread(tested: Tested) -> str:
    if tested.mean is None:
        return "–"
    spread = "" if tested.deviation is None else f" ± {tested.deviation:.2g}"
    return f"{tested.mean:.4g}{spread}"


def settings(summary: StudySummary) -> TextTable:
    """Returns the table of the best trial's hyperparameters, spelled as torch spells them."""
    unread = summary.best.unread if summary.best else ()
    values = summary.best.config.to_json() if summary.best else {}
    values = {key: value for key, value in values.items() if key not in unread}
    return TextTable(
        _title_of_best(summary),
        ("setting", "value"),
        tuple((key, format_value(value)) for key, value in values.items()),
    )


def _title_of_best(summary: StudySummary) -> str:
    if summary.best is None:
        return "Best trial: none yet"
    number = summary.best.record.number
    return f"Best trial: {number}" if number >= 0 else "Best: the usual defaults"


def groups(described: Sequence[Mapping[str, Any]]) -> TextTable:
    """Returns the table of the settings that a trial's parameter groups trained with.

    Args:
        described: The trial's attribute ``groups``: the settings of each group by name.
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


def importance(measured: Importance) -> TextTable:
    """Returns the table of the choices that explain the differences between trials."""
    rows: list[tuple[str, str, str, str]] = []
    few: list[str] = []
    for among in (*([measured.choice] if measured.choice else []), *measured.inside):
        whose, trials = among.optimizer or "all", str(among.trials)
        told = [share for share in among.shares if share.share is not None]
        if among.explained is None:
            few.append(f"{whose} ({trials})")
        rows += [(name_in_torch(share.name), f"{share.share:.0%}", trials, whose) for share in told]
        if among.explained is not None and not told:
            rows.append(("none told from noise", "–", trials, whose))
    if few:
        rows.append(("too few trials to tell", "–", "–", name_some(few)))
    return TextTable(
        "Importance: how much of the differences between trials a choice explains",
        ("choice", "explains", "trials", "of"),
        tuple(rows),
    )


def apart(summary: StudySummary) -> TextTable:
    """Returns the table of complete trials that trained longer or shorter than the ranked ones."""
    shown = summary.apart[:_SHOWN_APART]
    more = f", the first {len(shown)} of {len(summary.apart)}" if summary.apart != shown else ""
    return TextTable(
        f"Trials of another length, not ranked{more}",
        ("trial", "optimizer", tell_objective(summary.spec.study), "trained"),
        tuple(
            (
                str(record.number),
                record.optimizer,
                tell_value(summary.spec.study, record.value),
                tell_length(record.attributes).removeprefix("trained ") or "a full trial",
            )
            for record in shown
        ),
    )


def best_tables(summary: StudySummary) -> list[TextTable]:
    """Returns the tables about the best trial, which reports show between ranking and costs.

    They hold the finalists on fresh seeds and over test data, the trials that cannot be ranked with
    the others, the averages, the settings and groups of the best trial, and the importance of what
    was searched; none before a trial is complete.
    """
    if summary.best is None:
        return []
    described, confirmed = summary.best.record.attributes.get("groups"), summary.confirmed
    return [
        *([finalists(confirmed)] if confirmed else []),
        *([over_test_data(confirmed)] if confirmed and confirmed.tested else []),
        *([apart(summary)] if summary.apart else []),
        *([averages(summary)] if summary.averages else []),
        settings(summary),
        *([groups(described)] if described else []),
        *([importance(summary.importance)] if summary.importance else []),
    ]


def facts(summary: StudySummary) -> TextTable:
    """Returns the table of costs: how many trials ran, how long they took and how fast."""
    counts = ", ".join(
        f"{summary.counts[outcome]} {outcome.value}"
        for outcome in Outcome
        if outcome.is_over or summary.counts[outcome]
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
            *_training(summary),
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


def _training(summary: StudySummary) -> list[tuple[str, str]]:
    """Returns the row on a budget in full trials: what is used of it, and what is left."""
    limit = summary.spec.budget.full_trials
    if limit is None or summary.used is None:
        return []
    left = max(0.0, limit - summary.used)
    return [("full trials", f"{tell_training(summary.used, limit)} used, {left:.3g} left")]


def tell_training(used: float | None, limit: float | None, by: str = " of ") -> str:
    """Returns what is used of a budget in full trials, and the budget.

    Args:
        used: The full trials used, or None.
        limit: The budget, or None.
        by: What to put between them.

    >>> tell_training(7.25, 20.0)
    '7.25 of 20'
    """
    return "–" if used is None or limit is None else f"{used:.4g}{by}{limit:g}"


def _fused(fusing: FusingSummary | None) -> list[tuple[str, str]]:
    """Returns the rows on fused trials: how many there were, and how full their cohorts were."""
    if fusing is None:
        return []
    if not fusing.trials:
        return [("trained as one", f"none: {fusing.reason}")]
    said = [f"{fusing.trials} trials, up to {fusing.lanes} at once"]
    if fusing.occupancy is not None:
        said.append(f"of a cohort's trials {fusing.occupancy:.0%} in training on average")
    rows = [("trained as one", "; ".join(said))]
    return [*rows, ("why as one", fusing.reason)] if fusing.reason else rows


def tell_count(count: int, noun: str) -> str:
    """Returns a count with its noun.

    >>> tell_count(1, "trial"), tell_count(1200, "trial")
    ('1 trial', '1,200 trials')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number(value: float | None) -> str:
    """Returns a metric in four significant digits, or a dash for None; no zero has a sign.

    >>> number(0.123456), number(-0.0), number(None)
    ('0.1235', '0', '–')
    """
    return "–" if value is None else f"{value + 0.0:.4g}"


def duration(seconds: float) -> str:
    """Returns a duration in the one or two largest units that it has.

    >>> duration(3.21), duration(75), duration(7322)
    ('3.2 s', '1 min 15 s', '2 h 2 min')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
