"""``tuner trial``: one trial in full."""

from __future__ import annotations

import click

from tuner.cli.options import (
    echo_json,
    examples,
    json_option,
    open_storage,
    storage_option,
)
from tuner.domain.dimensions import format_value
from tuner.errors import NotFoundError


@click.group()
def trial() -> None:
    """Single trials of a study."""


@trial.command(epilog=examples("tuner trial show digits 12", "tuner trial show digits 12 --json"))
@click.argument("study")
@click.argument("number", type=click.IntRange(0, 2**31 - 1))
@storage_option
@json_option
def show(study: str, number: int, storage: str | None, as_json: bool) -> None:
    """Show trial NUMBER of STUDY: its settings, its curve, how it ended, and why it failed."""
    from tuner.domain.trials import decode
    from tuner.store import Studies
    from tuner.store.records import read_record

    database = open_storage(storage)
    handle = Studies(database).find(study)
    record = read_record(database, handle, number)
    if record is None:
        raise NotFoundError(
            f"The study {study!r} has no trial {number}; "
            f"see what it has with 'tuner study show {study}'."
        )
    config = decode(handle.spec, record.proposal)
    described = {
        "study": study,
        "trial": record.number,
        "outcome": record.outcome.value,
        "value": record.value,
        "optimizer": config.optimizer,
        "schedule": config.schedule,
        "preset": record.proposal.preset,
        "params": config.to_json(),
        "searched": record.proposal.params,
        "evaluations": {str(k): v for k, v in record.evaluations.items()},
        "started_at": record.started_at and f"{record.started_at.isoformat()}Z",
        "finished_at": record.finished_at and f"{record.finished_at.isoformat()}Z",
        "attributes": {k: v for k, v in record.attributes.items() if k != "config"},
    }
    if as_json:
        echo_json(described)
        return
    value = "" if record.value is None else f", {handle.spec.study.metric} {record.value:.6g}"
    preset = ", its own defaults" if record.is_default else ""
    click.secho(f"Trial {number} of {study}: {record.outcome.value}{value}", bold=True)
    click.echo(f"{config.optimizer} with the {config.schedule} schedule{preset}")
    for key, setting in config.to_json().items():
        click.echo(f"  {key} = {format_value(setting)}")
    if record.evaluations:
        click.echo(f"{handle.spec.study.metric} by progress:")
        for progress, evaluation in record.evaluations.items():
            click.echo(f"  {progress:>8}  {evaluation:.6g}")
    for key, attribute in record.attributes.items():
        if key not in ("config", "traceback"):
            click.echo(f"{key}: {attribute}")
    if "traceback" in record.attributes:
        click.echo(f"\n{record.attributes['traceback']}")
