"""``tuner optimizers`` and ``tuner schedules``: the catalog of both, with the ranges searched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from tuner.cli.options import console, echo_json, examples, json_option
from tuner.cli.words import OPTIMIZER_NAMES, SCHEDULE_NAMES
from tuner.domain.catalog.dimensions import Fixed, dump_dimension
from tuner.domain.catalog.optimizers import OPTIMIZERS, OptimizerRow
from tuner.domain.catalog.pytorch_optimizer import PACKAGE
from tuner.domain.catalog.schedules import SCHEDULES, ScheduleRow
from tuner.domain.names import suggest
from tuner.errors import NotFoundError
from tuner.report.catalog import (
    COLUMNS,
    describe_finetuning,
    describe_knob,
    explain_knobs,
    sample_factor,
    sample_momentum,
    to_sparkline,
)

Row = OptimizerRow | ScheduleRow

_POINTS = 40


@click.command(
    epilog=examples(
        "tuner optimizers", "tuner optimizers adam", "tuner optimizers 'lookahead(sgd)'"
    )
)
@click.argument("name", required=False, type=OPTIMIZER_NAMES)
@json_option
def optimizers(name: str | None, as_json: bool) -> None:
    """List the optimizers that can be searched, or show one."""
    _show(OPTIMIZERS, "optimizer", name, as_json)


@click.command(epilog=examples("tuner schedules", "tuner schedules cosine"))
@click.argument("name", required=False, type=SCHEDULE_NAMES)
@json_option
def schedules(name: str | None, as_json: bool) -> None:
    """List the learning-rate schedules that can be searched, or show one."""
    _show(SCHEDULES, "schedule", name, as_json)


def _show(rows: Mapping[str, Row], kind: str, name: str | None, as_json: bool) -> None:
    if name is not None and name not in rows:
        raise NotFoundError(f"There is no {kind} {name!r}: {suggest(name, rows)}")
    if as_json:
        echo_json(_describe(rows[name]) if name else [_describe(row) for row in rows.values()])
    elif name is not None:
        _print_row(rows[name])
    else:
        _print_list(rows, kind)


def _describe(row: Row) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": row.name,
        "summary": row.summary,
        "equation": row.equation,
        "reference": row.reference,
        "hyperparameters": [
            {
                "name": knob.name,
                "default": knob.default,
                "searched_as": knob.search_name,
                "range": dump_dimension(knob.dimension),
                "prior": knob.prior and knob.prior.describe(),
                "source": knob.source,
                "breadth": knob.breadth,
                "finetuning": knob.finetuning
                and {
                    "range": dump_dimension(knob.finetuning.dimension),
                    "prior": knob.finetuning.prior and knob.finetuning.prior.describe(),
                    "source": knob.finetuning.source,
                },
            }
            for knob in row.hyperparameters
        ],
    }
    if isinstance(row, OptimizerRow):
        described["torch"] = row.target
        described["wrapper"] = row.wrapper
    else:
        described["cycles_momentum"] = row.cycles_momentum
        described["follows_metric"] = row.follows_metric
    return described


def _print_list(rows: Mapping[str, Row], kind: str) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(kind, no_wrap=True, style="bold")
    table.add_column("searched")
    table.add_column("when to use it")
    for row in rows.values():
        searched = [k.name for k in row.hyperparameters if not isinstance(k.dimension, Fixed)]
        table.add_row(row.name, ", ".join(searched), row.summary)
    console().print(table)
    click.echo(f"Show one with its ranges: tuner {kind}s {next(iter(rows))}")
    if rows is OPTIMIZERS:
        click.echo("Compose others by name: 'lookahead(sgd)', or 'pytorch_optimizer:Yogi' of")
        click.echo(
            f"{len(PACKAGE)} in the package pytorch-optimizer (docs/optimizers.md has them)."
        )


def _print_row(row: Row) -> None:
    from rich import box
    from rich.table import Table

    torch_name = ""
    if isinstance(row, OptimizerRow):
        torch_name = f" ({row.target}{f' in {row.wrapper}' if row.wrapper else ''})"
    out = console()
    out.print(f"[bold]{row.name}[/bold]{torch_name}: {row.summary}", markup=True)
    out.print(f"{row.equation}\n{row.reference}", style="dim")
    if isinstance(row, ScheduleRow):
        _draw_schedule(row)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    columns = zip(COLUMNS, *map(describe_knob, row.hyperparameters), strict=True)
    # The breadth has no room beside the ranges; --json and docs/optimizers.md have it.
    told = [c for c in columns if c[0] != "breadth" and any(cell != "–" for cell in c[1:])]
    for name, *_ in told:
        wide = name in ("range", "prior", "source")
        table.add_column(name, no_wrap=not wide, min_width=11 if wide else None)
    for line in zip(*(cells for _, *cells in told), strict=True):
        table.add_row(*line)
    out.print(table)
    tuned = list(filter(None, map(describe_finetuning, row.hyperparameters)))
    if tuned:
        out.print(f"Of trained weights (space.regime): {'; '.join(tuned)}")
    out.print(explain_knobs(row), style="dim")


def _draw_schedule(row: ScheduleRow) -> None:
    """Draws the learning rate, and the momentum if it is set, over a trial with the defaults."""
    example = "  if the metric stalls twice" if row.follows_metric else ""
    click.echo(f"lr        {to_sparkline(sample_factor(row, _POINTS))}{example}")
    momentum = sample_momentum(row, _POINTS)
    if momentum is not None:
        low, high = min(momentum), max(momentum)
        line = to_sparkline((value - low) / (high - low) for value in momentum)
        click.echo(f"momentum  {line}  {low:.2g} to {high:.2g}, set by it")
