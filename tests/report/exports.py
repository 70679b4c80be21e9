"""The exports that are kept as golden files; ``python -m tests.report.exports`` writes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.report.summaries import make_spec, summary_of, trial
from tuner.domain.catalog.dimensions import Value
from tuner.report.code import to_python

GOLDEN = Path(__file__).parent / "golden"

BY_EPOCH = {"schedule_by": "epoch"}
AVERAGING = {"average": {"choices": ["none", "ema", "swa"]}}
WARMING = {"momentum_warmup": {"choices": [0, 0.25]}}
FROZEN = {"name": "backbone", "match": "0.*", "lr_multiplier": 0.5, "frozen_until": 0.5}
HEAD = {"name": "head", "match": "2.weight", "weight_decay": 0.3, "momentum": 0.5}


def export(
    optimizer: str,
    schedule: str,
    params: dict[str, Value] | None = None,
    attributes: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    **tables: Any,
) -> str:
    """Returns the Python of a study whose best trial is this one."""
    space = {"optimizers": [optimizer], "schedules": [schedule]}
    record = trial(7, optimizer, 0.25, schedule=schedule, params=params)
    record = replace(record, attributes={**record.attributes, **(attributes or {})})
    spec = make_spec(space=space, train=train or {}, **tables)
    return to_python(summary_of(record, spec=spec))


def exports() -> dict[str, str]:
    """Returns the exports by the names of their files."""
    return {
        "adam_cosine": export("adam", "cosine", {"adam.lr": 0.02, "cosine.warmup": 0.1}),
        "momentum_groups": export(
            "momentum",
            "step",
            {"momentum.lr": 0.1},
            train={"groups": [FROZEN, HEAD], "no_decay_on_biases_and_norms": True},
        ),
        "lookahead_by_epoch": export(
            "lookahead(adam)",
            "linear",
            {"linear.warmup": 0.5},
            {"epoch_steps": 7},
            BY_EPOCH | {"grad_clip": 1.0},
        ),
        "adamw_average": export(
            "adamw",
            "constant",
            {"average": "swa", "momentum_warmup": 0.25},
            train=AVERAGING | WARMING,
        ),
        "own_loop": export(
            "adam",
            "one_cycle",
            {"network.maker.adam.lr": 0.25},
            {
                "networks": ["maker", "judge"],
                "schedule_calls": [
                    {"calls": 10, "steps": 3, "optimizer_steps": 3},
                    {"calls": 10, "steps": 1, "optimizer_steps": 1},
                ],
                "unread": ["batch_size"],
                "stopped_early": "no gain",
                "total_steps": 60,
            },
            network={"maker": {"adam": {"lr": {"low": 0.1, "high": 0.9}}}},
        ),
        "muon_hidden": export("muon", "cosine_restarts", {"muon.lr": 0.02}),
        "yellowfin_plateau": export("yellowfin", "plateau", {"plateau.warmup": 0.1}),
        "lion_frozen": export("lion", "cosine", train={"groups": [FROZEN]}),
        "lbfgs_closure": export(
            "lbfgs", "plateau", {"average": "ema", "plateau.warmup": 0.1}, train=AVERAGING
        ),
    }


if __name__ == "__main__":
    for name, source in exports().items():
        (GOLDEN / f"{name}.py").write_text(source, encoding="utf-8")
