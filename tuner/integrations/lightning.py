"""Lightning: a trainer trains a trial, is pruned with it, and goes on where it was stopped."""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import numbers
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tuner.errors import SpecError, WorkloadError
from tuner.integrations.devices import check_device
from tuner.integrations.lightning_checkpoint import CHECKPOINT, Memory, to_before_batch
from tuner.training.run import Run
from tuner.training.seeds import random_state, restore_random_state

__all__ = ["attach", "optimizers"]

_NEVER = 1 << 62
"""Batches between two validations, where the next one is not known yet."""


def attach(trainer: Any, run: Run) -> str | None:
    """Makes a Lightning trainer train a trial, from where it stands.

    It trains exactly the steps of the budget, validates where the budget asks for it and reports
    what was logged there. Where the trial is stopped and goes on later, so do loops, optimizers,
    callbacks and randomness, as Lightning saves them. Progress bars, summaries, and those loggers
    and checkpoint callbacks that would write into the working directory are taken off.

    Args:
        trainer: A ``Trainer`` of ``lightning`` or ``pytorch_lightning``, before its ``fit``.
        run: The trial.

    Returns:
        What ``fit`` is to take as its ``ckpt_path``.

    Raises:
        WorkloadError: If the trainer has chosen another device than the trial's, or does not
            train with all its ranks.
    """
    _check_ranks(trainer, run)
    check_device(
        "Trainer",
        trainer.strategy.root_device,
        run.device,
        f'give it accelerator="{run.device.type}"'
        + (f", devices=[{run.device.index or 0}]" if run.device.type == "cuda" else ""),
    )
    package = _package_of(trainer)
    _silence(trainer, package)
    base = importlib.import_module(f"{package}.callbacks").Callback
    callback = type("TunerCallback", (_Callback, base), {})(trainer, run)
    trainer.callbacks.append(callback)
    return CHECKPOINT if callback.resumes else None


def optimizers(module: Any, **networks: nn.Module) -> Any:
    """Returns a trial's optimizers and schedules, for ``configure_optimizers`` to return.

    Args:
        module: The LightningModule, in a trainer that a run is attached to.
        networks: Parts of it by name, each of which gets an optimizer and a schedule of its own;
            left out, there is one of each for the whole module.

    Raises:
        SpecError: If the budget counts epochs, and the trainer's data have no length.
        WorkloadError: If no run is attached to its trainer, or its optimizer cannot train it.

    Example:
        >>> class Classifier(L.LightningModule):  # doctest: +SKIP
        ...     def configure_optimizers(self):
        ...         return optimizers(self)
    """
    for callback in module.trainer.callbacks:
        if isinstance(callback, _Callback):
            return callback.configure(module, networks)
    raise WorkloadError(
        "No run is attached to the module's trainer: call attach(trainer, run), and give what it "
        "returns to trainer.fit(..., ckpt_path=...)."
    )


