"""The opening of a study by a program: it is described by values, tried, and created or found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from tuner.domain.spec import StudySpec
from tuner.domain.vouching import Typed, typed_in, vouching
from tuner.errors import SpecError
from tuner.service.description import describe_study
from tuner.service.display.notebook import open_console
from tuner.service.open_study import Opened, StudyCheck, open_study
from tuner.service.passing import Workload, take_workload
from tuner.service.workload_check import check_study
from tuner.store import Database, default_url, open_database
from tuner.store.connection.urls import parse_url
from tuner.training.device import resolve_device
from tuner.training.loop import TrainingLoop
from tuner.training.seeds import undisturbed

Check = Callable[[StudySpec, bool], StudyCheck]


@dataclass
class Opening:
    """A study that a program has described and that is to be created, or found.

    Attributes:
        spec: The study, not resolved.
        settings: The keys that were set beside its description.
        workload: What it trains, as the program gave it; None where only a file names that.
        url: The database's URL.
        quiet: Whether to print nothing.
        loop: The workload as a training loop, once it has been tried here.
    """

    spec: StudySpec
    settings: frozenset[str]
    workload: Workload | None
    url: str
    quiet: bool
    loop: TrainingLoop | None = None

    @classmethod
    def describe(
        cls,
        source: str | Path | Mapping[str, Any] | None,
        values: Mapping[str, Any],
        settings: Mapping[str, Any],
        *,
        workload: Any,
        storage: str | None,
        quiet: bool,
    ) -> Opening:
        """Returns the opening of the study that a file, or tables, and further values describe.

        Args:
            source: The path of a study file, its tables, or None.
            values: Values by dotted key; None leaves one as it is.
            settings: Values that come last, by dotted key.
            workload: An import string, an object, or None for the file's.
            storage: The database's URL, or None for the default one.
            quiet: Whether to print nothing.

        Raises:
            NotFoundError: If the file does not exist.
            SpecError: If something breaks a rule.
        """
        url = find_url(storage)
        taken = None if workload is None else take_workload(workload)
        given = {key: plain(value) for key, value in {**values, **settings}.items()}
        if taken is not None:
            given["study.workload"] = taken.name
            if taken.passed is not None:
                given["passed"] = taken.passed.model_dump(mode="json")
        origin = str(source) if isinstance(source, str | Path) else "the values given"
        spec = describe_study(
            plain(source) if isinstance(source, Mapping) else source,
            given,
            origin=origin,
            storage=url,
        )
        return cls(spec, frozenset(settings), taken, url, quiet)

    def check_here(self, device: str) -> Check:
        """Returns what tries the workload in this process, and keeps it for the training.

        Args:
            device: Where, as ``--device`` takes it.
        """

        def check(resolved: StudySpec, looks: bool) -> StudyCheck:
            place = resolve_device(device)
            target = None if self.workload is None else self.workload.target
            with undisturbed(place):
                seen, self.loop = check_study(resolved, place, target, looks=looks)
            return seen

        return check

    @contextlib.contextmanager
    def vouched(self) -> Iterator[None]:
        """Allows the code that the study names: whoever describes a study has typed these names."""
        passed = self.workload is not None and self.workload.target is not None
        with vouching(Typed() if passed else typed_in(self.spec)):
            yield

    def open(self, check: Check | None) -> Opened:
        """Creates the study, or finds it and changes its budget, and says so.

        Args:
            check: Tries the workload of a new study before anything is created.

        Raises:
            SpecError: If a study of this name differs in anything but its budget.
            WorkloadError: If the workload's code raises.
        """
        opened = open_study(
            lambda create: open_database(self.url, create=create), self.spec, self.settings, check
        )
        tell(opened.announcements(), quiet=self.quiet)
        return opened


def find_url(storage: str | None) -> str:
    """Returns the URL of the database that a program names, whole, or of the default one.

    A program may change its working directory later, which does not move the database.

    Args:
        storage: The URL, or None for the default one.

    Raises:
        SpecError: If it is none of ours.
    """
    return parse_url(storage or default_url()).render_as_string(hide_password=False)


def connect(storage: str | None) -> Database:
    """Opens the database that a program names, or the default one; close it after use.

    Raises:
        NotFoundError: If there is none.
    """
    return open_database(find_url(storage))


def plain(value: Any) -> Any:
    """Returns a value as a study file could hold it: lists and numbers of Python's own.

    >>> plain({"lr": {"choices": (0.1, 0.2)}})
    {'lr': {'choices': [0.1, 0.2]}}

    Args:
        value: A value of a program's, such as a tuple or one of NumPy's numbers.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Path):
        return str(value)
    if callable(getattr(value, "item", None)) and getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, Iterable):
        return [plain(one) for one in value]
    return value


def tell(lines: Iterable[str], *, quiet: bool) -> None:
    """Prints lines for a program's user.

    Args:
        lines: The lines.
        quiet: Whether to print nothing.
    """
    if not quiet:
        out = open_console()
        for line in lines:
            out.print(Text(line), soft_wrap=True)


def refuse_other(study: str, named: str, taken: Workload) -> None:
    """Refuses to go on with a study with another workload than its own.

    Args:
        study: The study's name.
        named: The name of its workload.
        taken: The workload that was given.

    Raises:
        SpecError: If it is another one.
    """
    if taken.name != named:
        raise SpecError(
            f"{study!r} trains {named}, and not {taken.name}: give it that one, or create a study "
            "of another name."
        )
