"""tuner searches the optimizer, settings and schedule that train a PyTorch model best."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.errors import TunerError
    from tuner.service.study import Study
    from tuner.service.tune import tune
    from tuner.service.winner import Winner, best
    from tuner.training.datasets import data_folder, fetch
    from tuner.training.processes.current import CurrentTrial, current
    from tuner.training.reporting import Pruned
    from tuner.training.run import Run
    from tuner.training.workload import Batch, Data, Workload

__all__ = [
    "Batch",
    "CurrentTrial",
    "Data",
    "Pruned",
    "Run",
    "Study",
    "TunerError",
    "Winner",
    "Workload",
    "__version__",
    "best",
    "current",
    "data_folder",
    "fetch",
    "tune",
]

__version__ = version("tuner")

_HOMES = {
    "Batch": "tuner.training.workload",
    "CurrentTrial": "tuner.training.processes.current",
    "Data": "tuner.training.workload",
    "Pruned": "tuner.training.reporting",
    "Run": "tuner.training.run",
    "Study": "tuner.service.study",
    "TunerError": "tuner.errors",
    "Winner": "tuner.service.winner",
    "Workload": "tuner.training.workload",
    "best": "tuner.service.winner",
    "current": "tuner.training.processes.current",
    "data_folder": "tuner.training.datasets",
    "fetch": "tuner.training.datasets",
    "tune": "tuner.service.tune",
}


def __getattr__(name: str) -> Any:
    # Loading on first use keeps `import tuner`, and so every command, free of torch.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tuner' has no attribute {name!r}")
