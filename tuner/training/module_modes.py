"""The modes of a model's modules: which train, and which stay as in evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tuner.errors import SpecError


class Modes:
    """Records which modules of a model are in training mode, and restores that later.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = list(model.modules())
        self.note()

    def note(self) -> None:
        """Records the present modes in place of the earlier ones."""
        self._training = {module: module.training for module in self._modules}

    def put_back(self) -> None:
        """Restores the recorded mode of every module.

        What ``train()`` does beside, in modules that have one of their own, is done too.
        """
        self._model.train(self._training[self._model])
        for module, training in self._training.items():
            for child in module.children():
                if self._training.get(child, training) != training:
                    child.train(self._training[child])


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into eval mode within the block; afterwards each module has its mode again."""
    modes = Modes(model)
    model.eval()
    try:
        yield
    finally:
        modes.put_back()


def begin_training(model: nn.Module) -> nn.Module:
    """Puts a new model into training mode, except those modules that it has in eval mode.

    One that is in eval mode as a whole, as some loaders leave it, trains as a whole.

    Args:
        model: The model, which is changed.

    Returns:
        The model.

    Raises:
        SpecError: If it is in eval mode, but some of its modules are not.
    """
    if model.training:
        # Modules that have a train() of their own, such as to keep norms in eval mode, are asked.
        Modes(model).put_back()
        return model
    if (name := next((n for n, m in model.named_modules() if m.training), None)) is not None:
        raise SpecError(
            f"model() returned a model in eval mode, but its {name} is in training mode, so what "
            "is to train is not clear: have model() call train() on the model, and then eval() on "
            "what is to stay as it is."
        )
    return model.train()


def training_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Returns the BatchNorm of a model that measures statistics as it trains, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    }
