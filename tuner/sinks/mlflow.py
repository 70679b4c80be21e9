"""MLflow: a run for each trial, in an experiment of the study's name."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

# Nothing is sent to MLflow's makers, and pauses between attempts are the sender's.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# MLflow calls folders legacy, and asks for this word of whoever wants one all the same.
os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from tuner.domain.printable import cut
from tuner.domain.trials import Outcome
from tuner.errors import SinkAwayError, SpecError
from tuner.sinks.sheets import VALUE, Ending, Point, StudySheet, TrialSheet, time_of
from tuner.sinks.sink import Held
from tuner.sinks.targets import hide_login

T = TypeVar("T")

_UUID, _NUMBER, _OUTCOME = "tuner.study_uuid", "tuner.trial", "tuner.outcome"

_STATUS = {Outcome.COMPLETE: "FINISHED", Outcome.FAILED: "FAILED"}
"""MLflow's words for the ends of trials; those that were ended early are killed ones there."""

_AT_ONCE = 1000
"""Points that the server takes in one request, at most; of params and tags it takes 100."""

_LONGEST_NAME, _LONGEST_TEXT = 250, 500
_STRANGE = re.compile(r"[^\w\-. :/]", re.ASCII)
"""The letters that MLflow refuses in the name of a number."""

_QUOTES = re.compile("[\"'`]")
"""The letters in the name of an experiment by which a folder cannot find it."""


def _translated(method: Callable[..., T]) -> Callable[..., T]:
    """Turns MLflow's errors in a method into tuner's, and keeps its warnings quiet."""

    @functools.wraps(method)
    def call(self: MLflowSink, *arguments: Any) -> T:
        with self.translated():
            return method(self, *arguments)

    return call


class MLflowSink:
    """Writes each trial as a run, which it finds again by tags.

    Args:
        place: A folder, or the URI of a database or a server. Name and password of a server may be
            in ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD`` instead.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._study: StudySheet | None = None
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._runs: dict[int, Any] = {}

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turns MLflow's errors into tuner's within a block."""
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about MLflow's own code
                yield
        except (MlflowException, OSError) as error:
            raise self._translate(error) from None

    def _translate(self, error: MlflowException | OSError) -> Exception:
        where = f"mlflow:{hide_login(self._place)}"
        why = str(error).splitlines()[0].replace(self._place, hide_login(self._place))
        if password := urlsplit(self._place).password:
            why = why.replace(password, "***")
        status = error.get_http_status_code() if isinstance(error, MlflowException) else 500
        if 400 <= status < 500 and status != 429:
            return SpecError(f"{where}: {cut(why, _LONGEST_TEXT)}")
        cause = re.search(r"Caused by (\w+)", why)
        return SinkAwayError(f"{where} cannot be reached: {cause[1] if cause else cut(why, 200)}.")

    @_translated
    def open(self, study: StudySheet) -> None:
        """Finds or makes the study's experiment, and reads which trials have runs in it."""
        client = self._client = MlflowClient(tracking_uri=self._place)
        self._study = study
        name = _QUOTES.sub("_", study.name)
        found = client.get_experiment_by_name(name)
        if found is None:
            self._experiment = client.create_experiment(name)
        elif found.lifecycle_stage == "deleted":
            raise SpecError(
                f"mlflow:{hide_login(self._place)}: the experiment {name!r} was deleted "
                "there: restore it (mlflow experiments restore), or remove it for good (mlflow gc)."
            )
        else:
            self._experiment = found.experiment_id
        self._runs = {
            int(run.data.tags[_NUMBER]): run
            for run in self._search(f"tags.`{_UUID}` = '{study.uuid}'")
            if run.data.tags.get(_NUMBER, "").isdecimal()
        }

    def _search(self, query: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._there.search_runs([self._experiment], query, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    @property
    def _there(self) -> MlflowClient:
        if self._client is None:
            raise RuntimeError("The sink has not been opened.")
        return self._client

    @_translated
    def look(self, trial: TrialSheet) -> Held:
        """Reads the points of a run that has not ended."""
        run = self._runs.get(trial.number)
        if run is None:
            return Held()
        if _OUTCOME in run.data.tags:
            return Held(ended=True)
        points = {
            (metric.step, name)
            for name in run.data.metrics
            for metric in self._there.get_metric_history(run.info.run_id, name)
        }
        return Held(points=frozenset(points))

    @_translated
    def write(self, trial: TrialSheet, points: Sequence[Point], ending: Ending | None) -> None:
        """Writes to the trial's run, which it starts where there is none."""
        run_id = self._run_of(trial).info.run_id
        last = max((point.step for point in points), default=1)
        names = to_names({point.name for point in points})
        told = [
            Metric(names[p.name], p.value, round(1000 * time_of(p, trial, ending, last)), p.step)
            for p in points
        ]
        if ending is not None:
            finals = dict(ending.metrics)
            if ending.value is not None:
                finals[VALUE] = ending.value
            at = round(1000 * ending.at)
            told += [Metric(_clean(name), value, at, last) for name, value in finals.items()]
        for start in range(0, len(told), _AT_ONCE):
            self._there.log_batch(run_id, metrics=told[start : start + _AT_ONCE])
        if ending is not None:
            self._end(run_id, ending)

    def _run_of(self, trial: TrialSheet) -> Any:
        if trial.number in self._runs:
            return self._runs[trial.number]
        if self._study is None:
            raise RuntimeError("The sink has not been opened.")
        tags = {_UUID: self._study.uuid, **self._study.tags, **trial.tags}
        run = self._there.create_run(
            self._experiment,
            start_time=round(1000 * trial.started_at),
            tags={key: value[:_LONGEST_TEXT] for key, value in tags.items()},
            run_name=f"{self._study.name}-{trial.number}",
        )
        self._runs[trial.number] = run
        names = to_names(trial.settings)
        params = [
            Param(names[key], str(value)[:_LONGEST_TEXT]) for key, value in trial.settings.items()
        ]
        for start in range(0, len(params), 100):
            self._there.log_batch(run.info.run_id, params=params[start : start + 100])
        return run

    def _end(self, run_id: str, ending: Ending) -> None:
        """Ends a run; the tag that says how comes last, since it marks the run as whole."""
        status = _STATUS.get(ending.outcome, "KILLED")
        self._there.set_terminated(run_id, status=status, end_time=round(1000 * ending.at))
        error = [RunTag("tuner.error", ending.error[:_LONGEST_TEXT])] if ending.error else []
        self._there.log_batch(run_id, tags=[*error, RunTag(_OUTCOME, ending.outcome.value)])

    def close(self) -> None:
        """Does nothing: each call has arrived."""


def to_names(names: Mapping[str, Any] | set[str]) -> dict[str, str]:
    """Returns the names under which MLflow takes numbers, by their own.

    >>> to_names({"lr", "loss@1"}) == {"lr": "lr", "loss@1": "loss_1"}
    True
    """
    return {name: _clean(name) for name in names}


def _clean(name: str) -> str:
    """Returns a name that MLflow takes, the same for the same name at any time."""
    cleaned = _STRANGE.sub("_", name)[:_LONGEST_NAME]
    # It takes names for paths, and refuses those that are not as short as can be.
    return "/".join(part.replace("..", "__") or "_" for part in cleaned.split("/"))
