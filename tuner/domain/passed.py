"""Workloads that a program passed as objects, as a study names them.

Code never goes into a database, nor comes out of one: of a function that lives in a notebook or a
script the study keeps the name only, and whoever goes on with the study passes the function again.
"""

from __future__ import annotations

import shlex

from tuner.domain.catalog.dimensions import Frozen
from tuner.errors import SpecError

IMPORTED = "optuna"
"""The module of what was never here: the objective of a study that was imported."""


class Passed(Frozen):
    """The place of a workload that was passed as an object.

    Attributes:
        module: The module that it was defined in, such as ``__main__``.
        qualname: Its name there, such as ``train`` or ``main.<locals>.train``.
        kind: What it is, such as ``function``, ``class`` or ``object``.
        file: The file that it was defined in; None where there was none, as in a notebook.
    """

    module: str
    qualname: str
    kind: str = "function"
    file: str | None = None

    def describe(self) -> str:
        """Returns the workload and its place, in words."""
        at = f"of {self.file}" if self.file else f"of the module {self.module}, without a file"
        return f"the {self.kind} {self.qualname} {at}"


def refuse_passed(passed: Passed | None, study: str) -> None:
    """Refuses a study without its workload, if that was passed as an object.

    Args:
        passed: The place of the workload; None for one that can be imported.
        study: The study's name.

    Raises:
        SpecError: If it was.
    """
    if passed is not None and passed.module == IMPORTED:
        raise SpecError(
            f"{study!r} was imported from {passed.file}, where {passed.qualname!r} is, and no "
            "workload was named that trains it here. Delete it, and import it with --workload "
            f"MODULE:NAME. Its results need none: tuner study report {shlex.quote(study)}"
        )
    if passed is not None:
        raise SpecError(
            f"{study!r} trains {passed.describe()}, which a program passed to tuner and no "
            f"database holds. Go on with it there, by passing it again: {write_call(study, passed)}"
            f". Its results need no code: tuner study report {shlex.quote(study)}"
        )


def write_call(study: str, passed: Passed | None) -> str:
    """Returns the line of a program that goes on with a study.

    >>> write_call("digits", None)
    "tuner.Study('digits').run()"

    Args:
        study: The study's name.
        passed: The place of its workload; None for one that can be imported.
    """
    if passed is None:
        return f"tuner.Study({study!r}).run()"
    return f"tuner.Study({study!r}, workload={write_name(passed)}).run()"


def write_name(passed: Passed) -> str:
    """Returns the name by which a program passes a workload; ``...`` of one without a name."""
    name = passed.qualname.rpartition(".")[2]
    return name if name.isidentifier() else "..."
