"""TensorBoard: event files of scalars, with the settings of trials in its HParams view."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto import event_pb2, summary_pb2, types_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

from tuner.domain.catalog.dimensions import Value
from tuner.domain.trials import Outcome
from tuner.errors import SinkAwayError, SpecError
from tuner.sinks.sheets import VALUE, Ending, Point, StudySheet, TrialSheet, time_of
from tuner.sinks.sink import Held

_MARK = "tuner-study.json"
"""The file in a study's folder that says whose it is."""

_STATUS = {Outcome.FAILED: api_pb2.STATUS_FAILURE}
"""TensorBoard's words for the ends of trials; all others are its successes."""


class TensorBoardSink:
    """Writes each trial into a folder of its own: ``FOLDER/STUDY/trial-0012``.

    A trial appears in the HParams view once it has ended, since what it shows of one cannot change.

    Args:
        folder: The folder that TensorBoard is started on.
    """

    def __init__(self, folder: str) -> None:
        self._root = Path(folder)
        self._folder = self._root
        self._writers: dict[int, EventFileWriter] = {}

    def open(self, study: StudySheet) -> None:
        """Makes the study's folder, unless there is one; its name may be taken by another."""
        try:
            self._folder = self._find(study) or self._make(study)
        except OSError as error:
            raise SpecError(
                f"tensorboard:{self._root}: cannot be written: {error.strerror}. Name a folder in "
                "which you may write."
            ) from None

    def _find(self, study: StudySheet) -> Path | None:
        for mark in sorted(self._root.glob(f"*/{_MARK}")):
            try:
                if json.loads(mark.read_text(encoding="utf-8")).get("uuid") == study.uuid:
                    return mark.parent
            except (ValueError, AttributeError):  # a file of somebody else's
                continue
        return None

    def _make(self, study: StudySheet) -> Path:
        name = re.sub(r"[^\w.-]+", "_", study.name).strip(".")[:100] or "study"
        folder = self._root / name
        if folder.exists():
            folder = self._root / f"{name}-{study.uuid[:8]}"
        folder.mkdir(parents=True, exist_ok=True)
        mark = {"uuid": study.uuid, "tags": dict(study.tags)}
        writer = EventFileWriter(str(folder))
        lines = "\n".join(f"| {key} | {value} |" for key, value in study.tags.items())
        _add(writer, _text("study", f"| tag | value |\n| --- | --- |\n{lines}"))
        writer.close()
        # Last, so that a folder that is cut short is not taken for whole.
        (folder / _MARK).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")
        return folder

    def look(self, trial: TrialSheet) -> Held:
        """Reads the trial's event files."""
        points, ended = set[tuple[int, str]](), False
        for path in sorted(self._folder_of(trial).glob("events.out.tfevents.*")):
            for event, value in _read(path):
                ended |= value.tag == metadata.SESSION_END_INFO_TAG
                points.add((event.step, value.tag))
        return Held(ended, points=frozenset(points))

    def write(self, trial: TrialSheet, points: Sequence[Point], ending: Ending | None) -> None:
        """Appends to the trial's event file of this process."""
        last = max((point.step for point in points), default=1)
        try:
            writer = self._writer_of(trial)
            for point in points:
                value = summary_pb2.Summary.Value(tag=point.name, simple_value=point.value)
                at = time_of(point, trial, ending, last)
                _add(writer, summary_pb2.Summary(value=[value]), point.step, at)
            if ending is None:
                writer.flush()
            else:
                self._end(writer, trial, last, ending)
        except OSError as error:
            raise SinkAwayError(
                f"tensorboard:{self._root}: cannot be written: {error.strerror}."
            ) from None

    def _end(self, writer: EventFileWriter, trial: TrialSheet, step: int, ending: Ending) -> None:
        """Writes what is known only at the end; the mark of the end itself comes last."""
        finals = dict(ending.metrics)
        if ending.value is not None:
            finals[VALUE] = ending.value
        for name, number in finals.items():
            value = summary_pb2.Summary.Value(tag=name, simple_value=number)
            _add(writer, summary_pb2.Summary(value=[value]), step, ending.at)
        settings: dict[str, Value] = {"outcome": ending.outcome.value, **trial.settings}
        told = {key: _to_hparam(value) for key, value in settings.items()}
        tags = {**trial.tags, **({"error": ending.error} if ending.error else {})}
        lines = "\n".join(f"| {key} | {value} |" for key, value in tags.items())
        _add(writer, _text("trial", f"| tag | value |\n| --- | --- |\n{lines}"))
        name = self._folder_of(trial).name
        _add(writer, summary_v2.hparams_pb(told, name, trial.started_at), at=trial.started_at)
        _add(writer, _session_end(ending), at=ending.at)
        self._writers.pop(trial.number).close()

    def _folder_of(self, trial: TrialSheet) -> Path:
        return self._folder / f"trial-{trial.number:04d}"

    def _writer_of(self, trial: TrialSheet) -> EventFileWriter:
        if trial.number not in self._writers:
            self._writers[trial.number] = EventFileWriter(str(self._folder_of(trial)))
        return self._writers[trial.number]

    def close(self) -> None:
        """Closes the event files."""
        while self._writers:
            _, writer = self._writers.popitem()
            writer.close()


def _read(path: Path) -> Iterator[tuple[Any, Any]]:
    """Yields what an event file holds; of one that is cut short, what is whole."""
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            yield event, value


def _add(writer: EventFileWriter, summary: Any, step: int = 0, at: float | None = None) -> None:
    event = event_pb2.Event(summary=summary, step=step)
    if at is not None:
        event.wall_time = at
    writer.add_event(event)


def _text(tag: str, text: str) -> Any:
    """Returns a text that TensorBoard shows as Markdown."""
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
    value = summary_pb2.Summary.Value(
        tag=tag,
        metadata=summary_pb2.SummaryMetadata(plugin_data=plugin),
        tensor=tensor_util.make_tensor_proto([text.encode()], dtype=types_pb2.DT_STRING),
    )
    return summary_pb2.Summary(value=[value])


def _session_end(ending: Ending) -> Any:
    """Returns the mark of the HParams view that a trial has ended."""
    status = _STATUS.get(ending.outcome, api_pb2.STATUS_SUCCESS)
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=ending.at)
    value = summary_pb2.Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(
            plugin_data_pb2.HParamsPluginData(session_end_info=info)
        ),
        tensor=metadata.NULL_TENSOR,
    )
    return summary_pb2.Summary(value=[value])


def _to_hparam(value: Value) -> bool | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)
