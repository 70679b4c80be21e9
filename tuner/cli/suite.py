"""``tuner suite``: several workloads, on each of which the same optimizers are compared."""

from __future__ import annotations

import contextlib
import io
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli.options import (
    allow_option,
    console,
    device_option,
    examples,
    fuse_option,
    open_storage,
    processes_option,
    quiet_option,
    report_json_option,
    storage_option,
    tell,
    workers_option,
)
from tuner.cli.results import output_options, style_options, write
from tuner.cli.run import INTERRUPTED, create_or_resume, train_trials
from tuner.cli.words import TEXT, Group
from tuner.domain.suite import Suite, SuitePlan, read_suite
from tuner.domain.vouching import vouch_for_study
from tuner.errors import NotFoundError, TunerError, UnavailableError
from tuner.service.ranks import refuse_ranks

if TYPE_CHECKING:
    from tuner.analysis.suite import SuiteSummary
    from tuner.domain.spec import StudySpec
    from tuner.service.pools.standby import Crew


@click.group(
    cls=Group,
    epilog=examples(
        "tuner suite run studies/suite.toml",
        "tuner suite report studies/suite.toml",
    ),
)
def suite() -> None:
    """Compare optimizers on several workloads: run a suite, report its scores."""


@suite.command(
    epilog=examples(
        "tuner suite run studies/suite.toml",
        "tuner suite run studies/suite.toml --workers 2",
        "tuner suite run studies/suite.toml --set budget.trials=64 --fuse off",
    )
)
@click.argument("file", metavar="SUITE.toml", type=click.Path(path_type=Path))
@storage_option
@workers_option
@device_option
@fuse_option
@processes_option
@allow_option
@click.option(
    "--set",
    "settings",
    type=TEXT,
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a value of every study, such as budget.trials=64, or of the suite, such as "
    "suite.baseline=sgd. Of studies that exist, only the budget can change. Repeatable.",
)
@quiet_option
@report_json_option
def run(
    file: Path,
    storage: str | None,
    workers: int,
    device: str,
    fuse: str,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train the study of each workload, run its best again on fresh seeds, and report.

    The studies are trained one after the other, and named SUITE.WORKLOAD. Ctrl-C saves; the same
    command continues, and leaves out what is done. If one of them fails, the others are trained
    all the same.
    """
    refuse_ranks()
    described = read_suite(file, settings)
    for spec in described.specs.values():
        vouch_for_study(spec)
    runner = _Runner(described, storage, settings, workers=workers, device=device, fuse=fuse)
    runner.begin()
    failures = {}
    for name in described.specs:
        try:
            runner.run(name)
        except UnavailableError:
            raise
        except TunerError as error:
            click.echo(f"{name}: {error}", err=True)
            failures[name] = str(error)
        except KeyboardInterrupt:  # between the studies, where no worker trains
            click.echo("Stopped by Ctrl-C. The same command continues.", err=True)
            click.get_current_context().exit(INTERRUPTED)
    summary = _read(described.plan, storage)
    if as_json:
        click.echo(_render("json", summary))
    else:
        _print(summary)
    for name, message in failures.items():
        click.echo(f"\nNot finished: {name}: {message}", err=True)
    if failures or len(summary.scored) < len(summary.workloads):
        click.get_current_context().exit(1)
    file_name = shlex.quote(str(file))
    tell(
        f"\nMore: tuner suite report {file_name} --format html --output suite.html\n"
        f"      tuner study report {shlex.quote(str(summary.workloads[0].study))}"
    )


@suite.command(
    epilog=examples(
        "tuner suite report studies/suite.toml",
        "tuner suite report suite --format html --output suite.html",
        "tuner suite report suite --format json | jq .scores.steps",
    )
)
@click.argument("name", metavar="NAME|SUITE.toml", type=TEXT)
@storage_option
@style_options
@output_options
def report(name: str, storage: str | None, style: str, output: Path | None, force: bool) -> None:
    """Report the scores of a suite, named by its file or by itself, as far as it has come."""
    path = Path(name)
    plan = read_suite(path).plan if path.suffix == ".toml" else None
    if plan is None:
        from tuner.service.suites import find_plan

        plan = find_plan(open_storage(storage), name)
    summary = _read(plan, storage)
    if style == "terminal" and output is None:
        _print(summary)
    else:
        write(_render(style, summary), output, force=force)


class _Runner:
    """Trains the studies of a suite, one after the other.

    Args:
        suite: The suite.
        storage: The database's URL, or None for the default one.
        settings: The ``key=value`` texts that were set beside the file.
        workers: How many processes there are, at least 1.
        device: Where they train, as ``--device`` takes it.
        fuse: How many trials train as one, as ``--fuse`` takes it.
    """

    def __init__(
        self,
        suite: Suite,
        storage: str | None,
        settings: tuple[str, ...],
        *,
        workers: int,
        device: str,
        fuse: str,
    ) -> None:
        self._suite, self._storage, self._settings = suite, storage, settings
        self._workers, self._device, self._fuse = workers, device, fuse

    def begin(self) -> None:
        """Writes the suite's present baseline and targets into the studies that it has already."""
        from tuner.service.suites import renew_notes

        with contextlib.suppress(NotFoundError):  # there is no database yet
            renew_notes(open_storage(self._storage), self._suite.plan)

    def run(self, name: str) -> None:
        """Trains the study of a workload to its end, and runs its finalists again.

        Raises:
            TunerError: If it cannot be trained, or has nothing to run again.
        """
        from tuner.service.pools.pool import slots_on
        from tuner.service.pools.standby import Crew

        spec, found = self._suite.specs[name], self._find(name)
        if found is not None:
            section = spec.study.model_copy(update={"name": found})  # it may have been renamed
            self._train(name, spec.model_copy(update={"study": section}), None)
            return
        with Crew(slots_on([self._device], self._workers), self._fuse, self._storage) as crew:
            self._train(name, spec, crew)

    def _train(self, name: str, spec: StudySpec, crew: Crew | None) -> None:
        from tuner.service.confirmation import open_confirmation
        from tuner.service.launch import try_workload
        from tuner.service.suites import is_complete
        from tuner.store.suites import note_suite

        check = None if crew is None else partial(try_workload, crew)
        database, study = create_or_resume(spec, self._storage, self._settings, check)
        note_suite(database, study, self._suite.plan, name)
        if is_complete(database, study):
            tell(f"{study.name!r} is done.")
            return
        tell(f"Training {study.name!r} …")
        workers, device, fuse = self._workers, self._device, self._fuse
        train_trials(database, study, workers=workers, device=device, fuse=fuse, crew=crew)
        companion = open_confirmation(database, study, spec.confirm)
        train_trials(database, companion, workers=workers, device=device, fuse=fuse)

    def _find(self, name: str) -> str | None:
        """Returns the name of a workload's study, or None before there is one."""
        from tuner.service.suites import find_study_name

        try:
            database = open_storage(self._storage)
        except NotFoundError:
            return None
        usual = self._suite.specs[name].study.name
        return find_study_name(database, self._suite.plan.name, name, usual)


def _read(plan: SuitePlan, storage: str | None) -> SuiteSummary:
    from tuner.service.suites import read_suite_summary

    return read_suite_summary(open_storage(storage), plan)


def _print(summary: SuiteSummary) -> None:
    from tuner.report.terminal import print_suite

    print_suite(summary, console())


def _render(style: str, summary: SuiteSummary) -> str:
    import json

    if style == "json":
        from tuner.report.json import to_suite_json

        return json.dumps(to_suite_json(summary), indent=2, ensure_ascii=False)
    if style == "markdown":
        from tuner.report.markdown import to_suite_markdown

        return to_suite_markdown(summary)
    if style == "html":
        from tuner.report.html import to_suite_html

        return to_suite_html(summary)
    from tuner.report.terminal import TextConsole, print_suite

    text = io.StringIO()
    print_suite(summary, TextConsole(text, plain=True))
    return text.getvalue()
