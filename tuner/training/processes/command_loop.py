"""The training loop of a command: each trial is a process that this loop starts, hears and ends."""

from __future__ import annotations

import contextlib
import selectors
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from tuner.domain.allowed_commands import check_allowed
from tuner.domain.catalog.dimensions import Choice, Fixed, Int
from tuner.domain.command import Process, fill, placeholders_of
from tuner.domain.places import make_private
from tuner.domain.spec import StudySpec
from tuner.domain.trial_settings import length_of
from tuner.errors import CommandError
from tuner.training.place import Place
from tuner.training.processes.channel import Listener
from tuner.training.processes.conversation import Conversation
from tuner.training.processes.output import LOG, LineReader, Output
from tuner.training.processes.progress import Progress
from tuner.training.processes.trial_file import TrialFacts
from tuner.training.processes.trial_process import (
    TrialProcess,
    find_program,
    holding,
    tell_other_program,
)
from tuner.training.reporting import Pruned
from tuner.training.run import Run
from tuner.training.seeds import split_seed
from tuner.training.settings import APPLIED_BY_LOOPS

_LOOK_S = 0.2
_KEPT_FILES = (LOG, ".lock")


@dataclass(frozen=True)
class CommandLoop:
    """The training loop of a study that trains by a command.

    Attributes:
        words: The command, with placeholders.
        process: How its process reports, pauses and ends.
        ends_at_once: Whether a check has heard its first evaluation count as its last.
    """

    words: tuple[str, ...]
    process: Process
    ends_at_once: bool = False

    @classmethod
    def of(cls, spec: StudySpec) -> CommandLoop:
        """Returns the loop of a study with a command.

        Raises:
            SpecError: If its command is not allowed here, or there is no such program.
        """
        words = spec.study.command or ()
        check_allowed(words)
        find_program(words[0])
        return cls(words, spec.process or Process())

    def __call__(self, run: Run) -> None:
        """Trains a trial, from where an earlier attempt has left it.

        Raises:
            CommandError: If the command fails, hangs, or ends without an evaluation.
        """
        resumes = self.process.resumable and run.taken > 0
        with contextlib.ExitStack() as stack:
            place = run.place or _rehearsal_place(run, stack)
            make_private(place.folder)
            held = stack.enter_context(holding(place.folder, lambda: self._wait(run)))
            if not resumes:
                _empty(place.folder)
            facts = _gather_facts(run, place, resumes=resumes)
            facts.write()
            names = set(placeholders_of(self.words))
            for name in APPLIED_BY_LOOPS:
                # One that is given nothing by arguments reads it elsewhere, or does not: who knows.
                if name in names or not names:
                    run.state.heed(name)
            command = fill(self.words, facts.settings())
            listener = stack.enter_context(Listener())
            environment = facts.environment() | listener.environment
            environment.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
            output = Output(place.folder / LOG)
            process = stack.enter_context(
                TrialProcess(
                    [find_program(command[0]), *command[1:]],
                    environment,
                    output,
                    grace_s=self.process.grace_s,
                    held=(held,),
                )
            )
            _Attendance(self, run, process, listener, output).attend()

    def _wait(self, run: Run) -> None:
        run.state.track(run.taken, kept=self.process.resumable)


