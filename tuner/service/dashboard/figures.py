"""Figures of a study as Optuna Dashboard keeps them: JSON in parts, each an attribute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_PART = "dashboard:plot_data:"


def write_figures(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Returns the system attributes of a study that have Optuna Dashboard draw figures.

    What is read needs no more than one part; only what is stored has a greatest length.

    >>> write_figures({"rates": {"data": []}})
    {'dashboard:plot_data:tuner-rates:0': '{"data": []}'}

    Args:
        figures: Figures of plotly by name, as JSON has them.
    """
    return {f"{_PART}tuner-{name}:0": json.dumps(each) for name, each in figures.items()}
