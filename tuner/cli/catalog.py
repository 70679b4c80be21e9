"""``tuner optimizers`` and ``tuner schedules``: what can be searched, and over which ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from tuner.cli.options import console, echo_json, examples, json_option
from tuner.domain.dimensions import dump_dimension, format_value
from tuner.domain.hyperparameters import Hyperparameter
from tuner.domain.names import suggest
from tuner.domain.optimizers import OPTIMIZERS, OptimizerRow
from tuner.domain.schedules import SCHEDULES, ScheduleRow
from tuner.errors import NotFoundError

Row = OptimizerRow | ScheduleRow


@click.command(
    epilog=examples("tuner optimizers", "tuner optimizers adam", "tuner optimizers --json")
)
@click.argument("name", required=False)
@json_option
def optimizers(name: str | None, as_json: bool) -> None:
    """List the optimizers that can be searched, or show one."""
    _show(OPTIMIZERS, "optimizer", name, as_json)


@click.command(epilog=examples("tuner schedules", "tuner schedules cosine"))
@click.argument("name", required=False)
@json_option
def schedules(name: str | None, as_json: bool) -> None:
    """List the learning-rate schedules that can be searched, or show one."""
    _show(SCHEDULES, "schedule", name, as_json)


def _show(rows: Mapping[str, Row], kind: str, name: str | None, as_json: bool) -> None:
    if name is not None and name not in rows:
        raise NotFoundError(f"There is no {kind} {name!r}: {suggest(name, rows)}")
    if as_json:
        described = {key: _describe(row) for key, row in rows.items()}
        echo_json(described[name] if name else list(described.values()))
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
            }
            for knob in row.hyperparameters
        ],
    }
    if isinstance(row, OptimizerRow):
        described["torch"] = row.target
    return described


def _print_list(rows: Mapping[str, Row], kind: str) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(kind, no_wrap=True, style="bold")
    table.add_column("searched")
    table.add_column("when to use it")
    for row in rows.values():
        table.add_row(row.name, ", ".join(k.name for k in row.hyperparameters), row.summary)
    console().print(table)
    click.echo(f"Show one with its ranges: tuner {kind}s {next(iter(rows))}")


def _print_row(row: Row) -> None:
    from rich import box
    from rich.table import Table

    torch_name = f" ({row.target})" if isinstance(row, OptimizerRow) else ""
    out = console()
    out.print(f"[bold]{row.name}[/bold]{torch_name}: {row.summary}")
    out.print(f"{row.equation}\n{row.reference}", style="dim")
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("hyperparameter", "default", "searched as", "range", "prior", "source"):
        table.add_column(column, no_wrap=column in ("hyperparameter", "searched as"))
    for knob in row.hyperparameters:
        table.add_row(*_cells(knob))
    out.print(table)


def _cells(knob: Hyperparameter) -> tuple[str, ...]:
    off = " or off" if knob.switch else ""
    return (
        knob.name,
        format_value(knob.default),
        knob.search_name,
        knob.dimension.describe() + off,
        knob.prior.describe() if knob.prior else "–",
        knob.source,
    )
