"""Optuna's storage on tuner's database, with operations on many trials at once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from tuner.errors import SpecError, StorageError
from tuner.store.connection.engines import begin_writing, configure, engine_options
from tuner.store.connection.urls import parse_url, redact
from tuner.store.optuna import tables as ot


class Storage(RDBStorage):
    """An Optuna storage that also asks, reports and tells many trials at once.

    :meth:`ask`, :meth:`report`, :meth:`tell` and :meth:`set_user_attrs` each take a list of trials
    and run one transaction of a few statements. They raise the errors that Optuna's storages raise
    for one trial, and then nothing has been recorded. A database that cannot be opened is left
    without a connection.

    Args:
        url: The database's URL.
        create: Whether to make Optuna's tables where they are missing.

    Raises:
        SpecError: If the URL is none of ours.
        StorageError: If the installed Optuna, or the version of the tables, is not the one that
            :mod:`tuner.store.optuna.tables` is written for.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        check_optuna()
        parsed = parse_url(url)
        plain = parsed.render_as_string(hide_password=False)
        try:
            super().__init__(
                plain.replace("{", "{{").replace("}", "}}"),  # Optuna formats it
                engine_kwargs=engine_options(parsed),
                skip_compatibility_check=True,  # _configure tells more
                skip_table_creation=not create,
            )
            self._configure()
        except BaseException:
            if hasattr(self, "engine"):
                self.engine.dispose()
            raise

    def __setstate__(self, state: dict[Any, Any]) -> None:
        check_optuna()
        super().__setstate__(state)
        self._configure()

    def ask(self, study_id: int, templates: Sequence[FrozenTrial]) -> list[tuple[int, int]]:
        """Starts trials.

        Args:
            study_id: The study.
            templates: Parameters, distributions and user attributes of each.

        Returns:
            (trial id, number) of each, in the order of the templates.

        Raises:
            KeyError: If there is no such study.
            ValueError: If a parameter's distribution does not go with the study's.
        """
        with self._transaction() as connection:
            if not ot.lock_study(connection, study_id):
                raise KeyError(f"There is no study with the id {study_id}.")
            _check_distributions(connection, study_id, [t.distributions for t in templates])
            return ot.insert_trials(connection, study_id, templates)

    def report(self, reports: Sequence[tuple[int, int, float]]) -> None:
        """Records intermediate values; one of a step reported before is replaced.

        Args:
            reports: (trial id, step, value) triples; values may be NaN or infinite.

        Raises:
            KeyError: If a trial does not exist.
            UpdateFinishedTrialError: If a trial has ended.
        """
        with self._unfinished({trial_id for trial_id, _, _ in reports}) as connection:
            ot.insert_reports(connection, reports)

    def tell(self, endings: Sequence[tuple[int, TrialState, float | None]]) -> None:
        """Ends trials of studies with one objective.

        Args:
            endings: (trial id, state, value or None) triples; a value may be infinite.

        Raises:
            SpecError: If a state is none that ends a trial, a value is NaN, or a trial is told
                twice.
            KeyError: If a trial does not exist.
            UpdateFinishedTrialError: If a trial has ended already.
        """
        for trial_id, state, value in endings:
            if not state.is_finished():
                raise SpecError(f"Trial {trial_id}: {state.name} is no end: tell a finished state.")
            if value is not None and math.isnan(value):
                raise SpecError(f"Trial {trial_id}: NaN is no value: tell it as FAIL or PRUNED.")
        ids = {trial_id for trial_id, _, _ in endings}
        if len(ids) < len(endings):
            raise SpecError("A trial ends once: tell each trial once.")
        with self._unfinished(ids) as connection:
            ot.finish_trials(connection, endings)

    def set_user_attrs(self, attributes: Sequence[tuple[int, str, Any]]) -> None:
        """Records user attributes of trials; one set before is replaced.

        Args:
            attributes: (trial id, key, value) triples; values are what JSON can hold.

        Raises:
            KeyError: If a trial does not exist.
            UpdateFinishedTrialError: If a trial has ended.
        """
        with self._unfinished({trial_id for trial_id, _, _ in attributes}) as connection:
            ot.set_attributes(connection, attributes)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with begin_writing(self.engine) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StorageInternalError("The database did not take the transaction.") from error

    @contextlib.contextmanager
    def _unfinished(self, trial_ids: Collection[int]) -> Iterator[sa.Connection]:
        """Opens a transaction that locks trials, none of which has ended."""
        with self._transaction() as connection:
            states = ot.lock_trials(connection, trial_ids)
            for trial_id in trial_ids:
                if trial_id not in states:
                    raise KeyError(f"There is no trial with the id {trial_id}.")
                self.check_trial_is_updatable(trial_id, states[trial_id])
            yield connection

    def _configure(self) -> None:
        """Sets up the engine's connections, and refuses tables of another version.

        Raises:
            StorageError: If Optuna's tables are not of the version that tuner writes.
        """
        configure(self.engine)
        revision = self.get_current_version()
        if revision != ot.SCHEMA_REVISION:
            raise StorageError(
                f"{redact(self.url)}: Optuna's tables are of version {revision}, tuner with Optuna "
                f"{optuna.__version__} works with {ot.SCHEMA_REVISION}. Install the versions of "
                "tuner and Optuna that made them, or bring older tables up to date with 'optuna "
                "storage upgrade'."
            )


def check_optuna() -> None:
    """Refuses to go on with an Optuna into whose tables tuner does not write.

    Raises:
        StorageError: If another minor version of Optuna is installed.
    """
    if not optuna.__version__.startswith(f"{ot.OPTUNA}."):
        raise StorageError(
            f"Optuna {optuna.__version__} is installed, and tuner writes into the tables of Optuna "
            f"{ot.OPTUNA} only: pip install 'optuna=={ot.OPTUNA}.*'."
        )


def _check_distributions(
    connection: sa.Connection, study_id: int, spaces: Sequence[Mapping[str, BaseDistribution]]
) -> None:
    """Refuses distributions that are incompatible with the study's, or with each other.

    Raises:
        ValueError: If two distributions of one parameter are incompatible.
    """
    known: dict[str, BaseDistribution] = {}
    for space in spaces:
        for name, distribution in space.items():
            if name not in known:
                found = ot.read_distribution(connection, study_id, name)
                known[name] = found or distribution
            check_distribution_compatibility(known[name], distribution)
