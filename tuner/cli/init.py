"""``tuner init``: a project to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tuner.cli.options import examples


@click.command(epilog=examples("tuner init mine", "cd mine && tuner run studies/digits.toml"))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Write a project to start from: workloads, studies and a README in FOLDER."""
    from tuner.service.project import write_project

    files = write_project(folder)
    click.echo(f"Wrote {len(files)} files to {folder}. Next:")
    click.echo(f"  cd {shlex.quote(str(folder))}\n  tuner run studies/digits.toml")
