"""What the winner's loop did beside its steps, as Python that needs only torch."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from tuner.analysis.summary import BestTrial
from tuner.domain.catalog.averages import AVERAGES, start_step
from tuner.domain.catalog.calls import Call
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedule_functions import warm_momentum


@dataclass(frozen=True)
class LoopCode:
    """Lines of Python that average weights and warm momentum up as it was done in training.

    Attributes:
        update: The constructor of the average's update, or None where nothing is averaged.
        start: Steps after which the average begins.
        interval: Steps from one update to the next.
        momentum_warmup: Steps over which the momentum rises, 0 for none.
        closure: Whether steps are computations of the loss in the optimizer's closure.
        standing: Where the schedule stands in a loop over ``step``, as Python.
    """

    update: Call | None
    start: int
    interval: int
    momentum_warmup: int
    closure: bool
    standing: str = "step"

    @classmethod
    def of(cls, best: BestTrial, standing: str = "step") -> LoopCode:
        """Returns the code of a trial's loop, whose schedule stands somewhere at a ``step``."""
        config, values = best.config, best.config.average_values
        update = AVERAGES[config.average].call(values)
        return cls(
            update,
            start_step(values, best.full_steps) if update else 0,
            int(values.get("interval", 0)),
            # Momentum rises with a schedule.
            round(config.momentum_warmup * best.full_steps) if best.schedule_calls != () else 0,
            OPTIMIZERS[config.optimizer].closure,
            standing,
        )

    @property
    def imports(self) -> list[str]:
        """What it needs besides torch."""
        if self.update is None:
            return []
        module, _, name = self.update.target.rpartition(".")
        return [f"from {module} import AveragedModel, {name}"]

    @property
    def constants(self) -> list[str]:
        """The lines that say when."""
        lines = []
        if self.update is not None:
            lines += [
                f"AVERAGE_START = {self.start}  # steps, after which the average begins",
                f"AVERAGE_INTERVAL = {self.interval}  # steps from one update to the next",
            ]
        if self.momentum_warmup:
            lines += [f"MOMENTUM_WARMUP = {self.momentum_warmup}  # steps"]
        return lines

    @property
    def definitions(self) -> list[str]:
        """The lines that define ``build_average``, ``update_average`` and ``warm_momentum``."""
        parts = [self._average(self.update)] if self.update is not None else []
        if self.momentum_warmup:
            parts += [inspect.getsource(warm_momentum).rstrip()]
        return "\n\n\n".join(parts).splitlines()

    @property
    def setup(self) -> list[str]:
        """The lines before a loop over ``step``, from 0, with an ``optimizer``."""
        return [] if self.update is None else ["averaged = build_average(model)"]

    @property
    def before(self) -> list[str]:
        """The lines that begin a step."""
        if not self.momentum_warmup:
            return []
        return [f"warm_momentum(optimizer.param_groups, {self.standing} / MOMENTUM_WARMUP)"]

    @property
    def after(self) -> list[str]:
        """The lines that follow an optimizer's step."""
        taken = "count_losses(optimizer)" if self.closure else "step + 1"
        return [] if self.update is None else [f"update_average(averaged, model, {taken})"]

    def _average(self, update: Call) -> str:
        name = update.target.rpartition(".")[2]
        arguments = ", ".join(f"{key}={value!r}" for key, value in update.arguments.items())
        taken = "Calls of the closure" if self.closure else "Steps"
        return f'''def build_average(model):
    """Returns the average of the model's weights, to evaluate instead of the model.

    Where the model has BatchNorm, call torch.optim.swa_utils.update_bn(loader, averaged) before. It
    measures norms in eval mode anew, too: put the buffers of those back that are to stay.
    """
    averaged = AveragedModel(model, multi_avg_fn={name}({arguments}))
    averaged.due = AVERAGE_START
    return averaged


def update_average(averaged, model, taken):
    """Takes the weights in where it is time to; call it after every step.

    Args:
        taken: {taken} so far.
    """
    if taken >= averaged.due:
        averaged.update_parameters(model)
        averaged.due = taken + AVERAGE_INTERVAL'''
