"""Prints what published curves, and those of the bench's own tables, say about pausing trials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.search.published import halving, ranks, schedules, sets, transfer
from benchmarks.search.published.sets import CurveSet
from benchmarks.search.tables import STUDY_LENGTHS, Table
from benchmarks.search.workloads import WORKLOADS

SHARES = (0.1, 0.2, 0.3, 0.5)
_REPEATS = 200
_OWN_REPEATS = 21
_SIZES = (1, 2, 3, 5)
_SCHEDULES = ("constant", "step", "linear", "cosine", "stable_decay", None)

Cells = Sequence[str]


def report() -> None:
    """Prints a table a question; without published curves, those of the bench alone."""
    folder = sets.curves_folder()
    if folder is None:
        print("The data folder holds no curves/: set TUNER_DATA to one that does.\n")
    else:
        print("\n\n".join(tell_published(folder)), end="\n\n")
    print("\n\n".join(tell_own([Table.load(name) for name in WORKLOADS])))


def tell_published(folder: Path) -> Iterator[str]:
    """Yields the tables of published curves.

    Args:
        folder: The folder of published curves.
    """
    taskset, deepobs = sets.load_taskset(folder), sets.load_deepobs(folder)
    step_back = sets.load_step_back(folder)
    every = [*taskset, *deepobs, *step_back, *sets.load_algoperf(folder)]
    yield tell_ranks(every)
    yield tell_stopping([*taskset, *deepobs])
    yield tell_lengths(folder)
    yield tell_portfolios(taskset)
    yield tell_rates([*deepobs, *step_back])
    yield tell_optimizers(deepobs)
    yield tell_opt_list(folder)


def tell_ranks(every: Sequence[CurveSet]) -> str:
    """Returns how well parts of training tell its end, by source and schedule."""
    groups = defaultdict(list)
    for one in every:
        groups[one.source, one.schedule].append(one)
    rows = []
    for (source, schedule), own in groups.items():
        row = [source, schedule, str(len(own)), _spread([len(one.names) for one in own])]
        row += [_mean(ranks.correlate(_at(one, s), _at(one, 1)) for one in own) for s in SHARES]
        row += [_mean(ranks.hold(_at(one, s), _at(one, 1)) for one in own) for s in SHARES]
        both = [ranks.survive([_at(one, 0.2), _at(one, 0.5)], _at(one, 1)) for one in own]
        rows.append([*row, f"{np.median(both):.3f}", f"{max(both):.3f}"])
    head = ["source", "schedule", "tasks", "runs of each"]
    head += [f"rank at {s:.0%}" for s in SHARES] + [f"held at {s:.0%}" for s in SHARES]
    return _table("Does the rank during training tell the end?", [*head, "left", "worst"], rows)


def tell_stopping(every: Sequence[CurveSet]) -> str:
    """Returns the training until a run is as good as the best of 60, by rule, in full runs."""
    found = [halving.race(one.costs[:, 1::2], _REPEATS) for one in every]
    rows = [
        [f"{one.source} {one.task}", *(f"{spent:.1f}" for spent in own)]
        for one, own in zip(every, found, strict=True)
    ]
    rows.append(["**geometric mean**", *_geometric(found)])
    title = "Full runs' worth until one is as good as the best of 60, in random order"
    return _table(title, ["task", *halving.RULES], rows)


def tell_lengths(folder: Path) -> str:
    """Returns how short and cut trainings of a small Llama rank its learning rates."""
    groups = defaultdict(list)
    for (schedule, _, _), losses in schedules.load_lengths(folder).items():
        groups[schedule].append(np.array(losses).T)
    rows = []
    for schedule, own in sorted(groups.items()):
        row = [schedule, str(len(own)), _spread([len(last) for _, _, last in own])]
        for early in (0, 1):
            lost = [one[2][one[early].argmin()] - one[2].min() for one in own]
            row += [
                _mean(ranks.correlate(one[early], one[2]) for one in own),
                f"{sum(loss == 0 for loss in lost)} of {len(own)}",
                f"{np.mean(lost):.3f}",
            ]
        rows.append(row)
    head = ["schedule", "pairs of lengths", "rates"]
    head += [
        f"{what}, {how}" for how in ("cut", "short") for what in ("rank", "best found", "lost")
    ]
    return _table("Llama of 124M: cut or short?", head, rows)


def tell_portfolios(taskset: Sequence[CurveSet]) -> str:
    """Returns how good portfolios of other families are, against as many random draws."""
    found = transfer.try_portfolios(taskset, _SIZES)
    rows = [
        [one.task, *(f"{place:.3f}" for place in places)]
        for one, places in zip(taskset, found, strict=True)
    ]
    means = np.exp(np.log(found).mean(0))
    rows.append(["**geometric mean**", *(f"{mean:.3f}" for mean in means)])
    rows.append(["random draws", *(f"{1 / (size + 1):.3f}" for size in _SIZES)])
    head = ["task", *(f"first {size}" for size in _SIZES)]
    return _table("TaskSet: the place of the best of a portfolio", head, rows)


def tell_rates(every: Sequence[CurveSet]) -> str:
    """Returns where the best published rates lie, and whether tuner's ranges hold them."""
    groups = defaultdict(list)
    for found in transfer.find_best_rates(every):
        groups[found.optimizer].append(found)
    rows = []
    for name, own in groups.items():
        rates = sorted(one.rate for one in own)
        out = [f"{one.task} ({one.rate:.1g})" for one in own if not one.in_range]
        rows.append(
            [
                name,
                str(len(own)),
                f"{rates[0]:.1g}",
                f"{float(np.median(rates)):.1g}",
                f"{rates[-1]:.1g}",
                ", ".join(out) or "none",
            ]
        )
    head = ["optimizer", "tasks", "least", "median", "most", "outside tuner's range"]
    return _table("The best constant rates", head, rows)


