"""What a study costs at the command line once it has many trials."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.growth_writer import Writer
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialRecord
from tuner.store import Ledger, RecordReader, Studies, WorkerIdentity, open_database

ROOT = Path(__file__).parents[1]

NAME = "large"

SIZE = "page, MB"
"""What is no time among the figures."""

_TRAINED = 10
"""Trials that the worker trains whose start is timed; each takes some ten milliseconds."""

_STEPS = 50


def build_study(url: str, trials: int) -> None:
    """Makes a study whose trials have all ended, up to the few that a worker is to train."""
    tree = {
        "study": {"name": NAME, "workload": "models.parabola:Parabola"},
        "budget": {"steps": _STEPS, "evaluations": 10, "trials": trials + _TRAINED},
        "train": {"batch_size": 32},
    }
    spec = StudySpec.model_validate(tree).resolve()
    database = open_database(url, create=True)
    try:
        study = Studies(database).create(spec)
        ledger = Ledger(database, study, WorkerIdentity("a", "host", 1, "cpu", "0"))
        ledger.register(0.0, lambda ordinal: ordinal)
        Writer(ledger, spec).fill(trials)
    finally:
        database.close()


def measure_study(trials: int) -> dict[str, float]:
    """Returns the seconds that commands take on a study of so many trials, and its page's size."""
    with tempfile.TemporaryDirectory(prefix="tuner-bench-") as folder:
        page, url = Path(folder) / "page.html", f"sqlite:///{folder}/study.db"
        build_study(url, trials)
        report_s = _run("study", "report", NAME, "--storage", url)
        html = ("--format", "html", "--output", str(page))
        page_s = _run("study", "report", NAME, "--storage", url, *html)
        began = datetime.now(UTC).replace(tzinfo=None)
        _run("worker", "start", NAME, "--storage", url, "--fuse", "off", "--threads", "1")
        trained = _read_trained(url, trials)
        starts = [record.started_at for record in trained if record.started_at]
        ends = [record.finished_at for record in trained if record.finished_at]
        gaps = [(b - a).total_seconds() for a, b in zip(ends, starts[1:], strict=False)]
        return {
            "report": report_s,
            "page": page_s,
            SIZE: page.stat().st_size / 1e6,
            "a worker's start": (starts[0] - began).total_seconds(),
            "between trials": median(gaps),
        }


def _run(*arguments: str) -> float:
    """Returns the seconds that a command of tuner takes."""
    began = time.perf_counter()
    command = (sys.executable, "-m", "tuner", *arguments)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return time.perf_counter() - began


def _read_trained(url: str, trials: int) -> Sequence[TrialRecord]:
    database = open_database(url)
    try:
        records = RecordReader(database, Studies(database).find(NAME)).sync()
        return [record for record in records if record.number >= trials]
    finally:
        database.close()
