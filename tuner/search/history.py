"""The past of a study as Optuna's samplers and pruners want to see it, kept in memory.

Asking Optuna through the database costs dozens of statements a trial. Here the records that a
worker reads anyway are mirrored into a study in memory, and Optuna is asked there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import optuna
from optuna.trial import FrozenTrial, TrialState

from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord
from tuner.search.distributions import distributions_of

_STATES = {
    Outcome.RUNNING: TrialState.RUNNING,
    Outcome.COMPLETE: TrialState.COMPLETE,
    Outcome.PRUNED: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.PRUNED,
    Outcome.FAILED: TrialState.FAIL,
}


class History:
    """The trials of a study, in memory.

    Args:
        spec: The resolved spec.
        sampler: Optuna's sampler, if the history is to be asked for proposals.

    Attributes:
        study: Optuna's view of it.
        count: How many trials have started.
    """

    def __init__(self, spec: StudySpec, sampler: optuna.samplers.BaseSampler | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._spec = spec
        self._ids: dict[int, int] = {}
        self.study = optuna.create_study(
            direction=spec.study.direction,
            sampler=sampler,
            pruner=optuna.pruners.NopPruner(),
            storage=optuna.storages.InMemoryStorage(),
        )

    @property
    def count(self) -> int:
        """How many trials have started."""
        return len(self._ids)

    def add(self, records: Iterable[TrialRecord]) -> None:
        """Takes in trials that started or finished."""
        storage, study_id = self.study._storage, self.study._study_id  # noqa: SLF001
        for record in records:
            known = self._ids.get(record.number)
            if known is None:
                trial = self.to_frozen(record)
                self._ids[record.number] = storage.create_new_trial(study_id, trial)
            else:
                trial = self.to_frozen(record)
                for progress, value in trial.intermediate_values.items():
                    storage.set_trial_intermediate_value(known, progress, value)
                storage.set_trial_state_values(known, trial.state, trial.values)

    def to_frozen(self, record: TrialRecord) -> FrozenTrial:
        """Returns a record as Optuna's kind of trial.

        A diverged trial ends in a NaN, which Optuna's samplers rank behind every number.
        """
        evaluations = dict(record.evaluations)
        if record.outcome is Outcome.DIVERGED:
            evaluations[max(evaluations, default=0) + 1] = math.nan
        state = _STATES[record.outcome]
        return FrozenTrial(
            number=record.number,
            state=state,
            value=record.value if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
            datetime_start=record.started_at,
            datetime_complete=record.finished_at,
            params=dict(record.proposal.params),
            distributions=distributions_of(self._spec, record.proposal.params),
            user_attrs={},
            system_attrs={},
            intermediate_values=evaluations,
            trial_id=-1,
        )
