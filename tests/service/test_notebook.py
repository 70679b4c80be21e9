"""A real notebook, run in a real kernel: functions of cells train, show themselves, and stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

CELLS = (
    """
import asyncio, os, signal, threading, time
import torch, tuner

target = 1.0
slow = False

def train(run):
    model = torch.nn.Linear(3, 1)
    optimizer = run.optimizer(model)
    for step in run.steps():
        loss = (model(torch.ones(4, 3)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if slow and step == 5:
            os.kill(os.getpid(), signal.SIGINT)  # what the kernel gets when it is interrupted
        if run.due():
            run.report(val_loss=loss.item())

small = {"optimizers": ["sgd", "adam"], "steps": 20, "device": "cpu"}
""",
    "study = tuner.tune(train, trials=4, **small)\nstudy",
    "study.report()",
    "study.best.value",
    """
several = tuner.tune(train, name="several", trials=4, workers=2, **small)
print(several.state)
""",
    """
behind = tuner.tune(train, name="behind", trials=4, background=True, **small)
while behind.is_running:
    await asyncio.sleep(0.05)
behind.wait()
print(behind.state)
""",
    """
slow = True
halted = tuner.Study.create(workload=train, name="halted", optimizers=["sgd"], device="cpu",
                            settings={"budget.steps": 20, "budget.trials": 2}, check=False)
try:
    halted.run(device="cpu")
except KeyboardInterrupt:
    print("given back:", halted.state)
slow = False
print(halted.run(device="cpu").state)
""",
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """Returns the outputs of each cell."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(text) for text in CELLS]
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=240, resources=where).execute()
    return [cell.outputs for cell in notebook.cells]


def printed(cell: list[Any]) -> str:
    """Returns what a cell has printed to its reader."""
    return "".join(
        output.text for output in cell if output.output_type == "stream" and output.name == "stdout"
    )


def shown(cell: list[Any]) -> list[str]:
    """Returns the HTML that a cell shows."""
    return [o.data["text/html"] for o in cell if "data" in o and "text/html" in o.data]


@pytest.mark.slow
class TestNotebook:
    def test_a_study_draws_its_progress_and_shows_its_answer(
        self, outputs: list[list[Any]]
    ) -> None:
        progress, answer = shown(outputs[1])
        assert "4/4" in progress
        assert "sgd" in progress
        assert "\x1b" not in progress
        assert "sgd" in answer or "adam" in answer
        assert "Created study 'train'" in printed(outputs[1])

    def test_a_report_is_a_page_in_a_frame(self, outputs: list[list[Any]]) -> None:
        [page] = shown(outputs[2])
        assert page.startswith("<iframe srcdoc=")
        assert float(outputs[3][0].data["text/plain"]) >= 0

    def test_several_workers_and_a_run_behind_come_to_their_ends(
        self, outputs: list[list[Any]]
    ) -> None:
        assert printed(outputs[4]).endswith("done\n")
        assert printed(outputs[5]).endswith("done\n")

    def test_an_interrupted_kernel_saves_and_goes_on(self, outputs: list[list[Any]]) -> None:
        told = printed(outputs[6])
        assert "Stopped by Ctrl-C; unfinished trials are saved." in told
        assert "given back: idle\n" in told
        assert told.endswith("done\n")


def test_outside_of_a_notebook_nothing_takes_this_for_one(tmp_path: Path) -> None:
    from tuner.service.display.notebook import is_notebook

    assert not is_notebook()
