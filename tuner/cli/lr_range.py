"""``tuner lr-range``: the learning-rate range test of a workload."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.options import (
    allow_option,
    console,
    device_option,
    echo_json,
    examples,
    json_option,
    quiet_option,
    tell,
)
from tuner.cli.words import OPTIMIZER_NAMES, TEXT
from tuner.domain.imports import vouch_for
from tuner.domain.names import to_study_name
from tuner.domain.study_file import apply_settings, parse_spec, read_spec
from tuner.errors import SpecError, WorkloadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuner.analysis.rate_range import RateCurve
    from tuner.domain.spec import StudySpec

_USUAL = ("sgd", "adamw")
_COLUMNS = 48


@click.command(
    "lr-range",
    epilog=examples(
        "tuner lr-range models.digits:Digits",
        "tuner lr-range studies/digits.toml --optimizer muon --output rates.html",
        "tuner lr-range train:train --optimizer adamw --write-study studies/train.toml",
    ),
)
@click.argument("workload", metavar="MODULE:NAME|STUDY.toml")
@click.option(
    "--optimizer",
    "optimizers",
    multiple=True,
    type=OPTIMIZER_NAMES,
    help=f"Which to test. Repeatable. [default: {', '.join(_USUAL)}; of a study file, all of its]",
)
@click.option("--from", "low", default=1e-6, show_default=True, help="The first learning rate.")
@click.option("--to", "high", default=10.0, show_default=True, help="The last learning rate.")
@click.option(
    "--steps",
    default=200,
    show_default=True,
    type=click.IntRange(20, 100_000),
    help="Steps from the first to the last.",
)
@click.option(
    "--metric",
    type=TEXT,
    help="A number that the training loop logs or reports. [default: the loss whose backward() it "
    "calls]",
)
@click.option(
    "--set",
    "settings",
    type=TEXT,
    multiple=True,
    metavar="KEY=VALUE",
    help="A value of the study file, such as train.batch_size=32. Repeatable.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="Draw the losses: a page, such as rates.html."
)
@click.option(
    "--write-study",
    "study_file",
    type=click.Path(path_type=Path),
    help="Write a study file that searches the ranges found.",
)
@click.option("--force", is_flag=True, help="Replace files that are there already.")
@device_option
@allow_option
@quiet_option
@json_option
def lr_range(
    workload: str,
    optimizers: tuple[str, ...],
    low: float,
    high: float,
    steps: int,
    metric: str | None,
    settings: tuple[str, ...],
    output: Path | None,
    study_file: Path | None,
    force: bool,
    device: str,
    as_json: bool,
) -> None:
    """Find the range of learning rates that is worth searching.

    Each optimizer trains the workload from its start, while its learning rate grows with every
    step, until the loss diverges. The range begins where the loss falls and ends where it falls no
    further. Needs no database, and stores nothing.
    """
    from tuner.report.files import write_file
    from tuner.report.html import to_rates_html

    _check_rates(low, high)
    if output is not None and output.suffix != ".html":
        raise SpecError(f"--output {output}: a page is written; name it {output.stem}.html")
    tree = _read(workload, optimizers, settings)
    spec = parse_spec(tree, origin=workload).resolve()
    vouch_for([spec.study.workload])
    curves = _measure(spec, optimizers, device, low, high, steps, metric)
    tables = _to_tables(curves)
    if output is not None:
        about = f"{steps} steps from {low:g} to {high:g}, with seed {spec.search.seed}."
        page = to_rates_html(spec.study.workload, about, curves, _to_toml(tables))
        write_file(output, page, force=force)
    if study_file is not None:
        if not tables:
            raise WorkloadError(f"{_NOTHING} {study_file} has not been written.")
        text = _to_toml(_with_ranges(tree, tables, to_study_name(study_file.stem)))
        write_file(study_file, text, force=force, is_study=True)
    if as_json:
        echo_json(_describe(spec, curves, tables))
    else:
        _print(curves, tables, output, study_file)
    if not tables:
        click.get_current_context().exit(1)


_NOTHING = "No range was found: the loss falls nowhere, or hardly more than its noise."


def _check_rates(low: float, high: float) -> None:
    if not 0 < low < high < float("inf"):
        raise SpecError(
            f"--from {low:g} --to {high:g}: rates grow from a value above 0 to a larger one"
        )


def _read(workload: str, optimizers: tuple[str, ...], settings: tuple[str, ...]) -> dict[str, Any]:
    """Returns the tree of a study file, or of one that names the workload and optimizers alone."""
    if workload.endswith(".toml"):
        return read_spec(Path(workload), settings)
    tree = {
        "study": {"name": to_study_name(workload.rpartition(":")[2].lower()), "workload": workload},
        "space": {"optimizers": list(optimizers or _USUAL)},
    }
    return apply_settings(tree, settings)


def _measure(
    spec: StudySpec,
    optimizers: tuple[str, ...],
    device: str,
    low: float,
    high: float,
    steps: int,
    metric: str | None,
) -> list[RateCurve]:
    from tuner.training.device import resolve_device
    from tuner.training.rate_range import check_rate, measure_rates
    from tuner.training.rehearsal import prepare

    if spec.study.command is not None:
        raise SpecError(
            "study.command: a command is told one learning rate, which it keeps: a range test "
            "needs a class or a training loop in Python, as study.workload."
        )
    known = spec.space.optimizers
    for name in optimizers:
        if name not in known:
            raise SpecError(
                f"--optimizer {name}: the study file has {', '.join(known)}: add it to "
                "space.optimizers"
            )
    chosen = [name for name in known if not optimizers or name in optimizers]
    for name in chosen:
        check_rate(name)
    place = resolve_device(device)
    curves = []
    with contextlib.redirect_stdout(sys.stderr):  # what the workload prints is no result
        loop = prepare(spec, place)
        for name in chosen:
            tell(f"{name}: {steps} steps from {low:g} to {high:g}")
            curves.append(
                measure_rates(
                    loop, spec, name, place, low=low, high=high, steps=steps, metric=metric
                )
            )
    return curves


def _to_tables(curves: Sequence[RateCurve]) -> dict[str, Any]:
    """Returns the ranges found as tables of a study file; nothing where there are none."""
    found = {curve.optimizer: curve.find_range() for curve in curves}
    ranges = {
        name: {"lr": {"low": one.axis.low, "high": one.axis.high, "log": True}}
        for name, one in found.items()
        if one is not None
    }
    return {"optimizer": ranges} if ranges else {}


def _with_ranges(tree: dict[str, Any], tables: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns a study file's tree under a new name, with the ranges found in place of its own."""
    own = dict(tree.get("optimizer", {}))
    for optimizer, axes in tables["optimizer"].items():
        own[optimizer] = {**own.get(optimizer, {}), **axes}
    return {**tree, "study": {**tree["study"], "name": name}, "optimizer": own}


