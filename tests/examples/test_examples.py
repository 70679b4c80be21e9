"""Each example is tuned with a few changed lines, and its winner put back by hand gives its value.

``before.py`` is a script as people write it; ``train.py`` beside it is the same one, tuned.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import tuner
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"
AT_MOST = 8
"""Lines of a script that may change."""

_IMPORT = "import winner\nfrom winner import build_optimizer, build_schedule\n"


_OPTIMIZER_AND_SCHEDULE = (
    "    optimizer = build_optimizer(model)\n    schedule = build_schedule(optimizer)\n"
)

_UNTIL_SPENT = """    calls = 0

    def counted():
        nonlocal calls
        calls += 1
        return closure()

    while calls < winner.STEPS:
        for group in optimizer.param_groups:
            for limit in group.keys() & {"max_iter", "max_eval"}:
                group[limit] = min(group[limit], winner.STEPS - calls)
        optimizer.step(counted)
        schedule.step()
"""
"""Spends what the trial's budget gave: an optimizer may call its closure several times a step."""


@dataclass(frozen=True)
class ByHand:
    """The edits that put a winner into a script.

    Attributes:
        optimizers: The line, or lines, that build its optimizers, and what replaces them.
        steps: What steps the optimizer, and what steps optimizer and schedule; None if the script
            has none, or its trainer does that.
    """

    optimizers: tuple[str, str]
    steps: tuple[str, str] | None = None

    def apply(self, script: str) -> str:
        """Returns a script with the edits."""
        edits = [self.optimizers] if self.steps is None else [self.optimizers, self.steps]
        for old, new in edits:
            assert script.count(old) == 1, old
            script = script.replace(old, new)
        head, doc_end, rest = script.partition('"""\n\n')
        return head + doc_end + _IMPORT + rest


def _plain(line: str, indent: int = 8) -> ByHand:
    space = " " * indent
    return ByHand(
        (
            f"    optimizer = {line}\n",
            _OPTIMIZER_AND_SCHEDULE,
        ),
        (
            f"{space}optimizer.step()\n",
            f"{space}optimizer.step()\n{space}schedule.step()\n",
        ),
    )


_ADAMW = "torch.optim.AdamW(model.parameters(), lr=1e-3)"
_FINETUNING = _plain("torch.optim.AdamW(groups, lr=1e-3)")

BY_HAND = {
    "accelerate": ByHand(
        (f"    optimizer = {_ADAMW}\n", _OPTIMIZER_AND_SCHEDULE),
        (
            "                optimizer.step()\n",
            "                optimizer.step()\n"
            "                if accelerator.sync_gradients:\n"
            "                    schedule.step()\n",
        ),
    ),
    "accumulation": ByHand(
        (f"    optimizer = {_ADAMW}\n", _OPTIMIZER_AND_SCHEDULE),
        (
            "                scaler.update()\n",
            "                scaler.update()\n                schedule.step()\n",
        ),
    ),
    "closure": ByHand(
        (
            "    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5)\n",
            _OPTIMIZER_AND_SCHEDULE,
        ),
        ("    for step in range(20):\n        optimizer.step(closure)\n", _UNTIL_SPENT),
    ),
    "epochs": _plain("torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)", 12),
    "finetuning": ByHand(
        _FINETUNING.optimizers,
        (
            "        optimizer.step()\n    return test",
            "        optimizer.step()\n        schedule.step()\n    return test",
        ),
    ),
    "gan": ByHand(
        (
            "    g_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3,"
            " betas=(0.5, 0.999))\n"
            "    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3,"
            " betas=(0.5, 0.999))\n",
            "    g_optimizer = build_optimizer(generator, 'generator')\n"
            "    d_optimizer = build_optimizer(discriminator, 'discriminator')\n",
        )
    ),
    "iterable": _plain(_ADAMW),
    "lightning": ByHand(
        (
            "        return torch.optim.Adam(self.parameters(), lr=1e-3)\n",
            "        optimizer = build_optimizer(self)\n"
            "        schedule = build_schedule(optimizer)\n"
            '        return [optimizer], [{"scheduler": schedule, "interval": "step"}]\n',
        )
    ),
    "lightning_manual": ByHand(
        (
            "        adams = [torch.optim.Adam(part.parameters(), lr=1e-3) for part in parts]\n"
            "        return adams, [torch.optim.lr_scheduler.ExponentialLR(adam, 0.99)"
            " for adam in adams]\n",
            "        names = ('generator', 'discriminator')\n"
            "        adams = [build_optimizer(*pair) for pair in zip(parts, names)]\n"
            "        return adams, [build_schedule(adam) for adam in adams]\n",
        )
    ),
    "steps": _plain(_ADAMW),
    "transformers": ByHand(
        (
            "    trainer.train()\n",
            "    optimizer = trainer.optimizer = build_optimizer(trainer.model)\n"
            "    trainer.lr_scheduler = build_schedule(optimizer)\n"
            "    trainer.train()\n",
        )
    ),
}
BY_HAND["transformers_metrics"] = BY_HAND["transformers"]