def tell_optimizers(deepobs: Sequence[CurveSet]) -> str:
    """Returns the mean ranks of optimizers, each at its best rate, during training."""
    found = transfer.rank_optimizers(deepobs, (0.2, 0.5))
    rows = [[name, *(f"{rank:.2f}" for rank in own)] for name, own in found.items()]
    return _table(
        "DeepOBS: mean ranks of optimizers", ["optimizer", "at 20%", "at 50%", "end"], rows
    )


def tell_opt_list(folder: Path) -> str:
    """Returns what the first configurations of TaskSet's ordered list have in common."""
    sizes = (10, 50, 200, 1000)
    found = transfer.describe_opt_list(folder, sizes)
    rows = [
        [str(size), *(f"{share:.0%}" for share in own[:3]), *(f"{10**q:.1g}" for q in own[3:])]
        for size, own in zip(sizes, found, strict=True)
    ]
    head = ["first", "warm up", "decay to 1% or less", "constant for half"]
    return _table(
        "TaskSet's ordered list of NAdamW", [*head, "rate, lower quartile", "median", "upper"], rows
    )


def tell_own(tables: Sequence[Table]) -> Iterator[str]:
    """Yields the tables of the bench's own workloads: rungs, and short against cut trainings.

    Args:
        tables: Tables of trained configurations.
    """
    rows = []
    for steps in STUDY_LENGTHS:
        for schedule in _SCHEDULES:
            found = schedules.compare_rungs(tables, schedule, steps)
            rows.append(
                [
                    schedule or "**all together**",
                    str(steps),
                    *(_number(one[0]) for one in found),
                    *(_number(one[1]) for one in found),
                ]
            )
    head = [f"rank at {s:.0%}" for s in SHARES] + [f"held at {s:.0%}" for s in SHARES]
    yield _table("The bench: by schedule and length", ["schedule", "steps", *head], rows)
    rows = []
    for steps, shorter in ((180, 60), (180, 20), (540, 180), (540, 60), (540, 20)):
        for schedule in _SCHEDULES:
            own = schedules.compare_lengths(tables, schedule, steps, shorter)
            rows.append(
                [schedule or "**all together**", str(steps), str(shorter), *map(_number, own)]
            )
    head = ["schedule", "steps", "of them", "rank, cut", "rank, short", "held, cut", "held, short"]
    yield _table("The bench: cut or short?", head, rows)
    rows = []
    for steps in STUDY_LENGTHS:
        for own_schedule in _SCHEDULES:
            found = [
                halving.race(schedules.thin_table(table, own_schedule, steps), _OWN_REPEATS)
                for table in tables
            ]
            rows.append([own_schedule or "**all together**", str(steps), *_geometric(found)])
    title = "The bench: full runs' worth until one is as good as the best of 60, in random order"
    yield _table(title, ["schedule", "steps", *halving.RULES], rows)


def _geometric(rows: Sequence[Sequence[float]]) -> list[str]:
    """Returns the geometric means of columns; what is never reached counts as 100."""
    return [f"{mean:.1f}" for mean in np.exp(np.log(np.minimum(rows, 100)).mean(0))]


def _at(one: CurveSet, share: float) -> sets.Matrix:
    """Returns the costs of runs at a part of their training."""
    costs: sets.Matrix = one.costs[:, round(share * one.costs.shape[1]) - 1]
    return costs


def _mean(values: Iterator[float]) -> str:
    return _number(float(np.nanmean([*values])))


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-0.", "-.").removeprefix("0")


def _spread(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)}–{max(counts)}"


def _table(title: str, head: Cells, rows: Sequence[Cells]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([f"**{title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])
