"""A trial whose worker is killed goes on in another process as if it had not been."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tuner.domain.trials import Outcome, TrialRecord
from tuner.store import Studies, open_database, read_records

KILL = '''
class Killing({base}):
    """Kills the worker in mid-epoch, once, after it has saved the trial."""

    def {hook}(self, *args, **kwargs):
        if RUN.taken == 30:
            RUN.checkpoint()
        if RUN.taken == 33 and ARMED.exists():
            ARMED.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


ARMED = pathlib.Path("armed")


'''

SCRIPTS = {
    "lightning": (
        "import lightning as L\n",
        KILL.format(base="L.Callback", hook="on_train_batch_end"),
        ("L.Trainer(max_epochs=5)", "L.Trainer(max_epochs=5, callbacks=[Killing()])"),
    ),
    "transformers": (
        "import torch\n",
        KILL.format(base="TrainerCallback", hook="on_step_end"),
        (
            "train_dataset=Sums(640, seed=0),",
            "train_dataset=Sums(640, seed=0),\n        callbacks=[Killing()],",
        ),
    ),
}


def prepare(name: str, folder: Path) -> None:
    """Writes an example that kills its worker, where a file says so."""
    first, killing, (old, new) = SCRIPTS[name]
    script = (ROOT / "examples" / name / "train.py").read_text()
    script = script.replace(first, f"import os\nimport pathlib\nimport signal\n\n{first}", 1)
    script = script.replace("    Trainer,\n", "    Trainer,\n    TrainerCallback,\n")
    assert old in script
    script = script.replace(old, new)
    head, _, body = script.partition("def train(run):\n")
    folder.mkdir()
    lines = f"{head}{killing}def train(run):\n    global RUN\n    RUN = run\n{body}"
    (folder / "train.py").write_text(lines)
    shutil.copy(ROOT / "examples" / name / "study.toml", folder)


def tune(name: str, folder: Path) -> tuple[TrialRecord, str]:
    """Trains one trial of an example, and returns it with the logs of its workers."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TUNER_HOME": str(folder / "home")}
    sets = ("budget.trials=1", "train.stall_s=30")
    command = [sys.executable, "-m", "tuner", "run", "study.toml", "--workers", "1"]
    command += [part for value in sets for part in ("--set", value)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    database = open_database(f"sqlite:///{folder / 'tuner.db'}")
    try:
        [record] = read_records(database, Studies(database).find(name))
    finally:
        database.close()
    logs = [path.read_text() for path in (folder / "home").rglob("worker-*.log")]
    return record, "\n".join(logs)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_trial_goes_on_after_its_worker_is_killed(name: str, tmp_path: Path) -> None:
    for kind in ("whole", "killed"):
        prepare(name, tmp_path / kind)
    (tmp_path / "killed" / "armed").touch()
    whole, _ = tune(name, tmp_path / "whole")
    killed, log = tune(name, tmp_path / "killed")
    assert not (tmp_path / "killed" / "armed").exists()
    assert "continues at step 30" in log, log
    assert killed.outcome is whole.outcome is Outcome.COMPLETE
    assert killed.evaluations == whole.evaluations
    assert killed.value == whole.value
