"""What every sink holds to: what is written is read back with the tool's own reader."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.single_trials import SingleTrials
from tuner.domain.trials import Decoder
from tuner.search import Proposer
from tuner.sinks.sender import Sender
from tuner.sinks.sheets import VALUE
from tuner.sinks.targets import open_sink, parse_target
from tuner.store import Database, Studies, StudyHandle
from tuner.store.leases import reruns
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.records import read_record


@dataclass
class Seen:
    """A trial as a tool's own reader sees it."""

    settings: dict[str, Any] = field(default_factory=dict)
    points: list[tuple[str, int, float]] = field(default_factory=list)
    finals: dict[str, Any] = field(default_factory=dict)
    outcome: str | None = None
    status: str = ""
    error: str = ""
    tags: dict[str, str] = field(default_factory=dict)


class Tool(ABC):
    """A tool with a place of its own, and its reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def target(self) -> str: ...

    @abstractmethod
    def read(self, study: StudyHandle) -> dict[int, Seen]: ...

    def name_of(self, curve: str) -> str:
        return curve


class TensorBoard(Tool):
    def target(self) -> str:
        return f"tensorboard:{self.folder / 'runs'}"

    def read(self, study: StudyHandle) -> dict[int, Seen]:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugins.hparams import api_pb2, metadata

        marks = (self.folder / "runs").glob("*/tuner-study.json")
        [mark] = [m for m in marks if json.loads(m.read_text())["uuid"] == study.uuid]
        told = EventAccumulator(str(mark.parent), size_guidance={"tensors": 0})
        told.Reload()
        text = told.Tensors("study")[0].tensor_proto.string_val[0].decode()
        study_tags = _read_table(text)
        found = {}
        for folder in sorted(mark.parent.glob("trial-*")):
            events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
            events.Reload()
            seen = found[int(folder.name.removeprefix("trial-"))] = Seen(tags=dict(study_tags))
            for tag in events.Tags()["scalars"]:
                for event in events.Scalars(tag):
                    if tag == VALUE:
                        seen.finals[tag] = event.value
                    else:
                        seen.points.append((tag, event.step, event.value))
            if "trial" in events.Tags()["tensors"]:
                tags = _read_table(events.Tensors("trial")[0].tensor_proto.string_val[0].decode())
                seen.error = tags.pop("error", "")
                seen.tags |= tags
            content = events.summary_metadata.get(metadata.SESSION_START_INFO_TAG)
            if content is None:
                continue
            start = metadata.parse_session_start_info_plugin_data(content.plugin_data.content)
            for name, value in start.hparams.items():
                seen.settings[name] = getattr(value, value.WhichOneof("kind"))
            seen.outcome = seen.settings.pop("outcome")
            content = events.summary_metadata[metadata.SESSION_END_INFO_TAG]
            end = metadata.parse_session_end_info_plugin_data(content.plugin_data.content)
            seen.status = api_pb2.Status.Name(end.status)
        return found


def _read_table(text: str) -> dict[str, str]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    return {row[0]: row[1] for row in rows}


class MLflowFolder(Tool):
    def target(self) -> str:
        return f"mlflow:{self.folder / 'mlruns'}"

    def name_of(self, curve: str) -> str:
        return curve.replace("%", "_").replace("@", "_").replace("é", "_")

    def read(self, study: StudyHandle) -> dict[int, Seen]:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=parse_target(self.target()).place)
        experiments = [found.experiment_id for found in client.search_experiments()]
        found = {}
        for run in client.search_runs(experiments):
            tags = dict(run.data.tags)
            if tags.get("tuner.study_uuid") != study.uuid:
                continue
            seen = Seen(
                settings=dict(run.data.params),
                outcome=tags.pop("tuner.outcome", None),
                status=run.info.status,
                error=tags.pop("tuner.error", ""),
                tags=tags,
            )
            for name in run.data.metrics:
                for metric in client.get_metric_history(run.info.run_id, name):
                    if name == VALUE:
                        seen.finals[name] = metric.value
                    else:
                        seen.points.append((name, metric.step, metric.value))
            number = int(run.data.tags["tuner.trial"])
            assert number not in found, "two runs of one trial"
            found[number] = seen
        return found


class MLflowDatabase(MLflowFolder):
    def target(self) -> str:
        return f"mlflow:sqlite:///{self.folder / 'mlflow.db'}"


class MLflowServer(MLflowFolder):
    """A server that somebody has started: it needs more of MLflow than its client."""

    def target(self) -> str:
        return f"mlflow:{os.environ['TUNER_TEST_MLFLOW']}"


class Wandb(Tool):
    def target(self) -> str:
        return "wandb:project"

    def read(self, study: StudyHandle) -> dict[int, Seen]:
        from tuner.sinks.wandb_files import read_messages

        found: dict[int, Seen] = {}
        for path in sorted(self.folder.glob(f"wandb/*run-*/run-{study.uuid[:16]}-*.wandb")):
            seen = found.setdefault(int(path.stem.rpartition("-")[2]), Seen())
            for message in read_messages(path):
                self._take(seen, message)
        return found

    @staticmethod
    def _take(seen: Seen, message: Any) -> None:
        kind = message.WhichOneof("record_type")
        if kind == "run":
            for item in message.run.config.update:
                if item.key == "tuner":
                    seen.tags |= json.loads(item.value_json)
                elif item.key != "_wandb":
                    seen.settings[item.key] = json.loads(item.value_json)
        elif kind == "history":
            for item in message.history.item:
                name = item.key or "/".join(item.nested_key)
                if not name.startswith("_"):
                    value = json.loads(item.value_json)
                    seen.points.append((name, message.history.step.num, value))
        elif kind == "summary":
            for item in message.summary.update:
                name = item.key or "/".join(item.nested_key)
                if name.startswith("trial/"):
                    seen.finals[name] = json.loads(item.value_json)
            seen.outcome = seen.finals.get("trial/outcome")
            seen.error = seen.finals.get("trial/error", "")
        elif kind == "exit":
            seen.status = str(message.exit.exit_code)


KINDS: dict[str, Callable[[Path], Tool]] = {
    "tensorboard": TensorBoard,
    "mlflow-folder": MLflowFolder,
    "mlflow-database": MLflowDatabase,
    "mlflow-server": MLflowServer,
    "wandb": Wandb,
}


@pytest.fixture(params=KINDS)
def tool(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    if request.param == "mlflow-server" and "TUNER_TEST_MLFLOW" not in os.environ:
        pytest.skip("TUNER_TEST_MLFLOW names no server, such as http://127.0.0.1:5000")
    folder = tmp_path / "tool"
    folder.mkdir()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(folder))
    return KINDS[request.param](folder)


@pytest.fixture
def trials(database: Database, study: StudyHandle) -> Trials:
    return Trials(database, study)


class Trials:
    """Trials of a study that a test trains by hand."""

    def __init__(self, database: Database, study: StudyHandle) -> None:
        self.study = study
        worker = WorkerIdentity("7" * 32, "host", 7, "cpu", "0")
        self.ledger = SingleTrials(database, study, worker)
        self.ledger.register(0.0, lambda ordinal: ordinal)
        self._proposer = Proposer(study.spec, seed=0)
        self._leases: dict[int, Any] = {}

    def start(self) -> int:
        lease = self.ledger.start_one([], self._proposer.propose())
        assert lease is not None
        self._leases[lease.number] = lease
        return lease.number

    def report(self, number: int, step: int, **logged: float) -> None:
        points = [(step, name, value) for name, value in logged.items()]
        value = logged.get("val_loss")
        lease = self._leases[number]
        if value is None:
            self.ledger.log_one(lease, step, points)
        else:
            self.ledger.report_one(lease, step, step, value, points)

    def end(self, number: int, state: TrialState, value: float | None, **attributes: Any) -> None:
        self.ledger.finish_one(self._leases[number], state, value, attributes)


def send(database: Database, study: StudyHandle, tool: Tool, times: int = 1) -> None:
    """Sends what is new, by a process that has just started, as far as the sink is concerned."""
    sink = open_sink(parse_target(tool.target()))
    sender = Sender(database, study, sink)
    for _ in range(times):
        sender.send()
    sink.close()


def test_curves_settings_values_and_tags_are_read_back(
    tool: Tool, database: Database, trials: Trials
) -> None:
    number = trials.start()
    for step in (5, 10, 20):
        trials.report(number, step, val_loss=1 / step, train_loss=2 / step)
    trials.end(number, TrialState.COMPLETE, 0.05, steps=20)
    send(database, trials.study, tool)

    seen = tool.read(trials.study)[number]
    assert {(name, step): value for name, step, value in seen.points} == pytest.approx(
        {
            (name, step): scale / step
            for name, scale in (("train_loss", 2), ("val_loss", 1))
            for step in (5, 10, 20)
        }
    )
    assert len(seen.points) == 6
    assert seen.finals[VALUE] == pytest.approx(0.05)
    record = read_record(database, trials.study, number)
    assert record is not None
    config = Decoder(trials.study.spec).decode(record.proposal)
    assert float(seen.settings["lr"]) == pytest.approx(config.optimizer_values["lr"])
    assert seen.settings["optimizer"] == config.optimizer
    assert int(seen.settings["batch_size"]) == 32
    assert seen.tags["tuner.workload"] == "models.parabola:Parabola"
    assert seen.tags["tuner.metric"] == "val_loss"
    assert seen.tags["tuner.trial"] == str(number)


def test_every_ending_is_told_apart(tool: Tool, database: Database, trials: Trials) -> None:
    ends: dict[str, tuple[TrialState, float | None, dict[str, Any]]] = {
        "complete": (TrialState.COMPLETE, 0.5, {}),
        "pruned": (TrialState.PRUNED, 0.7, {}),
        "diverged": (TrialState.PRUNED, None, {"diverged_step": 3}),
        "failed": (TrialState.FAIL, None, {"error": "ValueError: 7, bad | worse\nlast"}),
    }
    numbers = {}
    for name, (state, value, attributes) in ends.items():
        numbers[name] = trials.start()
        trials.report(numbers[name], 5, train_loss=1.0)
        trials.end(numbers[name], state, value, **attributes)
    training = trials.start()
    trials.report(training, 5, val_loss=1.0)
    trials.report(training, 10, val_loss=0.5)
    send(database, trials.study, tool)

    seen = tool.read(trials.study)
    assert {name: seen[number].outcome for name, number in numbers.items()} == {
        name: name for name in ends
    }
    assert seen[training].outcome is None
    assert ("val_loss", 5, 1.0) in seen[training].points
    assert len({seen[numbers[name]].status for name in ("complete", "failed")}) == 2
    assert "ValueError: 7, bad" in seen[numbers["failed"]].error
    assert VALUE not in seen[numbers["failed"]].finals


def test_nothing_is_written_twice_by_senders_that_start_anew(
    tool: Tool, database: Database, trials: Trials
) -> None:
    first, second = trials.start(), trials.start()
    for step in (5, 10, 15):
        trials.report(first, step, val_loss=1 / step, train_loss=2 / step)
        trials.report(second, step, val_loss=3 / step)
        send(database, trials.study, tool, times=2)
    trials.end(first, TrialState.COMPLETE, 0.1)
    send(database, trials.study, tool)
    trials.report(second, 20, val_loss=0.2)
    trials.end(second, TrialState.COMPLETE, 0.2)
    send(database, trials.study, tool)
    send(database, trials.study, tool)

    seen = tool.read(trials.study)
    assert sorted(seen) == [first, second]
    counts = Counter((name, step) for name, step, _ in seen[first].points)
    assert counts == Counter((n, s) for n in ("train_loss", "val_loss") for s in (5, 10, 15))
    assert sorted(s for _, s, _ in seen[second].points) == [5, 10, 15, 20]
    assert {seen[first].outcome, seen[second].outcome} == {"complete"}


def test_one_sender_follows_a_trial_in_training(
    tool: Tool, database: Database, trials: Trials
) -> None:
    number = trials.start()
    sink = open_sink(parse_target(tool.target()))
    sender = Sender(database, trials.study, sink)
    sender.send()
    for step in (5, 10, 15):
        trials.report(number, step, val_loss=1 / step)
        trials.report(number, step, train_loss=2 / step)  # logged after its step's evaluation
        sender.send()
    trials.end(number, TrialState.COMPLETE, 1 / 15)
    sender.send()
    assert sender.sent == {number}
    assert sender.due == 0
    sink.close()
    counts = Counter((name, step) for name, step, _ in tool.read(trials.study)[number].points)
    assert counts == Counter((n, s) for n in ("train_loss", "val_loss") for s in (5, 10, 15))


@pytest.mark.parametrize("tool", ["tensorboard", "wandb"], indirect=True)
def test_file_that_is_cut_short_is_gone_on_with(
    tool: Tool, database: Database, trials: Trials
) -> None:
    number = trials.start()
    for step in (5, 10, 15):
        trials.report(number, step, val_loss=1 / step)
    send(database, trials.study, tool)
    for path in [*tool.folder.rglob("trial-*/*tfevents*"), *tool.folder.rglob("run-*/*.wandb")]:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 3)
    trials.end(number, TrialState.COMPLETE, 1 / 15)
    send(database, trials.study, tool)
    seen = tool.read(trials.study)[number]
    assert sorted(step for _, step, _ in seen.points) == [5, 10, 15]
    assert seen.outcome == "complete"


def test_trial_that_runs_again_is_a_trial_of_its_own(
    tool: Tool, database: Database, trials: Trials
) -> None:
    number = trials.start()
    trials.report(number, 5, val_loss=0.5)
    trials.end(number, TrialState.COMPLETE, 0.5)
    again = reruns.rerun(database, trials.study, number, extend=False)
    send(database, trials.study, tool)
    [lease] = trials.ledger.take_over(lambda worker_id: False, at_most=1)
    assert lease.number == again
    trials.ledger.report_one(lease, 5, 5, 0.5, [(5, "val_loss", 0.5)])
    trials.ledger.finish_one(lease, TrialState.COMPLETE, 0.5, {})
    send(database, trials.study, tool)
    seen = tool.read(trials.study)
    assert seen[again].settings == seen[number].settings
    assert seen[again].points == seen[number].points
    assert seen[again].tags["tuner.rerun_of"] == str(number)
    assert "tuner.rerun_of" not in seen[number].tags


def test_awkward_names_arrive(tool: Tool, database: Database, make_spec: MakeSpec) -> None:
    name = "..we ird né%me '\"{x}--"
    study = Studies(database).create(
        make_spec(study={"name": name, "workload": "models.parabola:Parabola"})
    )
    trials = Trials(database, study)
    number = trials.start()
    odd = ("val/acc@1", "a b", "né", "50%", "dot.ted")
    trials.report(number, 5, val_loss=0.5, **dict.fromkeys(odd, 1.0))
    trials.report(number, 10, val_loss=0.25)
    trials.end(number, TrialState.COMPLETE, 0.25)
    send(database, study, tool)
    send(database, study, tool)
    seen = tool.read(study)[number]
    assert Counter(name for name, step, _ in seen.points if step == 5) == Counter(
        ["val_loss", *map(tool.name_of, odd)]
    )
    assert not list(tool.folder.parent.glob("*we*ird*"))


def test_studies_of_one_name_are_kept_apart(
    tool: Tool, database: Database, make_spec: MakeSpec
) -> None:
    seen = []
    for value in (0.5, 0.25):
        study = Studies(database).create(make_spec())
        trials = Trials(database, study)
        number = trials.start()
        trials.report(number, 5, val_loss=value)
        trials.end(number, TrialState.COMPLETE, value)
        send(database, study, tool)
        seen.append(tool.read(study))
        Studies(database).delete(study)
    assert [one[0].points for one in seen] == [[("val_loss", 5, 0.5)], [("val_loss", 5, 0.25)]]


def test_nothing_of_this_process_is_written(
    tool: Tool, database: Database, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_TEST_SECRET", "hunter2-hunter2")
    number = trials.start()
    trials.report(number, 5, val_loss=0.5)
    trials.end(number, TrialState.COMPLETE, 0.5)
    send(database, trials.study, tool)
    written = b"".join(p.read_bytes() for p in tool.folder.rglob("*") if p.is_file())
    assert written or isinstance(tool, MLflowServer)
    assert b"hunter2-hunter2" not in written
    assert database.name.encode() not in written
