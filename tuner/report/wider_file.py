"""The study file that follows a study: the same search with wider ranges."""

from __future__ import annotations

import re
import shlex
from typing import Any

from tuner.analysis.advice.commands import axes_of, code_of, settings_of, write_key, write_toml
from tuner.analysis.edges import AGREE, BEST, ENOUGH, Edge, find_edges, widen_all
from tuner.analysis.summary import StudySummary, refuse_companion
from tuner.domain.names import to_study_name
from tuner.domain.printable import printable
from tuner.domain.search import COMPARE
from tuner.domain.study_file import set_value
from tuner.errors import SpecError

_SUFFIX = re.compile(r"\.wider(\d*)$")


def write_wider(summary: StudySummary) -> str:
    """Returns the study file that searches on where the best trials lie at the end of a range.

    It has the study's settings under a new name, the ranges that end there widened, each with the
    reason as a comment, and a warm start from the study unless that is a comparison.

    Args:
        summary: The study.

    Raises:
        SpecError: If no range is known that could be widened, or the study confirms another one.
    """
    refuse_companion(summary)
    spec, edges = summary.spec, find_edges(summary.spec, summary.records)
    if not edges:
        raise SpecError(
            f"No range of the study {summary.name!r} asks to be widened: of no leading optimizer "
            f"with {ENOUGH} trials or more do {AGREE} of the {BEST} best lie at the same end, with "
            f"room beyond. See where they lie: tuner study report {shlex.quote(summary.name)}"
        )
    lines = [f"# The study after {printable(summary.name)}, with wider ranges."]
    for table, own in _tables(summary).items():
        lines.append(f"\n[{table}]")
        lines += [f"{write_key(key)} = {write_toml(value)}" for key, value in own.items()]
    reasons = {edge.path: _tell(edge) for edge in edges}
    for table, rows in axes_of(spec, widen_all(edges), spec.space.optimizers).items():
        for row, axes in rows.items():
            lines.append(f"\n[{table}.{write_key(row)}]")
            for key, axis in axes.items():
                reason = reasons.get((table, row, key))
                lines += [] if reason is None else [f"# {printable(reason)}"]
                lines.append(f"{write_key(key)} = {write_toml(axis)}")
    return "\n".join(lines)


def wider_name(name: str) -> str:
    """Returns the name of the study that follows another one with wider ranges.

    >>> wider_name("digits"), wider_name("digits.wider"), wider_name("digits.wider2")
    ('digits.wider', 'digits.wider2', 'digits.wider3')
    """
    known = _SUFFIX.search(name)
    if known is None:
        return f"{to_study_name(name)}.wider"
    return f"{to_study_name(name[: known.start()])}.wider{int(known[1] or 1) + 1}"


def _tables(summary: StudySummary) -> dict[str, dict[str, Any]]:
    """Returns the tables of the file but for those of axes."""
    spec = summary.spec
    tree: dict[str, Any] = {"study": {"name": wider_name(summary.name), **code_of(spec)}}
    for key, value in settings_of(spec).items():
        set_value(tree, key, value)
    if spec.search.mode != COMPARE:  # which starts all optimizers alike
        set_value(tree, "search.warm_start", summary.name)
    set_value(tree, "space.optimizers", list(spec.space.optimizers))
    return tree


def _tell(edge: Edge) -> str:
    """Returns the reason for which a range is wider."""
    numbers = ", ".join(map(str, edge.trials))
    name, _, end = edge.in_torch
    known = "" if name == edge.name else f", which is {name} {end:.3g}"
    return (
        f"{edge.name} was searched in {edge.axis.describe()}; of {edge.optimizer}'s best {BEST} "
        f"trials {len(edge.trials)} ({numbers}) lie at its {edge.side} end{known}."
    )
