"""The winner of a study with a command, as the line that trains it by hand."""

from __future__ import annotations

from tuner.analysis.summary import StudySummary
from tuner.domain.command import Setting, fill, placeholders_of, write_line, write_setting
from tuner.domain.printable import printable
from tuner.domain.trial_settings import settings_of_trial
from tuner.errors import SpecError
from tuner.report.code import find_best, tell_best


def to_command(summary: StudySummary) -> str:
    """Returns the command of the winner with its values, as a script for a shell.

    Raises:
        NotFoundError: If no trial is complete.
        SpecError: If the study trains by no command.
    """
    best, spec = find_best(summary), summary.spec
    words = spec.study.command
    if words is None:
        raise SpecError(
            f"--format command: {summary.name!r} trains {spec.study.workload}, not a command: "
            "leave the option out for Python code."
        )
    settings = settings_of_trial(spec, best.config, best.config.own)
    told = {name: write_setting(value) for name, value in settings.items() if value is not None}
    seed = spec.search.seed % 2**32
    facts: dict[str, Setting] = {
        "seed": seed,
        "trial": best.record.number,
        "study": summary.name,
        "folder": ".",
        "file": "trial.json",
        "device": "cpu",
    }
    lines = [f"# {best.title} of {summary.name}: {best.label.lower()}, {tell_best(summary)}."]
    if not set(placeholders_of(words)) & settings.keys():
        # It reads the environment, or a file: no argument tells it anything.
        lines += [
            write_line(["export", f"TUNER_PARAM_{name.replace('.', '_').upper()}={value}"])
            for name, value in told.items()
        ]
        lines.append(write_line(["export", f"TUNER_SEED={seed}"]))
    lines.append(write_line(fill(words, settings | facts)))
    return "".join(f"{printable(line)}\n" for line in lines)
