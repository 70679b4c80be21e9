"""Trials that all fail alike, or all diverge alike: no setting is at fault, so the study ends."""

from __future__ import annotations

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord, decode
from tuner.errors import WorkloadError
from tuner.service.worker.context import WorkerContext

ALIKE_FAILURES = 5
"""Failures of the first trials, all alike, after which a study stops; divergences likewise."""

_SPREAD = 10.0
"""The least ratio of the learning rates of trials that diverged alike, for these not to be why."""


def stop_if_all_fail(context: WorkerContext, futile_before: int) -> None:
    """Ends the study where all its trials have failed alike, or diverged alike.

    Raises:
        WorkloadError: If so.
    """
    futile = list(context.futile.values())
    fine = sum(bool(record.evaluations) for record in context.running.values())
    enough = max(ALIKE_FAILURES, len(context.over) + fine)
    if len(futile) < enough or len(futile) == futile_before:
        return
    if len({_failure_of(record) for record in futile}) > 1:
        return
    last = futile[-1]
    if last.outcome is Outcome.FAILED:
        raise WorkloadError(
            f"The first {len(futile)} trials all failed alike, so the study has stopped: "
            f"{last.attributes.get('error')}\nFix the workload and run the study again; failed "
            f"trials count in its budget.\n\n{last.attributes.get('traceback', '')}"
        )
    spec = context.proposer.spec
    rates = [rate for record in futile if (rate := _rate_of(spec, record))]
    if spec.confirmation is not None or not rates or max(rates) < _SPREAD * min(rates):
        return
    raise WorkloadError(
        f"The first {len(futile)} trials all diverged at step {last.attributes['diverged_step']}, "
        f"with learning rates from {min(rates):.2g} to {max(rates):.2g}, so the study has "
        f"stopped: {spec.study.metric} or the loss is infinite or NaN there whatever the settings. "
        "Look for NaN in the data, the logarithm of 0, or a division by 0; or search far lower "
        "learning rates. Diverged trials count in the study's budget."
    )


def _failure_of(record: TrialRecord) -> str:
    """Returns the kind and place of a trial's end, which those that failed or diverged share."""
    if record.outcome is Outcome.DIVERGED:
        return f"diverged at step {record.attributes.get('diverged_step')}"
    kind = str(record.attributes.get("error", "")).partition(":")[0]
    return f"{kind} at {record.attributes.get('error_at')}"


def _rate_of(spec: StudySpec, record: TrialRecord) -> float | None:
    """Returns the learning rate that a trial had, None where its optimizer has none."""
    config = decode(spec, record.proposal)
    rate = config.optimizer_values.get(OPTIMIZERS[config.optimizer].rate)
    return float(rate) if isinstance(rate, int | float) else None
