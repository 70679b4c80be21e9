"""What a check of a GPU found, as Markdown: see ``benchmarks.gpu``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def to_markdown(found: dict[str, Any]) -> str:
    """Returns the page.

    Args:
        found: What ``gpu.json`` holds.
    """
    machine, parts = found["machine"], found["parts"]
    said = ", ".join(f"{key} {value}" for key, value in machine.items() if key != "device")
    kind = " A rehearsal: its figures mean nothing." if found["quick"] else ""
    lines = [f"# {machine['device']}", "", f"{said}.{kind}", ""]
    lines += _table(
        ("part", "outcome", "seconds", "limit", "note"),
        [(p["name"], p["status"], f"{p['seconds']:.0f}", p["limit_s"], p["note"]) for p in parts],
    )
    for part in parts:
        if part["result"]:
            lines += ["", f"## {part['name']}", "", *_show(part["result"])]
    return "\n".join(lines)


def _show(result: dict[str, Any]) -> list[str]:
    if "counts" in result:
        return _show_tests(result)
    return _show_ways(result) if "ways" in result else _show_optimizers(result)


def _show_tests(result: dict[str, Any]) -> list[str]:
    counts = ", ".join(f"{count} {status}" for status, count in result["counts"].items())
    others = [f"- `{test}`: {how}" for test, how in result["others"].items()]
    return [f"{counts}.", *([""] if others else []), *others]


def _show_ways(result: dict[str, Any]) -> list[str]:
    rows = [
        (
            name,
            f"{way['trials_per_h']:,.0f}",
            f"{way['steps_per_s']:,.0f}",
            f"{way['ratio']:.2f}",
            f"{way['peak_bytes'] / 2**20:,.0f}",
        )
        for name, way in result["ways"].items()
    ]
    how = "compiled" if result["compiled"] else "traced"
    agree = "agree" if result["agree"] else "do not agree"
    return [
        f"{result['lanes']} trials of {result['steps']} steps on data: {result['data']}; fused is "
        f"{how} in {result['compile_s']:.1f} s ({result['ratio_with_compiling']:.2f} with that), "
        f"its steps alone {result['steps_ratio']:.2f} times as fast. Final losses {agree}.",
        "",
        *_table(("way", "trials/h", "steps/s", "ratio", "peak MiB"), rows),
    ]


def _show_optimizers(result: dict[str, Any]) -> list[str]:
    rows = [
        (network, name, f"{row['us']:.0f}", f"{row['ratio']:.2f}")
        for network, found in result["networks"].items()
        for name, row in found.items()
    ]
    return _table(("network", "optimizer", "µs a step", "ratio"), rows)


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]
