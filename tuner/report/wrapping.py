r"""Long commands in lines that a shell reads as one, where not every page can scroll."""

from __future__ import annotations

WIDE = 90
"""The characters of a line of a command, at most, where it can be broken."""


def break_command(command: str) -> str:
    r"""Returns a long command in lines that a shell reads as one.

    >>> print(break_command("tuner run --set budget.trials=10 " + "--set budget.steps=5000 " * 3))
    tuner run --set budget.trials=10 --set budget.steps=5000 --set budget.steps=5000 \
        --set budget.steps=5000
    """
    words = command.split(" --")
    if len(command) <= WIDE or any(part.count("'") % 2 for part in words):
        return command  # a quoted text must stay whole
    lines = [words[0]]
    for option in words[1:]:
        if len(lines[-1]) + len(option) + 3 > WIDE - 2:
            lines.append(f"   --{option}")
        else:
            lines[-1] += f" --{option}"
    return " \\\n ".join(lines).rstrip()
