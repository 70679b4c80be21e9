"""``tuner doctor``: what works here, what may not, and the remedy of each."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from tuner.cli.options import (
    console,
    echo_json,
    examples,
    is_quiet,
    json_option,
    quiet_option,
    storage_option,
)
from tuner.domain.printable import printable

if TYPE_CHECKING:
    from tuner.service.doctor.finding import Finding

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@click.command(
    epilog=examples(
        "tuner doctor",
        "tuner doctor --compile",
        "tuner doctor --storage postgresql+psycopg://ann@db.example/tuner --json",
    )
)
@storage_option
@click.option("--compile", "compiles", is_flag=True, help="Try the compiler too, for a minute.")
@quiet_option
@json_option
def doctor(storage: str | None, compiles: bool, as_json: bool) -> None:
    """Look for what may keep trials from training here, and say what to do about it.

    It looks at packages, devices, cores, folders, the database, clocks, and what workers have left
    behind, and changes nothing. The exit code is 1 if there is a problem. With -q, only warnings
    and problems are shown.
    """
    from tuner.service.doctor.examination import count_levels, examine
    from tuner.service.doctor.finding import Level

    findings = examine(storage, compiles=compiles)
    counts = count_levels(findings)
    if as_json:
        described = [dataclasses.asdict(finding) for finding in findings]
        echo_json({**{level.value: n for level, n in counts.items()}, "findings": described})
    else:
        _print([one for one in findings if not is_quiet() or one.level is not Level.OK])
        click.echo(_tell(counts[Level.PROBLEM], counts[Level.WARNING]))
    if counts[Level.PROBLEM]:
        click.get_current_context().exit(1)


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    width = max((len(finding.topic) for finding in findings), default=0)
    for finding in findings:
        style = _STYLES[finding.level.value]
        head = Text(f"{finding.level.value:<8}", style)
        head.append(f"{finding.topic:<{width}}  {printable(finding.text)}", "default")
        console().print(head, soft_wrap=True)
        if finding.remedy:
            click.echo(f"{'':8}{'':{width}}  → {printable(finding.remedy)}")


def _tell(problems: int, warnings: int) -> str:
    if not problems and not warnings:
        return "Nothing is in the way."
    told = [f"{problems} problem{'s' if problems != 1 else ''}"] if problems else []
    told += [f"{warnings} warning{'s' if warnings != 1 else ''}"] if warnings else []
    return f"{' and '.join(told)}."