class _Attendance:
    """Attends to the process of one trial until it has ended.

    Args:
        loop: The loop, which knows how the process reports.
        run: The trial.
        process: Its process.
        listener: Takes the connections of its process.
        output: What the process has printed.
    """

    def __init__(
        self,
        loop: CommandLoop,
        run: Run,
        process: TrialProcess,
        listener: Listener,
        output: Output,
    ) -> None:
        self._loop, self._run, self._process, self._output = loop, run, process, output
        self._progress = Progress(run, kept=loop.process.resumable)
        self._reader = LineReader(run.metric, loop.process.pattern)
        self._selector = selectors.DefaultSelector()
        self._conversation = Conversation(run, self._progress, listener, self._selector)
        self._heard_at = self._began_at = time.monotonic()
        self._over_at: float | None = None

    def attend(self) -> None:
        """Hears the process until it has ended, or is to.

        Raises:
            CommandError: If it fails, hangs, or ends without an evaluation.
        """
        run, process = self._run, self._process
        run.timing.begin(run.device)
        with self._selector, self._conversation:
            self._selector.register(process, selectors.EVENT_READ)
            try:
                while process.poll() is None:
                    self._hear()
                    self._look_after()
                for line in process.drain():
                    self._heed(line)
            except Pruned:
                self._leave(by_itself=self._conversation.has_told)
                raise
            except BaseException:
                self._leave(by_itself=False)
                raise
        if not self._is_over:
            self._conclude(process.poll() or 0)
        elif run.place is None and not self._progress.is_counted:
            self._progress.conclude()  # a check may have heard an evaluation of no place
        run.timing.mark()

    def _hear(self) -> None:
        """Waits a moment, and takes what the process says."""
        for key, _ in self._selector.select(_LOOK_S):
            self._heard_at = time.monotonic()
            if key.fileobj is not self._process:
                self._conversation.hear(key)
                continue
            for line in self._process.read():
                self._heed(line)
            if self._process.is_silent:
                self._selector.unregister(self._process)

    def _heed(self, line: str) -> None:
        """Takes a line of output, which may report."""
        report = self._reader.read(line)
        if report is None or self._is_over:
            return
        self._progress.take_line(report)

    def _look_after(self) -> None:
        """Gives a sign of life, and ends a process that is done, asked to stop, or hangs."""
        run, process, now = self._run, self._process, time.monotonic()
        self._progress.look()
        if self._is_over:
            self._over_at = self._over_at or now
            ends_itself = now - self._over_at < self._loop.process.grace_s
            if not ends_itself or run.place is None or self._progress.beyond:
                process.ask_to_end()
        elif run.place is None and self._loop.process.check_s < now - self._began_at:
            raise self._fail(
                f"has not reported {run.metric} within {self._loop.process.check_s:g} s "
                f"(process.check_s). {self._explain_report()} If its first evaluation takes "
                "longer, raise process.check_s, or set it to 0 to begin without a check"
            )
        elif now - self._heard_at > run.train.stall_s:
            raise self._fail(
                f"has printed and reported nothing for {run.train.stall_s:g} s (train.stall_s), "
                "so that it counts as hung: have it print a line or call tuner.current().alive() "
                "now and then, or raise train.stall_s"
            )

    @property
    def _is_over(self) -> bool:
        """Whether nothing more is to be trained: the budget is used up, or a check has seen all."""
        return self._progress.is_over or (self._run.place is None and self._progress.has_metric)

    def _conclude(self, code: int) -> None:
        """Takes the end of a process that has come to it by itself.

        Raises:
            CommandError: If it has failed, or reported nothing.
        """
        if code != 0:
            error, place = self._output.find_error()
            how = f"was killed by {_name(-code)}" if code < 0 else f"ended with exit code {code}"
            checked = self._run.place is None or "ModuleNotFoundError" in error
            other = tell_other_program(self._loop.words[0]) if checked else ""
            raise self._fail(f"{how}{f': {error}' if error else ''}", place, other)
        if not self._progress.conclude():
            raise self._fail(
                f"ended without reporting {self._run.metric}. {self._explain_report()}"
            )

    def _explain_report(self) -> str:
        metric, pattern = self._run.metric, self._loop.process.pattern
        line = f"print '{metric}=0.31 {self._progress.unit}=20'"
        if pattern is not None:
            line = f"print lines that match process.pattern = {pattern!r}"
        return f"Have it {line}, or call tuner.current().report({metric}=...)."

    def _fail(self, what: str, place: str = "", remedy: str = "") -> CommandError:
        last = "\n".join(self._output.last)
        told = f"The command {what.rstrip('.')}."
        if remedy:
            told += f"\n{remedy}"
        if last:
            told += f"\nIts last lines:\n{last}"
        if self._run.place is not None:
            told += f"\nAll of its output: {self._output.log}"
        return CommandError(told, place)

    def _leave(self, *, by_itself: bool) -> None:
        """Ends the process; where it has been told to leave, after the time that it may take to."""
        process = self._process
        until = time.monotonic() + (self._loop.process.grace_s if by_itself else 0.0)
        while process.poll() is None:
            if time.monotonic() >= until:
                process.ask_to_end()
            for key, _ in self._selector.select(_LOOK_S):
                if key.fileobj is process:
                    list(process.read())
                    if process.is_silent:
                        self._selector.unregister(process)
                else:
                    self._conversation.dismiss(key)
            self._run.alive()


def _gather_facts(run: Run, place: Place, *, resumes: bool) -> TrialFacts:
    spec = run.spec
    own = {name: _draw(run, name) for name in spec.own}
    return TrialFacts(
        spec=spec,
        config=run.config,
        study=place.study,
        number=place.number,
        folder=place.folder,
        device=str(run.device),
        seed=run.seed % 2**32,  # as NumPy's RandomState and many scripts take it
        split_seed=split_seed(run.seed),
        length=run.length or min(length_of(spec), run.at_most or length_of(spec)),
        step=run.taken if resumes else 0,
        own=own,
        at_most=run.at_most,
    )


def _draw(run: Run, name: str) -> object:
    """Returns the value of an own hyperparameter, drawn as a training loop's are."""
    match run.spec.own[name]:
        case Fixed() as axis:
            return run.suggest_categorical(name, [axis.value])
        case Choice() as axis:
            return run.suggest_categorical(name, axis.choices)
        case Int() as axis:
            return run.suggest_int(name, axis.low, axis.high, log=axis.log)
        case axis:
            return run.suggest_float(name, axis.low, axis.high, log=axis.log)


def _rehearsal_place(run: Run, stack: contextlib.ExitStack) -> Place:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tuner-"))
    return Place(run.spec.study.name, 0, Path(folder))


def _empty(folder: Path) -> None:
    """Removes what an earlier attempt has left that nothing goes on from, but for its output."""
    for path in folder.iterdir():
        if path.name in _KEPT_FILES:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
