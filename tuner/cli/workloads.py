"""``tuner workloads``: the workloads of a project, and whether they run."""

from __future__ import annotations

import click

from tuner.cli.options import console, device_option, echo_json, examples, json_option
from tuner.domain.imports import vouch_for


@click.command(epilog=examples("tuner workloads", "tuner workloads models.digits:Digits"))
@click.argument("workload", required=False)
@device_option
@json_option
def workloads(workload: str | None, device: str, as_json: bool) -> None:
    """Check that workloads run: one, or every one in ./models.

    Each is trained for a few steps with SGD and evaluated once.
    """
    from tuner.service.workload_check import check_workload, find_workloads

    vouch_for([workload or "models:all"])
    names, broken = ([workload], []) if workload else find_workloads()
    if not names and not broken:
        click.echo("There are no workloads in ./models. The README shows how to write one.")
        return
    checks = [*broken, *(check_workload(name, device) for name in names)]
    if as_json:
        echo_json([check.to_json() for check in checks])
    else:
        from tuner.report.tables import TextTable
        from tuner.report.terminal import FittedTable

        columns = ("workload", "runs", "parameters", "examples", "step", "metrics")
        rows = tuple(check.cells() for check in checks)
        console().print(FittedTable(TextTable("Workloads", columns, rows)))
        for check in checks:
            if check.error:
                click.echo(f"{check.workload}: {check.error}", err=True)
    if any(check.error for check in checks):
        click.get_current_context().exit(1)