class _Callback:
    """Follows a trainer through its hooks.

    A turn of the trial is what lies between two steps of the optimizer. It ends when the next
    batch begins: by then validation is over, and all that others do after a batch.

    Args:
        trainer: The trainer.
        run: The trial.
    """

    def __init__(self, trainer: Any, run: Run) -> None:
        self._trainer, self._run = trainer, run
        self._turns = run.state.follow(self)
        self._kept = self._turns.kept
        self._files = trainer.strategy.checkpoint_io = Memory(
            trainer.strategy.checkpoint_io, None if self._kept is None else self._kept["trainer"]
        )
        self._evaluation = contextlib.ExitStack()
        self._before: dict[str, Any] = {}
        # Randomness and the loader's own generators before an epoch's first batch was drawn,
        # randomness before the present one, and how many batches of the epoch are over.
        self._epoch: dict[str, Any] | None = None
        self._batch: dict[str, Any] | None = None
        self._batches = 0
        self._taken = self._turn = 0
        trainer.check_val_every_n_epoch = trainer._val_check_time_interval = None  # noqa: SLF001
        fit = trainer.fit_loop
        fit.min_epochs, fit.max_epochs, fit.epoch_loop.min_steps = 0, -1, None
        # A worker has handlers of its own, and lets a step finish.
        trainer._signal_connector.register_signal_handlers = lambda: None  # noqa: SLF001
        self._limit()

    @property
    def resumes(self) -> bool:
        """Whether the trial goes on from a checkpoint."""
        return self._kept is not None

    def _limit(self) -> None:
        """Tells the trainer how long to train, once that is known."""
        self._trainer.fit_loop.epoch_loop.max_steps = self._run.length or -1

    # Between two batches, as the run's keeper.

    @property
    def ready(self) -> bool:
        """Whether it can save now."""
        return self._epoch is not None

    def save(self) -> dict[str, Any]:
        """Returns the trainer's checkpoint, and what the draws of its loader follow from."""
        self._trainer.save_checkpoint(CHECKPOINT)
        kept = self._files.take()  # of several ranks the first has it
        return ({} if self._run.rank else {"trainer": to_before_batch(kept)}) | {
            "batches": self._batches,
            "epoch": self._epoch,
            "batch": self._batch,
        }

    # The optimizers.

    def configure(self, module: nn.Module, networks: Mapping[str, nn.Module]) -> Any:
        """Returns optimizers and schedules as Lightning takes them."""
        run, trainer = self._run, self._trainer
        if run.length is None:
            self._mark_epoch()
            trainer.fit_loop.setup_data()
            batches = trainer.num_training_batches
            if math.isinf(batches):
                raise SpecError(
                    "The trainer's data have no length, by which the budget could count epochs: "
                    "set budget.epoch_steps, or budget.steps."
                )
            run.measure(math.ceil(batches / trainer.accumulate_grad_batches))
            self._limit()
        built = [run.optimizer(network, name) for name, network in networks.items()]
        built = built or [run.optimizer(module)]
        schedules = [{"scheduler": run.schedule(o), "interval": "step"} for o in built]
        return built, schedules

    # The hooks of a trainer.

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Notes where the first epoch's draws begin."""
        del module
        if not trainer.lightning_module.automatic_optimization:
            trainer.fit_loop.epoch_loop.max_steps = -1  # it counts the steps of each optimizer
        if self._epoch is None:
            self._mark_epoch()

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Brings the loader to where it was when the trial was saved."""
        del module
        trainer.val_check_batch = _NEVER
        self._taken = trainer.global_step
        if self._kept is not None:
            self._fast_forward(self._kept)
            self._kept = None

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Notes where an epoch's draws begin; those of the first one have begun."""
        del module
        if trainer.current_epoch > 0:
            self._mark_epoch()
        self._batches, self._batch = 0, None

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Ends a turn where the optimizer has stepped, and begins the next."""
        del module, batch, batch_idx
        if self._turn == 0:
            self._turns.begin()
        elif self._taken == trainer.global_step:
            return  # gradients are accumulated
        else:
            self._turns.leave()
        self._taken = trainer.global_step
        self._turn += 1
        self._turns.enter()

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Asks for a validation where one is due, and for the end at that of the budget."""
        del module, outputs, batch
        self._batches = batch_idx + 1
        self._batch = random_state(self._run.device)
        stepped = trainer.global_step > self._taken
        due = stepped and self._run.due()
        trainer.val_check_batch = trainer.fit_loop.total_batch_idx + 1 if due else _NEVER
        if stepped and self._run.taken >= self._run.total_steps:
            trainer.should_stop = True

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """Puts the weights to evaluate into the model."""
        del module
        if trainer.sanity_checking:
            return
        self._before = dict(trainer.callback_metrics)
        self._evaluation.enter_context(self._run.evaluation(trainer.train_dataloader))

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Gives a sign of life."""
        self._run.alive()

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Reports what the validation has logged."""
        del module
        if trainer.sanity_checking:
            return
        self._evaluation.close()
        self._batch = random_state(self._run.device)
        metrics = dict(trainer.callback_metrics)
        old = {name for name, value in self._before.items() if metrics.get(name) is value}
        self._run.log(**_numbers({name: metrics[name] for name in old}))
        found = _numbers({n: v for n, v in metrics.items() if n not in old})
        if self._run.world_size > 1:  # each has measured its part of the data
            found = {name: _average(trainer, value) for name, value in found.items()}
        self._run.report(**found)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Ends the last turn; a trainer that another callback has stopped ends the trial early."""
        del module
        run = self._run
        if run.evaluations.over is None and run.taken < run.total_steps and trainer.should_stop:
            run.stop("a callback has stopped the trainer")
        self._turns.leave()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Puts the weights that train back into the model."""
        del trainer, module, exception
        self._evaluation.close()

    # The order of the data.

    def _mark_epoch(self) -> None:
        """Notes where the draws of an epoch begin, or goes back there where a trial goes on."""
        if self._kept is not None:
            self._epoch = self._kept["epoch"]
            restore_random_state(self._epoch["random"], self._run.device)
            return
        self._epoch = {
            "random": random_state(self._run.device),
            "generators": [generator.get_state() for generator in self._generators()],
        }

    def _fast_forward(self, kept: Mapping[str, Any]) -> None:
        """Draws the epoch's batches up to the one that comes next, as they were drawn before."""
        device, fit = self._run.device, self._trainer.fit_loop
        epoch, batches = kept["epoch"], int(kept["batches"])
        fetcher = fit._data_fetcher  # noqa: SLF001
        if self._trainer.current_epoch > 0:
            # The iterator of the first epoch has been made where its draws begin.
            restore_random_state(epoch["random"], device)
            for generator, state in zip(self._generators(), epoch["generators"], strict=True):
                generator.set_state(state)
            iter(fetcher)
        for sampler in self._samplers():
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(self._trainer.current_epoch)
        for _ in range(batches):
            next(fetcher)
        fetcher.fetched -= batches  # which Lightning will add
        self._epoch, self._batches, self._batch = epoch, batches, kept["batch"]
        if kept["batch"] is not None:
            restore_random_state(kept["batch"], device)
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended")

    def _loaders(self) -> list[Any]:
        combined = self._trainer.fit_loop._combined_loader  # noqa: SLF001
        return [] if combined is None else list(combined.flattened)

    def _samplers(self) -> list[Any]:
        found = []
        for loader in self._loaders():
            batch_sampler = getattr(loader, "batch_sampler", None)
            places = (getattr(loader, "sampler", None), batch_sampler)
            found += [*places, getattr(batch_sampler, "sampler", None)]
        return found

    def _generators(self) -> list[torch.Generator]:
        """Returns the generators of loaders and samplers, each once."""
        owners = [*self._loaders(), *self._samplers()]
        found = (getattr(owner, "generator", None) for owner in owners)
        return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


