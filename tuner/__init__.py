"""tuner: which optimizer, at which settings, trains this model best, and how sure are we?"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.errors import TunerError
    from tuner.training.datasets import data_folder, fetch
    from tuner.training.workload import Batch, Data, Workload

__all__ = ["Batch", "Data", "TunerError", "Workload", "__version__", "data_folder", "fetch"]

__version__ = version("tuner")

_HOMES = {
    "Batch": "tuner.training.workload",
    "Data": "tuner.training.workload",
    "TunerError": "tuner.errors",
    "Workload": "tuner.training.workload",
    "data_folder": "tuner.training.datasets",
    "fetch": "tuner.training.datasets",
}


def __getattr__(name: str) -> Any:
    # Loading on first use keeps `import tuner`, and so every command, free of torch.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tuner' has no attribute {name!r}")
