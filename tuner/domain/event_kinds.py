"""The kinds of events of a study: what can happen to it, its trials and its workers."""

from __future__ import annotations

from collections.abc import Mapping

OF_TRIALS: Mapping[str, str] = {
    "started": "a worker has begun a trial",
    "taken_over": "a worker goes on with a trial of another, which died or fell silent",
    "continued": "a trial goes on from its checkpoint",
    "started_over": "a trial starts over, since it has no checkpoint that counts",
    "released": "a worker has given a trial back, saved, since it ends or the study is paused",
    "promoted": "a trial that was paused at a rung goes on",
    "finished": "a trial has ended: its outcome, and its value",
    "ended": "a trial that nobody trained has ended as it was, such as one that stays paused",
    "failed_attempts": "a trial is failed, since worker after worker got no further with it",
    "rerun": "a trial was queued to run again",
    "repaired": "a trial was freed by 'tuner study repair'",
    "left_out": "numbers of a trial's curves are left out, since they are none",
}
"""Kinds of events of one trial, each with what it says; ``paused`` is of trials and studies."""

OF_STUDIES: Mapping[str, str] = {
    "paused": "a trial waits at a rung to be promoted; without a trial: the study was paused",
    "resumed": "the study goes on",
    "stopped": "the study was stopped by a user",
    "exhausted": "the search has nothing left to try, or what is left is not worth it",
    "planned": "the finalists that run again on fresh seeds were chosen",
    "renamed": "the study was renamed in Optuna Dashboard",
}
"""Kinds of events of a study."""

OF_WORKERS: Mapping[str, str] = {
    "joined": "a worker is there: its host, process and device, and the versions it runs with",
    "left": "a worker has ended: why",
    "lost": "a worker died or fell silent, and others have taken its trials",
    "reconnected": "a worker could not reach the database for a while, and can again",
}
"""Kinds of events of a worker."""

KINDS: Mapping[str, str] = {**OF_TRIALS, **OF_STUDIES, **OF_WORKERS}
"""All kinds of events, each with what it says."""
