"""A study as an object, for scripts and notebooks: what the commands do, as methods."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.util
import weakref
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tuner.analysis.verdict import Verdict
from tuner.domain.fuse_plan import AUTO
from tuner.domain.spec import StudySpec
from tuner.domain.states import StudyState
from tuner.domain.vouching import Typed, typed_in
from tuner.errors import NotFoundError, SpecError, TunerError
from tuner.report.html import to_card
from tuner.report.trial_table import describe_trials, to_rows
from tuner.service.confirmation import ask_confirmation
from tuner.service.launch import try_workload
from tuner.service.liveness import is_dead
from tuner.service.opening import Check, Opening, connect, find_url, refuse_other, tell
from tuner.service.passing import Workload, pack, take_workload
from tuner.service.pools.pool import slots_on
from tuner.service.pools.standby import Crew
from tuner.service.reports import Report, read_report
from tuner.service.runs import Plan, Runs
from tuner.service.steering import (
    copy_study,
    delete_study,
    find_doomed,
    raise_trials,
    steer,
    tell_trials,
)
from tuner.service.summaries import read_confirmed, read_results, read_shown
from tuner.service.winner import Winner, best
from tuner.store import Database, Studies, StudyHandle, open_database
from tuner.store.overviews import StudyOverview
from tuner.training.loop import TrainingLoop


class Study:
    """A study of a database: train it, look at it, steer it.

    >>> import tuner
    >>> study = tuner.Study("digits")  # doctest: +SKIP
    >>> study.run(workers=2).best  # doctest: +SKIP

    Args:
        name: The study's name.
        storage: The database's URL; left out, ``TUNER_STORAGE``, else the URL in the file
            ``TUNER_STORAGE_FILE``, else ``sqlite:///tuner.db``.
        workload: What it trains, if that was passed as an object, as :func:`tuner.tune` takes it;
            no database holds code, so it is passed again to go on with the study.
        allow: Packages that the study may import code from, besides what lies in the working
            directory.

    Raises:
        NotFoundError: If there is no such database, or no such study in it.
        SpecError: If the workload is another one than the study's.
    """

    def __init__(
        self,
        name: str,
        storage: str | None = None,
        *,
        workload: Any = None,
        allow: Iterable[str] = (),
    ) -> None:
        taken = None if workload is None else take_workload(workload)
        database = connect(storage)
        try:
            handle = Studies(database).find(name)
            if taken is not None:
                refuse_other(name, handle.spec.study.workload, taken)
        except BaseException:
            database.close()
            raise
        self._hold(database, handle, taken, Typed(tuple(f"{package}:_" for package in allow)))

    def _hold(
        self,
        database: Database,
        handle: StudyHandle,
        workload: Workload | None,
        typed: Typed,
    ) -> None:
        self._database, self._handle = database, handle
        self._runs = Runs(database, workload, typed)
        # A run in the background keeps its Runs, and so the database open, if nobody keeps this.
        self._close = weakref.finalize(self._runs, database.close)

    @classmethod
    def launch(cls, opening: Opening, plan: Plan) -> Study:
        """Creates a study, or finds it, and trains it: what :func:`tuner.tune` does.

        Where processes train it, one of them tries its workload first.

        Args:
            opening: The study as it was described.
            plan: How it is to be trained.

        Raises:
            SpecError: If a study of this name differs in anything but its budget.
            WorkloadError: If the workload's code raises, or the study does not come to its end.
        """
        target = None if opening.workload is None else opening.workload.target
        with opening.vouched(), contextlib.ExitStack() as stack:
            crew = None
            if target is not None and plan.workers == 1:
                check = opening.check_here(plan.device)
            else:
                slots = slots_on([plan.device], plan.workers)
                code = "" if target is None else pack(target)
                crew = stack.enter_context(Crew(slots, str(plan.fuse), opening.url, code))
                check = partial(try_workload, crew)
            study = cls._opened(opening, check)
            stack.pop_all()  # the run ends them
        study.go_on(plan, checked=opening.loop, crew=crew)
        return study

    def go_on(
        self, plan: Plan, *, checked: TrainingLoop | None = None, crew: Crew | None = None
    ) -> None:
        """Trains the study to its end: what :meth:`run` does, and :func:`tuner.tune`.

        Args:
            plan: How it is to be trained.
            checked: The workload as a training loop, if it has been tried in this process.
            crew: Processes that were started beforehand; they end with the run.
        """
        self._runs.train(self._refreshed(), plan, asked=self.name, checked=checked, crew=crew)

    @classmethod
    def _opened(cls, opening: Opening, check: Check | None) -> Study:
        opened = opening.open(check)
        study = cls.__new__(cls)
        typed = typed_in(opening.spec)
        study._hold(opened.database, opened.study, opening.workload, typed)  # noqa: SLF001 (ours)
        return study

    @classmethod
    def create(
        cls,
        source: str | Path | Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        storage: str | None = None,
        workload: Any = None,
        optimizers: Iterable[str] | None = None,
        warm_start: str | None = None,
        settings: Mapping[str, Any] | None = None,
        device: str = "auto",
        check: bool = True,
        quiet: bool = False,
    ) -> Study:
        """Creates a study, or finds it and changes its budget; nothing is trained yet.

        Args:
            source: The path of a study file, or its tables as a dictionary; None for what the
                other arguments say alone.
            name: The study's name; left out, the file's, else the workload's in small letters.
            storage: The database's URL, as for :class:`Study`.
            workload: What to train: an import string, or an object as :func:`tuner.tune` takes it.
            optimizers: Which optimizers compete.
            warm_start: The earlier study to start from, or ``auto`` or ``off``.
            settings: Values that replace others by dotted key, such as ``{"budget.trials": 20}``.
            device: Where the workload is tried.
            check: Whether to try the workload first.
            quiet: Whether to print nothing but warnings.

        Raises:
            NotFoundError: If the file does not exist.
            SpecError: If something breaks a rule, or a study of this name differs.
            WorkloadError: If the workload's code raises.
        """
        if source is None and workload is None:
            raise SpecError("Give a study file, its tables, or a workload.")
        values = {
            "study.name": name,
            "space.optimizers": optimizers,
            "search.warm_start": warm_start,
        }
        opening = Opening.describe(
            source, values, settings or {}, workload=workload, storage=storage, quiet=quiet
        )
        with opening.vouched():
            return cls._opened(opening, opening.check_here(device) if check else None)

    @staticmethod
    def list(storage: str | None = None) -> builtins.list[StudyOverview]:
        """Returns a line about every study of a database, by name; none without a database.

        Args:
            storage: The database's URL, as for :class:`Study`.
        """
        try:
            database = connect(storage)
        except NotFoundError:
            return []
        with contextlib.closing(database):
            return Studies(database).list(is_dead)

    @property
    def name(self) -> str:
        """The study's name."""
        return self._handle.name

    @property
    def storage(self) -> str:
        """The database's URL, without its password."""
        return self._database.name

    @property
    def spec(self) -> StudySpec:
        """The study file as the study holds it now, with every default filled in."""
        return self._refreshed().spec

    @property
    def state(self) -> str:
        """What happens to it: ``running``, ``idle``, ``paused``, ``stopped`` or ``done``."""
        return Studies(self._database).look(self._handle, is_dead).activity.value

    @property
    def best(self) -> Winner:
        """The winner, for your own code: the verdict's, if finalists ran again on fresh seeds.

        Raises:
            NotFoundError: If no trial is complete yet.
        """
        return best(self.name, self._database.url)

    @property
    def verdict(self) -> Verdict | None:
        """Who wins on fresh seeds, and how sure that is; None until finalists have run again."""
        confirmed = read_confirmed(self._database, self._refreshed())
        return None if confirmed is None else confirmed.verdict

    @property
    def trials(self) -> Any:
        """All trials: a pandas DataFrame where pandas is installed, else a list of dictionaries.

        Columns are ``trial``, ``outcome``, ``value``, ``optimizer``, ``schedule`` and so on, those
        of ``tuner study export --all``; each hyperparameter and metric has one of its own, such as
        ``params.lr`` and ``metrics.val_loss``.
        """
        study = self._refreshed()
        columns, rows = to_rows(describe_trials(study.spec, read_shown(self._database, study)))
        if importlib.util.find_spec("pandas") is None:
            return rows
        return importlib.import_module("pandas").DataFrame(rows, columns=columns)

    def report(self, path: str | Path | None = None, *, force: bool = False) -> Report:
        """Returns the report of the study as of now; it prints as text, and a notebook shows it.

        Args:
            path: A file to write it to, in the format of its ending: ``.html``, ``.md``, ``.json``
                or ``.txt``.
            force: Whether to write over a file that is no report or export of tuner.

        Raises:
            SpecError: If the file's ending is another one, or such a file is there.
        """
        report = read_report(self._database, self._refreshed())
        if path is not None:
            report.write(path, force=force)
        return report

    def run(
        self,
        *,
        workers: int = 1,
        device: str = "auto",
        fuse: str | int = AUTO,
        trials: int | None = None,
        background: bool = False,
        quiet: bool = False,
    ) -> Study:
        """Trains the study to its end, then its finalists again; returns the study.

        One worker trains a workload that was passed as an object in this process; any other
        workers are processes of their own. Ctrl-C, or the interruption of a notebook's kernel,
        saves the trials in training and raises KeyboardInterrupt; the same call continues them.

        Args:
            workers: Worker processes; they share the cores.
            device: Where to train: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``mps``.
            fuse: How many trials train as one: ``auto``, ``off`` or a number.
            trials: Raises the number of trials that the study may start.
            background: Whether to return at once, while it trains; see :meth:`wait`.
            quiet: Whether to show nothing but warnings.

        Raises:
            SpecError: If the study is paused or stopped, or its workload has to be passed again.
            WorkloadError: If the workers have ended and the study is not done.
        """
        if trials is not None:
            self._runs.refuse_second(self.name)
            self._handle = raise_trials(self._database, self._refreshed(), trials)
            tell([tell_trials(self._handle, trials)], quiet=quiet)
        self.go_on(Plan(workers, device, fuse, quiet, background))
        return self

    def confirm(
        self,
        *,
        top: int | None = None,
        seeds: int | None = None,
        cost: float | None = None,
        workers: int = 1,
        device: str = "auto",
        fuse: str | int = AUTO,
        background: bool = False,
        quiet: bool = False,
    ) -> Study:
        """Runs the best configurations again on fresh seeds; the verdict says which one wins.

        Args:
            top: How many of the best run again. [3]
            seeds: How many fresh seeds each gets at most. [10]
            cost: The share of the search's training that it may take. [0.5]
            workers: As for :meth:`run`, like the others.
            device: Likewise.
            fuse: Likewise.
            background: Likewise.
            quiet: Likewise.

        Raises:
            NotFoundError: If no trial is complete.
            SpecError: If the search is not over.
        """
        self._runs.refuse_second(self.name)
        companion, note = ask_confirmation(
            self._database, self._refreshed(), top=top, seeds=seeds, cost=cost
        )
        tell([note] if note else [], quiet=quiet)
        plan = Plan(workers, device, fuse, quiet, background)
        self._runs.train(companion, plan, asked=self.name)
        return self

    def pause(self) -> None:
        """Pauses the study: workers, wherever they are, save their trials and wait."""
        steer(self._database, self._handle, StudyState.PAUSED)

    def resume(self) -> None:
        """Lets a paused or stopped study go on; :meth:`run` trains it where nobody waits."""
        steer(self._database, self._handle, StudyState.RUNNING)

    def stop(self) -> None:
        """Stops the study before its budget is used up: trials end with the metric they have."""
        steer(self._database, self._handle, StudyState.STOPPED)

    @property
    def is_running(self) -> bool:
        """Whether a run in the background of this process has not ended yet."""
        return self._runs.is_running

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end of a run in the background, and raises the error that ended it.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Returns:
            Whether it has ended.
        """
        return self._runs.wait(timeout)

    def interrupt(self, timeout: float | None = None) -> bool:
        """Has a run in the background save its trials and end, as Ctrl-C does; waits for that.

        :meth:`run` goes on with them.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Returns:
            Whether it has ended.
        """
        self._runs.interrupt()
        return self.wait(timeout)

    def copy(self, storage: str | None = None, name: str | None = None) -> Study:
        """Copies the study, and the one that confirms it; returns the copy.

        Args:
            storage: The URL of the copy's database, which is made if it is missing; None for the
                same.
            name: The name of the copy; None for the same.

        Raises:
            SpecError: If a worker trains it, or there is a study of that name already.
        """
        url = self._database.url if storage is None else find_url(storage)
        with contextlib.closing(open_database(url, create=True)) as target:
            copy = copy_study(self._database, self._refreshed(), target, name)
        return Study(copy.name, url)

    def delete(self) -> None:
        """Deletes the study with its trials, checkpoints and logs, and the one that confirms it.

        Raises:
            SpecError: If it runs in the background here.
        """
        self._runs.refuse_second(self.name)
        for doomed in find_doomed(self._database, self._refreshed()):
            delete_study(self._database, doomed.study)

    def close(self) -> None:
        """Closes the connection to the database; the study's end does so, too."""
        self._runs.refuse_second(self.name)
        self._close()

    def __repr__(self) -> str:
        told = [repr(self.name)]
        with contextlib.suppress(TunerError):
            overview = Studies(self._database).look(self._handle, is_dead)
            told += [overview.activity.value, f"{overview.started}/{overview.trials} trials"]
            if overview.best_value is not None:
                told.append(f"best {overview.best_value:.6g}")
        return f"<tuner.Study {', '.join([*told, self.storage])}>"

    def _repr_html_(self) -> str | None:
        """Returns the study's answer as a card, which notebooks show; None without its database."""
        try:
            study = self._refreshed()
            return to_card(read_results(self._database, study))
        except TunerError:
            return None

    def _refreshed(self) -> StudyHandle:
        self._handle = Studies(self._database).refresh(self._handle)
        return self._handle
