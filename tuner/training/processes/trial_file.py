"""The trial as its process reads it: a file, variables of the environment, placeholders."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.command import Setting, write_setting
from tuner.domain.groups import GroupValues
from tuner.domain.spec import StudySpec
from tuner.domain.trial_settings import settings_of_trial, unit_of
from tuner.domain.trials import TrialConfig
from tuner.errors import SpecError

FILE = "TUNER_TRIAL_FILE"
"""The environment variable that names the file."""

_PREFIX = "TUNER_PARAM_"
_WITHHELD = (
    "TUNER_STORAGE",
    "TUNER_STORAGE_FILE",
    "TUNER_DASHBOARD_PASSWORD",
    "TUNER_DASHBOARD_PASSWORD_FILE",
    "TUNER_ALLOW_COMMAND",
    "TUNER_LOG_TO",
    "TUNER_NOTIFY",
    "PGPASSWORD",
)
"""Variables of a worker that the process of a trial has no use for: most hold secrets."""


@dataclass(frozen=True)
class TrialFacts:
    """Facts of a trial that its process is told.

    Attributes:
        spec: The study, resolved, with the trial's seed.
        config: The trial's settings.
        study: The study's name.
        number: The trial's number in its study.
        folder: The folder for its files.
        device: The device to train on.
        seed: The seed of all that is random.
        split_seed: The seed to split the data by.
        length: Steps, or epochs, of a full trial: what the budget counts.
        step: Steps, or epochs, that have been taken by earlier attempts.
        own: The values of the study's own hyperparameters.
        at_most: Steps that a full trial is cut to in a rehearsal, or None.
    """

    spec: StudySpec
    config: TrialConfig
    study: str
    number: int
    folder: Path
    device: str
    seed: int
    split_seed: int
    length: int
    step: int
    own: Mapping[str, Any]
    at_most: int | None = None

    @property
    def file(self) -> Path:
        """The file that holds all of it."""
        return self.folder / "trial.json"

    @property
    def unit(self) -> str:
        """The unit of the budget: ``steps`` or ``epochs``."""
        return unit_of(self.spec)

    def settings(self) -> dict[str, Setting]:
        """Returns what placeholders stand for, by name; None where the trial has none."""
        return {
            **settings_of_trial(self.spec, self.config, self.own),
            self.unit: self.length,
            "seed": self.seed,
            "split_seed": self.split_seed,
            "trial": self.number,
            "study": self.study,
            "folder": str(self.folder),
            "file": str(self.file),
            "device": self.device,
        }

    def environment(self) -> dict[str, str]:
        """Returns the variables that its process has of it, besides those of this process."""
        settings = {
            f"{_PREFIX}{name.replace('.', '_').upper()}": write_setting(value)
            for name, value in self.settings().items()
            if value is not None
        }
        facts = {
            FILE: str(self.file),
            "TUNER_TRIAL_FOLDER": str(self.folder),
            "TUNER_TRIAL": str(self.number),
            "TUNER_STUDY": self.study,
            "TUNER_SEED": str(self.seed),
            f"TUNER_{self.unit.upper()}": str(self.length),
            "TUNER_STEP": str(self.step),
            "PYTHONUNBUFFERED": "1",  # else a line is read long after it was printed
        }
        if self.step:
            facts["TUNER_RESUME"] = "1"
        inherited = {
            name: value
            for name, value in withhold_secrets(os.environ).items()
            if name != "TUNER_RESUME" and not name.startswith(_PREFIX)
        }
        return inherited | settings | facts

    def write(self) -> None:
        """Writes the file, for this user alone."""
        row, values = OPTIMIZERS[self.config.optimizer], self.config.optimizer_values
        steps = self.length if self.unit == "steps" else None
        settings = {name: value for name, value in self.settings().items() if value is not None}
        tree = {
            "study": self.study,
            "trial": self.number,
            "folder": str(self.folder),
            "device": self.device,
            "seed": self.seed,
            "split_seed": self.split_seed,
            "metric": self.spec.study.metric,
            "direction": self.spec.study.direction,
            self.unit: self.length,
            "step": self.step,
            "resume": bool(self.step),
            "is_confirming": self.spec.confirmation is not None,
            "at_most": self.at_most,
            "settings": settings,
            "own": dict(self.own),
            "calls": [dataclasses.asdict(call) for call in row.calls(values, steps)],
            "config": dataclasses.asdict(self.config),
            "spec": self.spec.to_json(),
        }
        self.file.unlink(missing_ok=True)
        with os.fdopen(os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(tree, out, indent=2)


def withhold_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment without what the process of a trial has no use for."""
    return {name: value for name, value in environment.items() if name not in _WITHHELD}


def read_trial(path: str | Path) -> dict[str, Any]:
    """Returns what a trial's file holds.

    Raises:
        SpecError: If it cannot be read, or is none.
    """
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{FILE} = {path}: cannot be read: {error}.") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("settings"), dict):
        raise SpecError(f"{FILE} = {path}: this is no file of a trial.")
    return tree


def read_config(tree: Mapping[str, Any]) -> TrialConfig:
    """Returns the settings of the trial that :func:`read_trial` has read."""
    config = dict(tree["config"])
    config["groups"] = tuple(GroupValues(**group) for group in config["groups"])
    return TrialConfig(**config)
