"""The past of a study as a study of Optuna's in memory, which samplers and pruners are asked with.

Asking Optuna through the database costs dozens of statements a trial. Here the records that a
worker reads anyway are mirrored into a study in memory, and Optuna is asked there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tuner.domain.catalog.dimensions import Value
from tuner.domain.garbage import uncollected
from tuner.domain.samplers import sampler_row
from tuner.domain.spec import StudySpec
from tuner.domain.trials import CHOICES_OF_DEFAULTS, RERUN_OF, Outcome, TrialRecord
from tuner.search import informative
from tuner.search.distributions import Distributions
from tuner.search.past import Past
from tuner.search.tried import Tried

SAMPLER_STATE = "sampler"
"""The attribute of a trial under which the sampler that proposed it keeps its own state."""

_PICKLED = "cma:"
"""The prefix of the keys under which Optuna's CMA-ES keeps pickles."""

_LEARNED_FROM = (TrialState.COMPLETE, TrialState.PRUNED)

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
        openings: The points that the study starts with, if so.

    Attributes:
        study: Every trial that has started, for pruners of the user's own.
        past: The same trials, for tuner's own pruners.
        distributions: The distributions of the search space.
        asked: The study that the sampler is asked with: the trials that have the parameters it
            models, and the questions that are open.
        tried: The configurations that have started, and those that the study starts with.
        ended: The trials that were seen to train and then to end, for the sampler to be told.
        version: A number that changes whenever a trial starts or ends.
    """

    def __init__(
        self,
        spec: StudySpec,
        sampler: optuna.samplers.BaseSampler | None = None,
        openings: Iterable[Mapping[str, Value]] = (),
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._grouped = sampler_row(spec.search.sampler).grouped
        self.distributions = Distributions(spec)
        self.past = Past(spec.study.ranking)
        # Where times are compared, a metric that is to grow would point the other way.
        self._turned = spec.study.ranking != spec.study.direction
        self._started = _Mirror(spec)
        self._asked = _Mirror(spec, sampler)
        self.study = self._started.study
        self.asked = self._asked.study
        self.tried = Tried(openings)
        self.ended: list[FrozenTrial] = []
        self.version = 0
        self._forgets = False
        self._stages: dict[int, tuple[Outcome, bool]] = {}

    @property
    def count(self) -> int:
        """The number of trials that have started."""
        return len(self._started.ids)

    def add(self, records: Iterable[TrialRecord]) -> None:
        """Takes in trials that started, were evaluated or finished.

        Args:
            records: Their records, each as it is by now; one that is known already replaces itself.
        """
        with uncollected():
            for record in records:
                self._add(record)

    def _add(self, record: TrialRecord) -> None:
        trial = self.to_frozen(record)
        stage = record.outcome, bool(record.own_axes)
        if self._stages.get(record.number) != stage:
            self._stages[record.number] = stage
            self.version += 1
        self.tried.add(record)
        self._started.add(record.number, trial)
        self.past.take_in(trial, is_rival=not record.is_default)
        # A default has no parameters but its optimizer and schedule. A sampler of groups models
        # these as a group; others would from then on model these two alone.
        if not record.is_default or self._grouped:
            own = self.to_frozen(_without_bent(record)) if record.is_default else copy.copy(trial)
            ended = self._asked.add(record.number, own)
            # A trial that is run again was chosen by a person, not by the sampler.
            if ended is not None and RERUN_OF not in record.attributes:
                self.ended.append(ended)

    def pause(self, numbers: Collection[int]) -> None:
        """Shows paused trials to samplers as pruned ones, with the evaluations that they have.

        Args:
            numbers: The trials that are paused now; others that run are in training.
        """
        known = self._asked.ids
        self._asked.storage.paused = {known[number] for number in numbers if number in known}

    def forget_least(self) -> None:
        """Removes the least informative of very many trials from those that TPE learns from."""
        if not self._grouped:
            return
        trials = self.asked.get_trials(deepcopy=False, states=_LEARNED_FROM)
        # Once some are forgotten, so are those that a worker who reads all at once would forget.
        if self._forgets or len(trials) > informative.LIMIT:
            self._forgets = True
            kept = informative.choose(trials, self.past.sign, informative.LIMIT)
            for place, trial in enumerate(trials):
                if place not in kept:
                    self.forget(trial)

    def notes_on(self, question: optuna.Trial) -> dict[str, Any]:
        """Returns the notes that the sampler has left with a question.

        Args:
            question: What Optuna was asked, and has not been told the end of.
        """
        return self._asked.storage.get_trial(question._trial_id).system_attrs  # noqa: SLF001

    def forget(self, question: optuna.Trial | FrozenTrial) -> None:
        """Forgets a question; the trial that came of it is, or will be, among the trials.

        Args:
            question: What Optuna was asked.
        """
        self._asked.storage.forget(question._trial_id)  # noqa: SLF001

    def to_frozen(self, record: TrialRecord) -> FrozenTrial:
        """Returns a record as Optuna's kind of trial.

        A diverged trial ends in a NaN, which Optuna's samplers rank behind every number.

        Args:
            record: The trial as the database has it.
        """
        evaluations = dict(record.evaluations)
        if self._turned:
            evaluations = {progress: -metric for progress, metric in evaluations.items()}
        if record.outcome is Outcome.DIVERGED:
            evaluations[max(evaluations, default=0) + 1] = math.nan
        state = _STATES[record.outcome]
        distributions = self.distributions.of(record.proposal.params, record.own_axes)
        return FrozenTrial(
            number=record.number,
            state=state,
            value=record.value if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
            datetime_start=record.started_at,
            datetime_complete=record.finished_at,
            params={name: record.proposal.params[name] for name in distributions},
            distributions=distributions,
            user_attrs={"number": record.number, "reached": "reached" in record.attributes},
            system_attrs=_sampler_state(record),
            intermediate_values=evaluations,
            trial_id=self._started.ids.get(record.number, -1),
        )


def _without_bent(record: TrialRecord) -> TrialRecord:
    """Returns a default without the values that the study file has bent.

    They are few parameters of a group, and would part the group for TPE.
    """
    every = record.proposal.params
    params = {name: every[name] for name in CHOICES_OF_DEFAULTS if name in every}
    proposal = replace(record.proposal, params=params)
    return replace(record, proposal=proposal, own_axes={})


def _sampler_state(record: TrialRecord) -> dict[str, Any]:
    """Returns the notes of a sampler with a trial, without those that Optuna's CMA-ES unpickles."""
    state = record.attributes.get(SAMPLER_STATE)
    found = state if isinstance(state, dict) else {}
    return {key: value for key, value in found.items() if not key.startswith(_PICKLED)}


