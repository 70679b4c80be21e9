"""What to try next: the defaults of every optimizer first, then what the sampler thinks best."""

from __future__ import annotations

import warnings
from typing import cast

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.domain.dimensions import Choice, Dimension, Fixed, Float, Int, Value
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Proposal, decode, default_proposals, walk
from tuner.search.distributions import distributions_of
from tuner.search.history import History


class Proposer:
    """Proposes trials of a study.

    Args:
        spec: The resolved spec.
        seed: The worker's seed; two workers with one seed would propose alike.

    Attributes:
        history: The past it learns from; whoever asks keeps it up to date.
    """

    def __init__(self, spec: StudySpec, seed: int) -> None:
        self._spec = spec
        self.history = History(spec, build_sampler(spec, seed))

    def defaults(self) -> list[FrozenTrial]:
        """Returns the trials the study starts with."""
        return [template_of(self._spec, proposal) for proposal in default_proposals(self._spec)]

    def propose(self) -> FrozenTrial:
        """Returns a trial for the store to start, with parameters and attributes."""
        study = self.history.study
        trial = study.ask()

        def suggest(name: str, axis: Dimension) -> Value:
            match axis:
                case Float():
                    return trial.suggest_float(name, axis.low, axis.high, log=axis.log)
                case Int():
                    return trial.suggest_int(name, axis.low, axis.high, log=axis.log)
                case Choice():
                    return cast("Value", trial.suggest_categorical(name, axis.choices))
                case Fixed():
                    return axis.value

        params = walk(self._spec, suggest)
        # The trial enters the history when it comes back from the database; this one was only
        # the question, and a failed trial is one that samplers do not look at.
        study.tell(trial, state=TrialState.FAIL)
        return template_of(self._spec, Proposal(params))


def build_sampler(spec: StudySpec, seed: int) -> optuna.samplers.BaseSampler:
    """Returns Optuna's sampler for a study.

    TPE models all hyperparameters of one optimizer jointly, which the default would sample
    independently, since the space depends on the optimizer.
    """
    seed %= 2**32
    if spec.search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)


def template_of(spec: StudySpec, proposal: Proposal) -> FrozenTrial:
    """Returns a proposal as a trial to start; its torch-form values go along as an attribute."""
    config = decode(spec, proposal)
    attributes: dict[str, object] = {"config": config.to_json()}
    if proposal.preset is not None:
        attributes["preset"] = proposal.preset
    return create_trial(
        state=TrialState.RUNNING,
        params=dict(proposal.params),
        distributions=distributions_of(spec, proposal.params),
        user_attrs=attributes,
    )
