"""Studies as Optuna Dashboard shows them: answered, in torch's terms, bookkeeping folded away.

Nothing of this is stored, so it needs no right to write, is never out of date, and is there for
studies of any version. What changes a study goes to the storage as it is.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Container, Iterable, Mapping
from typing import Any

from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from tuner.domain.trials import Proposal, TrialRecord
from tuner.errors import TunerError
from tuner.report.markdown import to_card
from tuner.report.plotly import to_figures
from tuner.report.trial_words import describe_trial
from tuner.service.dashboard.figures import write_figures
from tuner.service.dashboard.notes import with_answer
from tuner.service.summaries import read_results
from tuner.store import Database, Studies, StudyHandle
from tuner.store.damage import UNREADABLE
from tuner.store.events import read_devices
from tuner.store.identity import SPEC
from tuner.store.optuna.storage import Storage
from tuner.store.trial_rows import to_outcome

_KEPT_S = 10.0
"""Seconds for which an answer is shown again, at least: a page asks every few seconds."""

_PATIENCE = 20.0
"""Seconds for which an answer is kept, for each second that it took."""


class ShownStorage(Storage):
    """Reads a database's studies for the pages of Optuna Dashboard, over its connections.

    The study whose page is asked for is set by :meth:`open_page`, by thread: only its note gets an
    answer, which takes time.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        # The same connections, so that nothing is opened and checked twice.
        self.__dict__.update(database.storage.__dict__)
        self._database, self._page = database, threading.local()
        self._answers: dict[int, tuple[float, str, dict[str, str]]] = {}

    def open_page(self, study_id: int | None) -> None:
        """Sets the study whose page this thread answers next, None for another page."""
        self._page.study_id = study_id

    def get_all_studies(self) -> list[FrozenStudy]:
        """Returns all studies, each with a few attributes that tell what it is."""
        return [self._show_study(study) for study in super().get_all_studies()]

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Returns the trials of a study, each with attributes that tell how it went."""
        return self._show_trials(study_id, super().get_all_trials(study_id, deepcopy, states))

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Returns the best trial as it is shown.

        Raises:
            ValueError: If no trial is complete.
        """
        trials = self.get_all_trials(study_id, False, (TrialState.COMPLETE,))
        known = [trial for trial in trials if trial.value is not None]
        if not known:
            raise ValueError("No trials are completed yet.")
        better = max if StudyDirection.MAXIMIZE in self.get_study_directions(study_id) else min
        return better(known, key=lambda trial: trial.value or 0.0)

    def _show_study(self, study: FrozenStudy) -> FrozenStudy:
        if SPEC not in study.user_attrs:
            return study
        shown = copy.copy(study)
        shown.user_attrs = _fold(study.user_attrs)
        study_id = study._study_id  # noqa: SLF001 (it has no other name)
        if getattr(self._page, "study_id", None) == study_id:
            answer, figures = self._answer(study_id, study.study_name)
            shown.system_attrs = with_answer(study.system_attrs, answer) | figures
        return shown

    def _answer(self, study_id: int, name: str) -> tuple[str, dict[str, str]]:
        """Returns the answer card of a study, or why there is none, and its figures."""
        until, answer, figures = self._answers.get(study_id, (0.0, "", {}))
        began = time.monotonic()
        if began < until:
            return answer, figures
        try:
            summary = read_results(self._database, Studies(self._database).find(name))
            answer, figures = to_card(summary), write_figures(to_figures(summary))
        except TunerError as error:
            answer = f"*tuner has no answer to show: {' '.join(str(error).split())}*"
            figures = {}
        took_s = time.monotonic() - began
        kept_until = began + max(_KEPT_S, _PATIENCE * took_s)
        self._answers[study_id] = (kept_until, answer, figures)
        return answer, figures

    def _show_trials(self, study_id: int, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        trials = list(trials)
        try:
            study = Studies(self._database).get(self.get_study_name_from_id(study_id))
        except (TunerError, KeyError):
            study = None
        if study is None:
            return trials
        devices = self._read_devices(study)
        return [_show_trial(study, trial, devices) for trial in trials]

    def _read_devices(self, study: StudyHandle) -> Mapping[int, str]:
        try:
            return read_devices(self._database, study.uuid)
        except TunerError:  # a role of an earlier version may not read them
            return {}


def _show_trial(study: StudyHandle, trial: FrozenTrial, devices: Mapping[int, str]) -> FrozenTrial:
    """Returns a trial with its attributes as people read them; a damaged one stays as it is."""
    attributes = dict(trial.user_attrs)
    record = TrialRecord(
        number=trial.number,
        outcome=to_outcome(trial.state, attributes),
        proposal=Proposal(dict(trial.params), preset=attributes.pop("preset", None)),
        value=trial.value if trial.state is TrialState.COMPLETE else None,
        attributes=attributes,
    )
    shown = copy.copy(trial)
    try:
        shown.user_attrs = describe_trial(study.spec, record, devices.get(trial.number))
    except UNREADABLE:
        return trial
    return shown


def _fold(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a study's attributes: what it trains, and in one what tuner keeps for itself."""
    own = {key: value for key, value in attributes.items() if key.startswith("tuner:")}
    others = {key: value for key, value in attributes.items() if key not in own}
    section = own[SPEC].get("study", {}) if isinstance(own[SPEC], Mapping) else {}
    told = {key: section[key] for key in ("workload", "metric", "direction") if key in section}
    return {**told, **others, "bookkeeping": own}
