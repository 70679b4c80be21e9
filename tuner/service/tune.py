"""``tuner.tune``: creates a study from a program's values, and trains it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tuner.domain.fuse_plan import AUTO
from tuner.errors import SpecError
from tuner.service.opening import Opening
from tuner.service.passing import refuse_loading
from tuner.service.ranks import refuse_ranks
from tuner.service.runs import Plan
from tuner.service.study import Study

Table = Mapping[str, Any]


def tune(
    workload: Any,
    *,
    name: str | None = None,
    storage: str | None = None,
    optimizers: Iterable[str] | None = None,
    schedules: Iterable[str] | None = None,
    trials: int | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    metric: str | None = None,
    direction: str | None = None,
    seed: int | None = None,
    warm_start: str | None = None,
    study: Table | None = None,
    budget: Table | None = None,
    search: Table | None = None,
    space: Table | None = None,
    optimizer: Table | None = None,
    schedule: Table | None = None,
    average: Table | None = None,
    network: Table | None = None,
    train: Table | None = None,
    confirm: Table | None = None,
    workers: int = 1,
    device: str = "auto",
    fuse: str | int = AUTO,
    background: bool = False,
    quiet: bool = False,
) -> Study:
    """Creates a study and trains it, or goes on with the one of its name; returns the study.

    >>> import tuner
    >>> study = tuner.tune(train, optimizers=["adamw", "muon"], trials=24)  # doctest: +SKIP
    >>> study.best.params  # doctest: +SKIP

    The keyword arguments from ``study`` to ``confirm`` are the tables of a study file, with every
    key of it: ``budget={"epochs": 5}``, ``optimizer={"adamw": {"lr": {"low": 1e-4, "high":
    1e-2}}}``. The ones before them are short for the keys that are set most.

    Args:
        workload: What to train: a training loop (a function of a :class:`tuner.Run`), a class with
            the methods of :class:`tuner.Workload`, an object of one, or an import string such as
            ``models.digits:Digits``. Objects that no other process can import, as those of a
            notebook, train in this process with one worker, and with several are pickled to them.
        name: The study's name; left out, the workload's in small letters.
        storage: The database's URL; left out, ``TUNER_STORAGE``, else the URL in the file
            ``TUNER_STORAGE_FILE``, else ``sqlite:///tuner.db``.
        optimizers: Which optimizers compete.
        schedules: Which schedules compete.
        trials: Trials that may start.
        steps: Optimizer steps of a full trial.
        epochs: Passes over the training data of a full trial, instead of ``steps``.
        metric: The metric that ranks trials. [val_loss]
        direction: ``minimize`` or ``maximize``. [minimize]
        seed: The seed of the search and of all its trials.
        warm_start: The earlier study to start from, or ``auto`` or ``off``.
        study: The table ``[study]``.
        budget: The table ``[budget]``.
        search: The table ``[search]``.
        space: The table ``[space]``.
        optimizer: The tables ``[optimizer.NAME]``.
        schedule: The tables ``[schedule.NAME]``.
        average: The tables ``[average.NAME]``.
        network: The tables ``[network.NAME.OPTIMIZER]``.
        train: The table ``[train]``.
        confirm: The table ``[confirm]``.
        workers: Worker processes; they share the cores.
        device: Where to train: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``mps``.
        fuse: How many trials train as one: ``auto``, ``off`` or a number.
        background: Whether to return as soon as the study exists; see :meth:`Study.wait`.
        quiet: Whether to show nothing but warnings.

    Returns:
        The study, trained to its end unless ``background`` is set.

    Raises:
        SpecError: If something breaks a rule, or a study of this name differs in anything but its
            budget.
        WorkloadError: If the workload's code raises, or the workers end before the study is done.
        KeyboardInterrupt: If Ctrl-C stopped it; trials in training are saved, and the same call
            continues them.
    """
    refuse_loading()
    refuse_ranks()
    plan = Plan(workers, device, fuse, quiet, background)
    tables = {
        "study": study,
        "budget": budget,
        "search": search,
        "space": space,
        "optimizer": optimizer,
        "schedule": schedule,
        "average": average,
        "network": network,
        "train": train,
        "confirm": confirm,
    }
    values = {
        "study.name": name,
        "study.metric": metric,
        "study.direction": direction,
        "budget.trials": trials,
        "budget.steps": steps,
        "budget.epochs": epochs,
        "search.seed": seed,
        "search.warm_start": warm_start,
        "space.optimizers": optimizers,
        "space.schedules": schedules,
    }
    given = {table: dict(keys) for table, keys in tables.items() if keys is not None}
    _refuse_twice(given, values)
    opening = Opening.describe(given, values, {}, workload=workload, storage=storage, quiet=quiet)
    return Study.launch(opening, plan)


def _refuse_twice(tables: Mapping[str, Table], values: Mapping[str, Any]) -> None:
    """Refuses a key that is given both in its table and in short.

    Raises:
        SpecError: If there is one.
    """
    for key, value in values.items():
        table, _, leaf = key.partition(".")
        if value is not None and leaf in tables.get(table, {}):
            raise SpecError(
                f"{leaf} is given twice, as {leaf}={value!r} and in {table}={{...}}: leave out one."
            )
    lengths = [key for key in ("budget.steps", "budget.epochs") if values[key] is not None]
    if len(lengths) > 1:
        raise SpecError("steps and epochs both say how long a full trial is: leave out one.")