def _numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of a trainer's metrics that are single numbers, but not its counters."""
    return {
        name: value
        for name, value in metrics.items()
        if name not in ("epoch", "step")
        and (isinstance(value, numbers.Real) or getattr(value, "numel", lambda: 0)() == 1)
    }


def _check_ranks(trainer: Any, run: Run) -> None:
    """Checks that a trainer trains one model with all ranks of a trial."""
    if run.world_size == 1:
        return
    size, strategy = run.world_size, type(trainer.strategy).__name__
    if trainer.world_size != size or strategy != "DDPStrategy":
        raise WorkloadError(
            f"{size} processes train this trial, but the Trainer trains with "
            f"{trainer.world_size}, by {strategy}: give it devices=run.world_size, "
            'strategy="ddp"; or leave --processes out.'
        )


def _average(trainer: Any, value: Any) -> float:
    """Returns the mean over all ranks."""
    tensor = torch.as_tensor(value, dtype=torch.float64, device=trainer.strategy.root_device)
    return float(trainer.strategy.reduce(tensor.clone(), reduce_op="mean"))


def _package_of(trainer: Any) -> str:
    """Returns the name of the package that a trainer is of; there are two, with equal content."""
    for ancestor in type(trainer).__mro__:
        if ancestor.__module__ == "pytorch_lightning.trainer.trainer":
            return "pytorch_lightning"
    return "lightning.pytorch"


def _silence(trainer: Any, package: str) -> None:
    """Takes off what would write to the terminal, or into the working directory, for each trial."""
    logging.getLogger(package).setLevel(logging.WARNING)
    callbacks = importlib.import_module(f"{package}.callbacks")
    loggers = importlib.import_module(f"{package}.loggers")
    nobody = importlib.import_module(f"{package}.loggers.logger").DummyLogger
    trainer.callbacks = [
        callback
        for callback in trainer.callbacks
        if not isinstance(callback, callbacks.ProgressBar | callbacks.ModelSummary)
        and not (isinstance(callback, callbacks.ModelCheckpoint) and callback.dirpath is None)
    ]
    trainer.loggers = [
        nobody()
        if isinstance(logger, loggers.CSVLogger | loggers.TensorBoardLogger)
        and logger.name == "lightning_logs"
        and logger.save_dir == trainer.default_root_dir
        else logger
        for logger in trainer.loggers
    ]