class AskedStudy(optuna.Study):
    """A study in memory that notes when its sampler stops it.

    Attributes:
        stopped: Whether its sampler has stopped it.
    """

    stopped = False

    def stop(self) -> None:
        """Notes that the sampler has nothing left to propose."""
        self.stopped = True


class _Memory(optuna.storages.InMemoryStorage):
    """An in-memory storage of one study, which takes trials over uncopied and can forget them.

    Attributes:
        paused: The ids of running trials that are shown as pruned.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[int, None] = {}
        self.paused: Collection[int] = ()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Starts a trial; returns its id."""
        trial_id = super().create_new_trial(study_id, template_trial)
        self._kept[trial_id] = None
        return trial_id

    def adopt(self, study_id: int, trial: FrozenTrial) -> int:
        """Takes over a trial, which is the storage's from then on, and returns its id.

        Optuna's own way copies all that hangs on it first, which takes a hundred times as long.
        """
        trial_id = self.create_new_trial(study_id)
        trial.number = trial._trial_id = trial_id  # noqa: SLF001
        self._set_trial(trial_id, trial)
        self._update_cache(trial_id, study_id)
        return trial_id

    def forget(self, trial_id: int) -> None:
        """Removes a trial."""
        self._kept.pop(trial_id, None)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Returns the trials of the study that have not been forgotten."""
        every = super().get_all_trials(study_id, deepcopy=False)
        trials = [every[trial_id] for trial_id in self._kept]  # ids count a study's trials
        if self.paused:
            trials = [self._show(trial) for trial in trials]
        if states is not None:
            trials = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def _show(self, trial: FrozenTrial) -> FrozenTrial:
        """Returns a trial as samplers see it."""
        if trial.state.is_finished() or trial._trial_id not in self.paused:  # noqa: SLF001
            return trial
        shown = copy.copy(trial)
        shown.state = TrialState.PRUNED
        return shown


class _Mirror:
    """A study in memory that follows records."""

    def __init__(self, spec: StudySpec, sampler: optuna.samplers.BaseSampler | None = None) -> None:
        self.ids: dict[int, int] = {}
        self.storage = _Memory()
        created = optuna.create_study(direction=spec.study.ranking, storage=self.storage)
        self.study = AskedStudy(
            study_name=created.study_name,
            storage=self.storage,
            sampler=sampler,
            pruner=optuna.pruners.NopPruner(),
        )

    def add(self, number: int, trial: FrozenTrial) -> FrozenTrial | None:
        """Takes over a trial, or its present state; returns it if it was seen to end.

        While a study is renamed, a trial can be lost that had been told of, and its number run
        anew. The lost one stays among those that are learnt from.
        """
        storage = self.storage
        known = self.ids.get(number)
        if known is not None:
            before = storage.get_trial(known)
            if before.state.is_finished():
                known = None
            elif before.datetime_start != trial.datetime_start:
                storage.set_trial_state_values(known, TrialState.FAIL)
                known = None
        if known is None:
            self.ids[number] = storage.adopt(self.study._study_id, trial)  # noqa: SLF001
            return None
        # A training loop may ask for hyperparameters of its own while it runs.
        for name in trial.params.keys() - storage.get_trial(known).params.keys():
            axis = trial.distributions[name]
            storage.set_trial_param(known, name, axis.to_internal_repr(trial.params[name]), axis)
        for progress, value in trial.intermediate_values.items():
            storage.set_trial_intermediate_value(known, progress, value)
        storage.set_trial_state_values(known, trial.state, trial.values)
        return storage.get_trial(known) if trial.state.is_finished() else None
