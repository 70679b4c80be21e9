"""Transformers: a Trainer trains a trial, is pruned with it, and goes on where it was stopped."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import time
import weakref
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback, set_seed
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.trainer_utils import has_length
from transformers.training_args import TrainingArguments

from tuner.domain.catalog.averages import NO_AVERAGE
from tuner.errors import SpecError, WorkloadError
from tuner.integrations.devices import check_device
from tuner.integrations.files import pack, unpack
from tuner.training.reporting import Interrupted
from tuner.training.run import Run

__all__ = ["attach"]

_ABOUT_THE_RUN = ("_runtime", "_per_second", "_time")
"""How the names of those numbers end that an evaluation measures of itself, not of the model."""


def attach(trainer: Any, run: Run) -> str | None:
    """Makes a Transformers ``Trainer`` train a trial, from where it stands.

    It gets the trial's optimizer, schedule and seed, trains exactly the steps of the budget,
    evaluates where the budget asks for it and reports what it has measured there, such as
    ``eval_loss``. Where the trial is stopped and goes on later, it does so as the Trainer goes on
    from a checkpoint of its own. Progress bars are taken off, and nothing is written into
    ``output_dir``.

    Args:
        trainer: The ``Trainer``, or one of a subclass, before its ``train``.
        run: The trial.

    Returns:
        What ``train`` is to take as ``resume_from_checkpoint``.

    Raises:
        SpecError: If the budget counts epochs, and the training data have no length.
        WorkloadError: If the Trainer has chosen another device than the trial's or has a
            ``model_init``, or the trial's optimizer cannot train its model, or the Trainer does not
            train it with all ranks of the trial.

    Example:
        >>> def train(run):  # doctest: +SKIP
        ...     trainer = Trainer(model, args, train_dataset=data, eval_dataset=held_out)
        ...     trainer.train(resume_from_checkpoint=attach(trainer, run))
    """
    if trainer.model_init is not None:
        raise WorkloadError(
            "The Trainer has a model_init, and would build another model than the one whose "
            "optimizer this trial has: build the model first, and hand it over as model=."
        )
    args = trainer.args
    _check_ranks(args, run)
    check_device(
        "Trainer",
        args.device,
        run.device,
        "give its arguments use_cpu=True"
        if run.device.type == "cpu"
        else f"start the worker with CUDA_VISIBLE_DEVICES={run.device.index or 0}",
    )
    callback = _Callback(trainer, run)
    if run.length is None:
        run.measure(_count_updates(trainer))
    # The Trainer has seeded everything by its arguments, the same for all trials.
    args.seed = run.seed % 2**32
    set_seed(args.seed)
    args.max_steps = run.total_steps
    args.eval_strategy = args.save_strategy = "no"
    args.load_best_model_at_end = args.save_only_model = args.push_to_hub = False
    args.eval_on_start = False
    args.output_dir = str(callback.folder)
    optimizer = run.optimizer(trainer.model)
    trainer.optimizer, trainer.lr_scheduler = optimizer, run.schedule(optimizer)
    for shown in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(shown)
    trainer.add_callback(callback)
    return callback.checkpoint


def _check_ranks(args: TrainingArguments, run: Run) -> None:
    """Checks that a Trainer trains one model with all ranks of a trial, and each has all of it."""
    if run.world_size == 1:
        return
    if args.world_size != run.world_size:
        raise WorkloadError(
            f"{run.world_size} processes train this trial, but the Trainer trains with "
            f"{args.world_size}: "
            + (
                "give its arguments use_cpu=True"
                if run.device.type == "cpu"
                else "leave use_cpu out"
            )
            + ", or leave --processes out."
        )
    if args.fsdp or args.deepspeed:
        raise WorkloadError(
            "The Trainer is to train with FSDP or DeepSpeed, whose checkpoints lie in parts on the "
            "ranks: leave fsdp= and deepspeed= out of its arguments, and it trains with DDP."
        )


def _count_updates(trainer: Any) -> int:
    """Returns the optimizer steps of an epoch, as the Trainer counts them."""
    loader = trainer.get_train_dataloader()
    if not isinstance(loader, Sized) or not has_length(loader):
        raise SpecError(
            "The Trainer's data have no length, by which the budget could count epochs: set "
            "budget.epoch_steps, or budget.steps."
        )
    batches: int = trainer.args.gradient_accumulation_steps
    return max(1, math.ceil(len(loader) / batches))


class _Callback(TrainerCallback):
    """Follows a Trainer through its events.

    A turn of the trial ends at the last event that a step causes: a saved checkpoint, else an
    evaluation, else a line of the log, else the end of the step. The Trainer saves there alone. So
    a checkpoint is asked for in time, and where the trial turns out to stop, once more.

    Args:
        trainer: The Trainer.
        run: The trial.

    Attributes:
        folder: Where the Trainer writes its checkpoints, for as long as it takes to read them.
        checkpoint: The checkpoint to continue from, or None.
    """

    def __init__(self, trainer: Any, run: Run) -> None:
        self._trainer, self._run = trainer, run
        self._turns = run.state.follow(self)
        self.folder = Path(tempfile.mkdtemp(prefix="tuner-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.checkpoint: str | None = None
        if self._turns.kept is not None:
            place = self.folder / "checkpoint"
            unpack(self._turns.kept, place)
            self.checkpoint = str(place)
        self._evaluation = contextlib.ExitStack()
        self._metrics: dict[str, Any] = {}
        self._awaited = 0
        self._files: dict[str, Any] | None = None
        self._save_s = run.train.checkpoint_s
        self._saved_at = time.monotonic()
        self._begun = False

    # As the run's keeper.

    @property
    def ready(self) -> bool:
        """Whether the Trainer has saved the step that has just been taken."""
        return self._files is not None

    def save(self) -> dict[str, Any]:
        """Returns the files of the Trainer's checkpoint."""
        if self._files is None:
            raise RuntimeError("The Trainer has not saved this step.")
        return self._files

    # The events of a Trainer.

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begins a turn."""
        del args, state, control
        if not self._begun:
            self._turns.begin()
            self._begun = True
        self._files = None
        self._turns.enter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Asks for an evaluation or a checkpoint where one is due; else the turn is over."""
        del args
        if self._run.due():
            control.should_evaluate = True
            data = self._trainer.eval_dataset
            self._awaited = len(data) if isinstance(data, dict) else 1
            self._evaluation.enter_context(self._evaluate())
        if self._turns.wants_save or self._is_save_due(due=control.should_evaluate):
            control.should_save = state.global_step < self._run.total_steps
        if not (control.should_evaluate or control.should_save or control.should_log):
            self._leave(control)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Logs the training loss and whatever else the Trainer tells of a step."""
        del args, state
        logged = logs or {}
        if "loss" in logged:
            names = {"loss": "train_loss", "grad_norm": "grad_norm"}
            self._run.log(**{ours: logged[name] for name, ours in names.items() if name in logged})
            if not (control.should_evaluate or control.should_save):
                self._leave(control)

    def on_prediction_step(self, *_: Any, **__: Any) -> None:
        """Gives a sign of life."""
        self._run.alive()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Reports an evaluation, once that of the last of several data sets is there."""
        del args, state
        if not self._awaited:
            return  # the user's own, after training
        self._metrics.update(metrics or {})
        self._awaited -= 1
        if self._awaited:
            return
        self._evaluation.close()
        found, self._metrics = self._metrics, {}
        self._run.report(
            **{n: v for n, v in found.items() if n != "epoch" and not n.endswith(_ABOUT_THE_RUN)}
        )
        if not control.should_save:
            self._leave(control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Takes the checkpoint that has been written; if the trial is to stop, it stops here."""
        del args
        place = self.folder / f"checkpoint-{state.global_step}"
        self._files = {
            name: content
            for name, content in pack(place).items()
            if name != "training_args.bin"  # a pickle, which nobody reads
        }
        shutil.rmtree(place)
        if self._run.evaluations.over is None:
            self._leave(control)
        else:
            self._turns.hold()
        if self._run.evaluations.over is not None:
            raise self._run.evaluations.over
        self._saved_at = time.monotonic()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Notes a trial that another callback has ended early."""
        del args, control
        if state.global_step < self._run.total_steps and self._run.evaluations.over is None:
            self._run.stop("a callback has stopped the Trainer")

    def _is_save_due(self, *, due: bool) -> bool:
        """Tells whether to save at this step; ranks do so together, and have no common clock."""
        if self._run.world_size > 1:
            return due
        return time.monotonic() - self._saved_at > self._save_s

    def _leave(self, control: TrainerControl) -> None:
        """Ends a turn; if the trial is to stop and has not been saved, it is saved first."""
        self._turns.leave()
        if isinstance(self._run.evaluations.over, Interrupted) and self._files is None:
            control.should_save = True

    def _evaluate(self) -> contextlib.AbstractContextManager[Any]:
        """Puts the weights to evaluate into the model, for the evaluation that comes."""
        if self._run.config.average == NO_AVERAGE:
            return self._run.evaluation()
        loader, model = self._trainer.get_train_dataloader(), self._trainer.model
        return self._run.evaluation(loader, forward=lambda batch: model(**batch))