def _to_toml(tables: dict[str, Any]) -> str:
    """Returns tables as TOML, each range on a line of its own."""
    from tuner.analysis.advice.commands import write_key, write_toml

    lines: list[str] = []

    def write(path: tuple[str, ...], table: dict[str, Any]) -> None:
        below = {
            key: value
            for key, value in table.items()
            if isinstance(value, dict) and not {"low", "choices"} & value.keys()
        }
        own = {key: value for key, value in table.items() if key not in below}
        if own:
            head = [] if not path else ["", f"[{'.'.join(map(write_key, path))}]"]
            lines.extend(head)
            lines.extend(f"{write_key(key)} = {write_toml(value)}" for key, value in own.items())
        for key, value in below.items():
            write((*path, key), value)

    write((), tables)
    return "\n".join(lines).strip() + "\n" if lines else ""


def _describe(
    spec: StudySpec, curves: Sequence[RateCurve], tables: dict[str, Any]
) -> dict[str, Any]:
    return {
        "workload": spec.study.workload,
        "optimizers": [_describe_curve(curve) for curve in curves],
        "tables": tables,
    }


def _describe_curve(curve: RateCurve) -> dict[str, Any]:
    found = curve.find_range()
    return {
        "optimizer": curve.optimizer,
        "range": found and {"low": found.axis.low, "high": found.axis.high, "log": True},
        "steepest": found and found.steepest,
        "open_below": found and found.open_below,
        "open_above": found and found.open_above,
        "diverged": curve.diverged,
        "rates": curve.rates,
        "losses": curve.losses,
    }


def _print(
    curves: Sequence[RateCurve],
    tables: dict[str, Any],
    output: Path | None,
    study_file: Path | None,
) -> None:
    from tuner.report.charts.rate_range import HEAD, rate_row
    from tuner.report.tables import TextTable
    from tuner.report.terminal import FittedTable

    rows = tuple((*rate_row(curve), _draw(curve)) for curve in curves)
    table = TextTable("Learning rates", (*HEAD, "loss, as the rate grows"), rows)
    console().print(FittedTable(table))
    for curve in curves:
        _print_doubts(curve)
    if not tables:
        click.echo(_NOTHING)
    elif study_file is None:
        tell("In a study file:\n", err=False)
        click.echo(_to_toml(tables), nl=False)
    else:
        tell(f"Wrote {study_file}. Next: tuner run {study_file}", err=False)
    if output is not None:
        tell(f"Wrote {output}.", err=False)


def _print_doubts(curve: RateCurve) -> None:
    found = curve.find_range()
    if found is None:
        return
    if found.open_below:
        click.echo(f"{curve.optimizer}: the loss falls from the first rate on: try a lower --from.")
    if found.open_above:
        click.echo(f"{curve.optimizer}: the loss still falls at the last rate: try a higher --to.")


def _draw(curve: RateCurve) -> str:
    """Returns a curve as one line of bars, what lies far above its start cut off."""
    from tuner.report.catalog import to_sparkline
    from tuner.report.charts.rate_range import cap_losses

    low, high = cap_losses(curve)
    values, width = curve.smoothed, high - low or 1.0
    count = min(_COLUMNS, len(values))
    places = [round(at * (len(values) - 1) / max(1, count - 1)) for at in range(count)]
    return to_sparkline([min(1.0, max(0.0, (values[at] - low) / width)) for at in places])
