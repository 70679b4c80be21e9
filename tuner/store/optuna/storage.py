"""Optuna's storage on a database of ours, with operations on many trials at once."""

from __future__ import annotations

import contextlib
import math
import warnings
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
from tuner.store.optuna.calls import OWN_CALLS


class Storage(RDBStorage):
    """A complete Optuna storage; what cannot be opened leaves no connection.

    What :meth:`ask`, :meth:`report`, :meth:`tell` and :meth:`set_user_attrs` do for a list of
    trials is one transaction of a few statements. They raise what Optuna's storages raise for one
    trial, and then nothing has been recorded. With another version of Optuna than
    :mod:`tuner.store.optuna.tables` is written for, they use Optuna's own calls, in one
    transaction all the same, and a warning says so when the database is opened.

    Args:
        url: The database's URL.
        create: Whether to make Optuna's tables where they are missing.

    Raises:
        SpecError: If the URL is none of ours.
        StorageError: If Optuna's tables are not those of the installed Optuna.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        parsed = parse_url(url)
        plain = parsed.render_as_string(hide_password=False)
        try:
            super().__init__(
                plain.replace("{", "{{").replace("}", "}}"),  # Optuna formats it
                engine_kwargs=engine_options(parsed),
                skip_compatibility_check=True,  # _settle tells more
                skip_table_creation=not create,
            )
            self._settle()
        except BaseException:
            if hasattr(self, "engine"):
                self.engine.dispose()
            raise

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._settle()

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
        """A transaction that has the trials to itself."""
        with self._transaction() as connection:
            states = ot.lock_trials(connection, trial_ids)
            for trial_id in trial_ids:
                if trial_id not in states:
                    raise KeyError(f"There is no trial with the id {trial_id}.")
                self.check_trial_is_updatable(trial_id, states[trial_id])
            yield connection

    def _settle(self) -> None:
        """Sets up the engine, and who writes: we do where we know the tables, else Optuna."""
        configure(self.engine)
        revision = self.get_current_version()
        installed = optuna.__version__
        knows_optuna = installed.startswith(f"{ot.OPTUNA}.")
        if knows_optuna and revision == ot.SCHEMA_REVISION:
            return
        head = self.get_head_version()
        if revision != head:
            raise StorageError(
                f"{redact(self.url)}: Optuna's tables are of version {revision}, the installed "
                f"Optuna {installed} works with {head}. Install the versions of tuner and Optuna "
                "that made them, or bring older tables up to date with 'optuna storage upgrade'."
            )
        warnings.warn(
            f"Optuna {installed} with tables of version {revision} is installed, and tuner writes "
            f"into those of Optuna {ot.OPTUNA} of version {ot.SCHEMA_REVISION}: it uses Optuna's "
            f"own calls instead, which are much slower. Install Optuna {ot.OPTUNA} for speed.",
            stacklevel=3,
        )
        self.engine.update_execution_options(**{OWN_CALLS: True})


def _check_distributions(
    connection: sa.Connection, study_id: int, spaces: Sequence[Mapping[str, BaseDistribution]]
) -> None:
    """Refuses distributions that do not go with the study's, or with each other."""
    known: dict[str, BaseDistribution] = {}
    for space in spaces:
        for name, distribution in space.items():
            if name not in known:
                found = ot.read_distribution(connection, study_id, name)
                known[name] = found or distribution
            check_distribution_compatibility(known[name], distribution)
