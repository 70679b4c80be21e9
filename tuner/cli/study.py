"""``tuner study``: the group of its commands, and those that create and train a study."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING

import click

from tuner.cli import difference, feeds, overviews, results, steering, transfer
from tuner.cli.options import (
    allow_option,
    device_option,
    echo_json,
    examples,
    find_study,
    fuse_option,
    json_option,
    load_spec,
    processes_option,
    quiet_option,
    report_json_option,
    spec_options,
    storage_option,
    tell,
    workers_option,
)
from tuner.cli.outlets import notify_option, targets_option
from tuner.cli.run import create_or_resume, train
from tuner.cli.words import STUDY, Group
from tuner.domain.passed import refuse_passed
from tuner.service.ranks import refuse_ranks

if TYPE_CHECKING:
    from tuner.domain.spec import StudySpec
    from tuner.service.notices import Recipient
    from tuner.service.open_study import StudyCheck
    from tuner.sinks.targets import Target


@click.group(
    cls=Group,
    epilog=examples(
        "tuner study create studies/digits.toml",
        "tuner study run digits",
        "tuner study report digits",
    ),
)
def study() -> None:
    """Create, list, run, pause, stop, repair, report, export and delete studies."""


@study.command(
    epilog=examples(
        "tuner study create studies/digits.toml",
        "tuner study create studies/digits.toml --name digits-seed1 --set search.seed=1",
    )
)
@spec_options
@storage_option
@partial(device_option, purpose="Where the workload is tried before the study is created.")
@click.option("--no-check", is_flag=True, help="Do not try the workload on this machine first.")
@quiet_option
@json_option
def create(
    spec: str | None,
    name: str | None,
    workload: str | None,
    command: str | None,
    optimizers: str | None,
    warm_start: str | None,
    settings: tuple[str, ...],
    storage: str | None,
    device: str,
    no_check: bool,
    as_json: bool,
) -> None:
    """Create a study, or change the budget of one; nothing is trained yet."""
    parsed = load_spec(
        spec,
        name=name,
        workload=workload,
        command=command,
        optimizers=optimizers,
        warm_start=warm_start,
        settings=settings,
        storage=storage,
    )

    def try_workload(resolved: StudySpec, looks: bool) -> StudyCheck:
        from tuner.service.workload_check import check_study
        from tuner.training.device import resolve_device

        return check_study(resolved, resolve_device(device), looks=looks)[0]

    check = None if no_check else try_workload
    database, handle = create_or_resume(parsed, storage, settings, check)
    if as_json:
        echo_json({"study": handle.name, "storage": database.name, "spec": handle.spec.to_json()})
    else:
        tell(f"Train it: tuner study run {shlex.quote(handle.name)}", err=False)


@study.command(
    epilog=examples(
        "tuner study run digits",
        "tuner study run digits --workers 2",
        "tuner study run digits --trials 120",
    )
)
@click.argument("name", type=STUDY)
@storage_option
@workers_option
@device_option
@fuse_option
@processes_option
@allow_option
@click.option(
    "--trials",
    type=click.IntRange(1, 10**6),
    help="Raise the number of trials that the study may start.",
)
@targets_option("--log-to")
@notify_option
@quiet_option
@report_json_option
def run(
    name: str,
    storage: str | None,
    workers: int,
    device: str,
    fuse: str,
    trials: int | None,
    targets: tuple[Target, ...],
    notify: tuple[Recipient, ...],
    as_json: bool,
) -> None:
    """Train a study that exists on this machine, and report.

    A study that was paused or stopped is left alone until 'tuner study resume'.
    """
    refuse_ranks()
    database, handle = find_study(name, storage)
    refuse_passed(handle.spec.passed, name)
    if trials is not None:
        from tuner.service.steering import raise_trials, tell_trials

        handle = raise_trials(database, handle, trials)
        tell(tell_trials(handle, trials))
    train(
        *(database, handle),
        workers=workers,
        device=device,
        fuse=fuse,
        as_json=as_json,
        targets=targets,
        notify=notify,
    )


@study.command(
    epilog=examples("tuner study confirm digits", "tuner study confirm digits --seeds 20 --top 5")
)
@click.argument("name", type=STUDY)
@storage_option
@workers_option
@device_option
@fuse_option
@processes_option
@allow_option
@click.option("--top", type=click.IntRange(1, 8), help="Best configurations that run again. [3]")
@click.option("--seeds", type=click.IntRange(5, 100), help="Fresh seeds for each, at most. [10]")
@click.option(
    "--cost",
    type=click.FloatRange(0, 100, min_open=True),
    help="Share of the search's training that it may take. [0.5]",
)
@quiet_option
@report_json_option
def confirm(
    name: str,
    storage: str | None,
    workers: int,
    device: str,
    fuse: str,
    top: int | None,
    seeds: int | None,
    cost: float | None,
    as_json: bool,
) -> None:
    """Run the best configurations of a study again on fresh seeds, and say which one wins.

    The winner, the best of another optimizer and the defaults of AdamW get five seeds at least.
    What is clearly beaten is dropped. The runs are trials of a study NAME.confirm; the same command
    continues them.
    """
    from tuner.service.confirmation import ask_confirmation

    refuse_ranks()
    database, handle = find_study(name, storage)
    refuse_passed(handle.spec.passed, name)
    companion, note = ask_confirmation(database, handle, top=top, seeds=seeds, cost=cost)
    if note:
        click.echo(note, err=True)
    train(
        database,
        companion,
        workers=workers,
        device=device,
        fuse=fuse,
        reported=handle,
        as_json=as_json,
    )


for command in (
    *(overviews.list_, overviews.show, difference.diff, overviews.watch),
    *(results.report, results.export, results.widen),
    *(feeds.log, feeds.events),
    *(steering.pause, steering.resume, steering.stop),
    *(steering.repair, steering.clean, steering.delete),
    *(transfer.import_, transfer.copy),
):
    study.add_command(command)