METRICS = {"transformers": "eval_loss", "transformers_metrics": "eval_accuracy"}

each_example = pytest.mark.parametrize("name", BY_HAND)


def read(name: str, script: str) -> list[str]:
    return (EXAMPLES / name / script).read_text().splitlines()


def without_call(name: str) -> list[str]:
    """Returns a script without the lines at its end that run it at once."""
    text = (EXAMPLES / name / "before.py").read_text()
    return text.partition("\n\nif __name__")[0].splitlines()


def count_changes(name: str) -> int:
    """Returns how many lines of a script change, but for what runs it without a study."""
    before, after = without_call(name), read(name, "train.py")
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    changed = 0
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal":
            sides = (before[a:b], after[c:d])
            changed += max(sum(bool(line.strip()) for line in side) for side in sides)
    return changed


def call(folder: Path, *command: str) -> str:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "TUNER_HOME": str(folder / "home"),
        "PYTHONWARNINGS": "default",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_tested() -> None:
    there = {path.parent.name for path in EXAMPLES.glob("*/before.py")}
    assert there == set(BY_HAND)


@each_example
def test_few_lines_change(name: str) -> None:
    assert 0 < count_changes(name) <= AT_MOST


def test_the_list_of_examples_counts_their_lines() -> None:
    table = (EXAMPLES / "README.md").read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \| .* \| (\d+) \|$", table, flags=re.MULTILINE))
    assert {name: int(listed[name]) for name in BY_HAND} == {
        name: count_changes(name) for name in BY_HAND
    }


@pytest.mark.parametrize("name", ["lightning", "lightning_manual", "transformers", "accelerate"])
def test_the_documentation_shows_the_lines_that_change(name: str) -> None:
    page = (ROOT / "docs/integrations.md").read_text()
    shown = re.findall(r"^```diff\n(.*?)\n^```", page, flags=re.DOTALL | re.MULTILINE)
    assert diff(name) in shown


def diff(name: str) -> str:
    """Returns the lines that change, each with the line before and after it."""
    before, after = without_call(name), read(name, "train.py")
    lines = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
    return "\n".join("@@" if line.startswith("@@") else line.rstrip() for line in lines)


@pytest.mark.slow
@each_example
def test_it_is_tuned_and_its_winner_put_back_by_hand_gives_its_value(
    name: str, tmp_path: Path
) -> None:
    for script in ("before.py", "train.py", "study.toml"):
        shutil.copy(EXAMPLES / name / script, tmp_path)
    command = (sys.executable, "-m", "tuner")
    call(
        tmp_path,
        *command,
        "run",
        "study.toml",
        "--set",
        "budget.trials=4",
        "--workers",
        "1",
        "--quiet",
    )
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not [name for name in written if "ckpt" in name or "metrics" in name]
    assert not list(tmp_path.glob("out/*")) + list(tmp_path.glob("lightning_logs/*"))

    call(tmp_path, *command, "study", "export", name, "--output", "winner.py")
    winner = tuner.best(name, f"sqlite:///{tmp_path / 'tuner.db'}")
    by_hand = BY_HAND[name].apply((tmp_path / "before.py").read_text())
    (tmp_path / "by_hand.py").write_text(by_hand)
    said = call(tmp_path, sys.executable, "by_hand.py")
    metric = METRICS.get(name, "val_loss")
    [value] = re.findall(rf"^{metric}=(\S+)$", said, flags=re.MULTILINE)
    assert float(value) == pytest.approx(winner.value, rel=1e-4)
