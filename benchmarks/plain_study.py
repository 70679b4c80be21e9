"""The Optuna script a careful user writes: what whole studies of ours are compared with.

TPE with median pruning, tensor-indexed batches, fused Adam, a report at ten points. In the default
space it draws what our studies draw, by TPE for conditional spaces. It prints the steps it took and
the best value of the study. ``benchmarks.studies`` and ``benchmarks.fused_studies`` run it.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

JOURNAL = "journal:"
SPACES = ("adam", "default")

Made = tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]
Make = Callable[[optuna.Trial, torch.nn.Module], Made]


def main() -> None:
    """Works on the study until its share of the trials is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", required=True)
    parser.add_argument("--trials", type=int, required=True, help="of this process")
    parser.add_argument("--steps", type=int, required=True, help="of a full trial")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--storage", required=True, help="a URL, or journal: and a file")
    parser.add_argument("--space", choices=SPACES, default=SPACES[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the sampler")
    parser.add_argument("--training-seed", type=int, default=0, help="of weights and batches")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    conditional = arguments.space == "default"
    study = optuna.create_study(
        study_name="plain",
        load_if_exists=True,
        storage=open_storage(arguments.storage),
        sampler=optuna.samplers.TPESampler(
            seed=arguments.seed, multivariate=conditional, group=conditional
        ),
        pruner=optuna.pruners.MedianPruner(),
    )
    make = make_default(arguments) if conditional else make_adam(arguments.steps)
    objective = Objective(arguments, make)
    study.optimize(objective, n_trials=arguments.trials)
    print(json.dumps({"steps": objective.taken, "best": study.best_value}))


def open_storage(place: str) -> str | BaseStorage:
    """Returns the storage at a place."""
    if place.startswith(JOURNAL):
        return JournalStorage(JournalFileBackend(str(Path(place.removeprefix(JOURNAL)))))
    return place


class Objective:
    """Trains a trial.

    Args:
        arguments: What main() was told.
        make: Builds a trial's optimizer and schedule.

    Attributes:
        taken: Steps taken so far.
    """

    def __init__(self, arguments: argparse.Namespace, make: Make) -> None:
        name = arguments.workload
        module = importlib.import_module(f"models.{name}")
        self._workload = getattr(module, name.capitalize())()
        self._data = self._workload.data()
        self._steps, self._batch, self._make = arguments.steps, arguments.batch, make
        self._seed = arguments.training_seed
        self.taken = 0

    def __call__(self, trial: optuna.Trial) -> float:
        """Returns the last validation loss."""
        workload, data, steps = self._workload, self._data, self._steps
        torch.manual_seed(self._seed)
        model = workload.model()
        optimizer, scheduler = self._make(trial, model)
        per_epoch = len(data.train[0]) // self._batch
        value = math.nan
        for step in range(steps):
            if step % per_epoch == 0:
                order = torch.randperm(len(data.train[0])).split(self._batch)
            rows = order[step % per_epoch]
            loss = workload.loss(model, tuple(t[rows] for t in data.train))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            self.taken += 1
            if (step + 1) % (steps // 10) == 0:
                with torch.no_grad():
                    value = workload.metrics(model, data.val)["val_loss"].item()
                if not math.isfinite(value):
                    raise optuna.TrialPruned
                trial.report(value, step + 1)
                if trial.should_prune():
                    raise optuna.TrialPruned
        return value


def make_adam(steps: int) -> Make:
    """Returns what builds Adam with a searched learning rate and beta1, and a cosine schedule."""

    def make(trial: optuna.Trial, model: torch.nn.Module) -> Made:
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        beta1 = 1 - trial.suggest_float("one_minus_beta1", 0.02, 0.5, log=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=lr, betas=(beta1, 0.999), fused=True)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    return make


def make_default(arguments: argparse.Namespace) -> Make:
    """Returns what builds an optimizer and a schedule of our default space."""
    from tuner.domain.catalog.schedules import SCHEDULES
    from tuner.domain.space import walk
    from tuner.domain.spec import StudySpec
    from tuner.domain.trials import Proposal, decode
    from tuner.optim import build_optimizer
    from tuner.search.distributions import suggest

    tree: dict[str, Any] = {
        "study": {"name": "plain", "workload": "a:B"},
        "budget": {"steps": arguments.steps, "trials": arguments.trials},
        "train": {"batch_size": arguments.batch},
    }
    spec = StudySpec.model_validate(tree).resolve()

    def make(trial: optuna.Trial, model: torch.nn.Module) -> Made:
        config = decode(spec, Proposal(walk(spec, functools.partial(suggest, trial))))
        optimizer = build_optimizer(config.optimizer, config.optimizer_values, model)
        factor = SCHEDULES[config.schedule].factor(config.schedule_values, arguments.steps)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    return make


if __name__ == "__main__":
    main()
