"""Weights & Biases: a run for each trial, grouped by study."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

# Nothing is sent but what a user asks for, and that only to the server they name.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

from tuner.domain.places import project_folder
from tuner.domain.trials import Outcome
from tuner.errors import SinkAwayError, SpecError
from tuner.sinks.sheets import VALUE, Ending, Point, StudySheet, TrialSheet
from tuner.sinks.sink import Held
from tuner.sinks.wandb_files import read_run


class WandbSink:
    """Writes each trial as a run, whose id follows from the study and the trial's number.

    ``WANDB_MODE``, ``WANDB_DIR``, ``WANDB_BASE_URL`` and the key of ``wandb login`` count as they
    do elsewhere. With ``WANDB_MODE=offline`` runs lie in files until ``wandb sync`` sends them.

    Args:
        place: The project, with its entity before it or not.
    """

    def __init__(self, place: str) -> None:
        entity, _, self._project = place.rpartition("/")
        self._place, self._entity = place, entity or None
        self._study: StudySheet | None = None
        self._runs: dict[int, Any] = {}
        self._waiting: dict[int, list[Point]] = {}

    @property
    def _offline(self) -> bool:
        return os.environ.get("WANDB_MODE", "online") in ("offline", "dryrun")

    def open(self, study: StudySheet) -> None:
        """Checks that there is a key where one is needed: nobody is at hand to be asked for it."""
        with self._translated():
            known = self._offline or wandb.login(prompt=False)
        if not known:
            raise SpecError(
                f"wandb:{self._place}: no key is known: run 'wandb login' once, or set "
                "WANDB_API_KEY, or WANDB_MODE=offline to keep runs in files."
            )
        self._study = study

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
            raise SpecError(f"wandb:{self._place}: {_first_line(error)}") from None
        except (wandb.errors.Error, OSError) as error:
            raise SinkAwayError(f"wandb:{self._place}: {_first_line(error)}") from None

    def look(self, trial: TrialSheet) -> Held:
        """Reads how far the run has come: in its files, or from the server that goes on with it."""
        if self._offline:
            steps = [read_run(path) for path in self._files_of(trial)]
            return Held(
                any(whole for _, whole in steps), max((s for s, _ in steps), default=-1) + 1
            )
        return Held(before=self._run_of(trial).starting_step)

    def _files_of(self, trial: TrialSheet) -> list[Path]:
        run_id = self._id_of(trial)
        return sorted(_folder().glob(f"*wandb/*run-*/run-{run_id}.wandb"))

    def write(self, trial: TrialSheet, points: Sequence[Point], ending: Ending | None) -> None:
        """Logs a row for each step; the last one waits, since nothing can be added to it later."""
        with self._translated():
            run = self._run_of(trial)
            points = sorted([*self._waiting.pop(trial.number, []), *points])
            if ending is None and points:
                self._waiting[trial.number] = [p for p in points if p.step == points[-1].step]
                points = [point for point in points if point.step < points[-1].step]
            for step, row in groupby(points, key=lambda point: point.step):
                run.log({point.name: point.value for point in row}, step=step, commit=True)
            if ending is not None:
                self._end(self._runs.pop(trial.number), ending)

    def _end(self, run: Any, ending: Ending) -> None:
        run.summary.update({**ending.metrics, "trial/outcome": ending.outcome.value})
        if ending.value is not None:
            run.summary[VALUE] = ending.value
        if ending.error:
            run.summary["trial/error"] = ending.error
        run.tags = (*(run.tags or ()), ending.outcome.value)
        run.finish(exit_code=int(ending.outcome is Outcome.FAILED))

    def _run_of(self, trial: TrialSheet) -> Any:
        """Returns the run of a trial, which W&B goes on with where it knows it."""
        if trial.number in self._runs:
            return self._runs[trial.number]
        if self._study is None:
            raise RuntimeError("The sink has not been opened.")
        with self._translated():
            run = wandb.init(
                entity=self._entity,
                project=self._project,
                id=self._id_of(trial),
                name=f"{self._study.name}-{trial.number}",
                group=self._study.name[:128],
                config={**trial.settings, "tuner": {**self._study.tags, **trial.tags}},
                dir=_folder(),
                mode="offline" if self._offline else None,
                resume="allow",
                reinit="create_new",
                settings=_settings(),
            )
        self._runs[trial.number] = run
        return run

    def _id_of(self, trial: TrialSheet) -> str:
        if self._study is None:
            raise RuntimeError("The sink has not been opened.")
        return f"{self._study.uuid[:16]}-{trial.number}"

    def close(self) -> None:
        """Leaves runs of trials in training: they are gone on with under the same ids."""
        self._waiting.clear()
        while self._runs:
            _, run = self._runs.popitem()
            run.finish()
        if self._study is not None:
            wandb.teardown()  # a run that is finished is still being written by W&B's own process


def _folder() -> Path:
    """Returns the folder that W&B makes its own in."""
    return Path(os.environ.get("WANDB_DIR") or project_folder())


def _settings() -> wandb.Settings:
    """Returns settings by which no more is written than the curves: not what this process does."""
    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        disable_job_creation=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_save_requirements=False,
        x_disable_machine_info=True,
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
