"""``tuner init``: a project to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tuner.cli.options import echo_json, examples, json_option, quiet_option, tell


@click.command(epilog=examples("tuner init mine", "cd mine && tuner run studies/digits.toml"))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@quiet_option
@json_option
def init(folder: Path, as_json: bool) -> None:
    """Write a project to start from: workloads, studies and a README in FOLDER."""
    from tuner.service.project import write_project

    files = write_project(folder)
    if as_json:
        echo_json({"folder": str(folder), "files": list(map(str, files))})
        return
    tell(f"Wrote {len(files)} files to {folder}. Next:", err=False)
    tell(f"  cd {shlex.quote(str(folder))}\n  tuner run studies/digits.toml", err=False)
