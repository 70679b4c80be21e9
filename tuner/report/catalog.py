"""The catalog as a page: every optimizer and schedule with its ranges, and schedules drawn."""

from __future__ import annotations

import html
from collections.abc import Iterable

from tuner.domain.catalog.averages import AVERAGES, NO_AVERAGE, AverageRow
from tuner.domain.catalog.dimensions import Fixed, format_value
from tuner.domain.catalog.hyperparameters import ASKED, Hyperparameter
from tuner.domain.catalog.optimizers import OPTIMIZERS, OptimizerRow
from tuner.domain.catalog.pytorch_optimizer import PACKAGE, REFUSED
from tuner.domain.catalog.schedules import CONSTANT, SCHEDULES, ScheduleRow
from tuner.domain.regimes import FINETUNE

COLUMNS = ("hyperparameter", "default", "searched as", "range", "prior", "source", "breadth")

FINETUNING_COLUMNS = ("hyperparameter", "range", "prior", "source", "breadth")

SOURCES = {
    "AP": "the search spaces of MLCommons' algorithmic-efficiency baselines",
    "SIV": "priors of Sivaprasad et al., *Optimizer Benchmarking Needs to Account for "
    "Hyperparameter Tuning*, ICML 2020",
    "PB": "Google's deep learning tuning playbook",
    "MU": "Jordan's Muon",
    "SF": "the authors of schedule-free optimization",
    "TB": "this bench of ours, half the way from SIV: `python -m benchmarks.search learn`",
    "torch": "the default of PyTorch",
    "J": "our judgement",
}
"""The meaning of each source of ranges."""

FINETUNING_SOURCES = {
    "DV": "Devlin et al., *BERT*, NAACL 2019: Adam, 2e-5 to 5e-5, a tenth of warmup",
    "RB": "Liu et al., *RoBERTa*, 2019: 1e-5 to 3e-5, warmup of 0.06, decay of 0.1",
    "KO": "Kornblith et al., *Do Better ImageNet Models Transfer Better?*, CVPR 2019: Nesterov "
    "momentum, 1e-4 to 0.1",
    "VT": "Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021: momentum, 1e-3 to 0.06",
    "QL": "Dettmers et al., *QLoRA*, NeurIPS 2023: AdamW, 1e-4 to 2e-4",
    "T5": "Raffel et al., *T5*, JMLR 2020: Adafactor, 1e-3",
    "J": "our judgement",
}
"""The meaning of each source of ranges for trained weights."""

_AVERAGING = {name: row for name, row in AVERAGES.items() if name != NO_AVERAGE}

_BARS = "▁▂▃▄▅▆▇█"
# Where a metric might stop improving, so that a schedule that follows it can be drawn.
_STALLS = (0.4, 0.7)


def describe_knob(knob: Hyperparameter) -> tuple[str, ...]:
    """Returns a hyperparameter's row of cells, one for each of :data:`COLUMNS`."""
    searched = knob.dimension.describe() + (" or off" if knob.switch else "")
    return (
        knob.name,
        format_value(knob.default),
        knob.search_name,
        "fixed" if isinstance(knob.dimension, Fixed) else searched,
        knob.prior.describe() if knob.prior else "–",
        knob.source,
        "–" if knob.breadth == ASKED else str(knob.breadth),
    )


def explain_knobs(row: OptimizerRow | ScheduleRow) -> str:
    """Returns in one line the meaning of the priors and sources that a row's ranges name."""
    told = " ".join(knob.source for knob in row.hyperparameters).replace(";", " ").split()
    meanings = [f"{key}: {text.replace('*', '')}" for key, text in SOURCES.items() if key in told]
    if any(knob.prior for knob in row.hyperparameters):
        meanings.insert(0, "10^N(m, s): the decimal logarithm is normal, of mean m and deviation s")
    return "; ".join([*meanings, "more in docs/optimizers.md"])


def sample_factor(row: ScheduleRow, points: int) -> list[float]:
    """Returns the learning rate's factor at every step of a trial, by a schedule's defaults.

    Args:
        row: The schedule; one that follows the metric is drawn as if it stopped improving twice.
        points: Steps of the trial, at least 1.
    """
    values = row.decode({})
    factor = row.factor(values, points)
    curve = [factor(step) for step in range(points)]
    if row.follows_metric:
        cut = float(values["factor"])
        stalls = [stall * points for stall in _STALLS]
        curve = [
            value * cut ** sum(step >= stall for stall in stalls)
            for step, value in enumerate(curve)
        ]
    return curve


def sample_momentum(row: ScheduleRow, points: int) -> list[float] | None:
    """Returns the momentum at every step of a trial, or None where the schedule leaves it alone."""
    momentum = row.momentum(row.decode({}), points)
    return momentum and [momentum(step) for step in range(points)]


def to_sparkline(values: Iterable[float]) -> str:
    """Returns values between 0 and 1 as one line of bars.

    >>> to_sparkline([0.0, 0.3, 0.5, 1.0])
    '▁▃▅█'
    """
    top = len(_BARS) - 1
    return "".join(_BARS[min(top, max(0, int(value * top + 0.5)))] for value in values)


def to_markdown() -> str:
    """Returns the text of ``docs/optimizers.md``."""
    sources = "; ".join(f"**{key}** {meaning}" for key, meaning in SOURCES.items())
    lines = [
        "# Optimizers and schedules",
        "",
        "<!-- Written by `make docs` from the catalog; a test fails where the two differ. -->",
        "",
        "This page lists what `tuner` can search: equation, reference, and the range of every "
        "hyperparameter. `tuner optimizers NAME` and `tuner schedules NAME` show the same in a "
        "terminal. A study file can replace any range or fix any value.",
        "",
        "**Reading the tables.** Hyperparameters are spelled as torch spells them, `betas` as "
        "`beta1` and `beta2`; *searched as* `one_minus_beta1` means 1 − beta1 on a logarithmic "
        "scale. `log[a, b]` is a logarithmic range, `{a, b}` a choice, and *or off* adds a switch "
        "that turns the hyperparameter off. `10^N(m, s)` is a prior: the decimal logarithm of "
        "good values is believed to be normal with mean m and standard deviation s. *Breadth* is "
        "the smallest breadth of search that includes the hyperparameter: 1 for learning rates "
        "alone, 2 for the usual few, 3 for everything; what is not searched keeps its default.",
        "",
        f"**Sources of ranges.** {sources}.",
        "",
        f"Optimizers: {_links(OPTIMIZERS)}, and what [names compose](#composed-by-name).",
        "",
        f"Schedules: {_links(SCHEDULES)}",
        "",
        f"Averages: {_links(_AVERAGING)}",
        "",
        "## Optimizers",
        "",
        "p is a parameter, g its gradient, λ the weight decay.",
        "",
    ]
    for optimizer in OPTIMIZERS.values():
        lines += [*_section(optimizer, _optimizer_notes(optimizer)), ""]
    lines += [*_composed(), "## Schedules", ""]
    lines += [
        "",
        "A schedule is a factor on the learning rate of every parameter group, here over a trial "
        "from its defaults; `plateau` as if the metric stopped improving twice. Dashed: the "
        "momentum, or Adam's beta1, that it sets where the optimizer has one above 0.",
        "",
        "![The factor of every schedule over a trial](images/schedules.svg)",
        "",
        "Durations are fractions of a full trial, so a pruned trial has followed the schedule of a "
        "full one. In the equations x is the fraction of the steps after warmup taken. During "
        "warmup the factor rises linearly to where the schedule starts. Stepped by epoch "
        "(`train.schedule_by`), time is counted in epochs instead of steps, and a warmup shorter "
        "than two epochs does nothing.",
        "",
    ]
    for schedule in SCHEDULES.values():
        lines += [*_section(schedule, _schedule_notes(schedule)), ""]
    lines += [
        "## Averages",
        "",
        "`train.average` may be `none` or one of these: an average a of the weights w, with which "
        "a trial is evaluated once averaging has begun; n counts the updates before. `start` is "
        "the fraction of a full trial after which it begins, `interval` the steps between updates.",
        "",
    ]
    for average in _AVERAGING.values():
        lines += [*_section(average, [f"`{average.target}`."]), ""]
    lines += _finetuning()
    return "\n".join(lines).rstrip() + "\n"


def to_svg() -> str:
    """Returns the text of ``docs/images/schedules.svg``: one small graph for each schedule."""
    columns, width, height = 4, 190, 120
    rows = -(-len(SCHEDULES) // columns)
    panels = [
        f'<g transform="translate({index % columns * width} {index // columns * height})">'
        f"{_panel(row, width, height)}</g>"
        for index, row in enumerate(SCHEDULES.values())
    ]
    size = f'width="{columns * width}" height="{rows * height}"'
    box = f'viewBox="0 0 {columns * width} {rows * height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} font-family="sans-serif">',
            "<title>The factor of every schedule over a trial</title>",
            "<style>",
            "text { font-size: 12px; fill: #1f2328 } path { fill: none; stroke-width: 2 }",
            ".frame { stroke: #afb8c1; stroke-width: 1 } .factor { stroke: #0969da }",
            ".momentum { stroke: #bc4c00; stroke-width: 1.5; stroke-dasharray: 4 3 }",
            "@media (prefers-color-scheme: dark) {",
            "text { fill: #e6edf3 } .frame { stroke: #57606a } .factor { stroke: #58a6ff }",
            ".momentum { stroke: #f0883e } }",
            "</style>",
            *panels,
            "</svg>",
            "",
        ]
    )


def describe_finetuning(knob: Hyperparameter) -> str:
    """Returns in words how a hyperparameter is searched on trained weights; empty for as usual."""
    if knob.finetuning is None:
        return ""
    tuned = knob.searched_in(FINETUNE)
    prior = f", {tuned.prior.describe()}" if tuned.prior else ""
    return f"{tuned.name} {tuned.dimension.describe()}{prior} ({tuned.source})"


def _finetuning() -> list[str]:
    """Returns the lines of the section on the regime of trained weights."""
    sources = "; ".join(f"**{key}** {meaning}" for key, meaning in FINETUNING_SOURCES.items())
    rows: list[OptimizerRow | ScheduleRow] = [*OPTIMIZERS.values(), SCHEDULES[CONSTANT]]
    cells = [
        (
            f"`{row.name}.{knob.name}`" if row.name != CONSTANT else f"`{knob.name}` of schedules",
            tuned.dimension.describe(),
            tuned.prior.describe() if tuned.prior else "–",
            tuned.source,
            str(tuned.breadth),
        )
        for row in rows
        for knob in row.hyperparameters
        if knob.finetuning is not None
        for tuned in (knob.searched_in(FINETUNE),)
    ]
    rules = ["---" for _ in FINETUNING_COLUMNS]
    table = [f"| {' | '.join(line)} |" for line in (FINETUNING_COLUMNS, rules, *cells)]
    return [
        "## Fine-tuning",
        "",
        'With `space.regime = "finetune"` these ranges and priors hold instead of those above; '
        "all others stay. They come from publications, and none has been measured on tuner's own "
        "bench, which trains from scratch. An optimizer that is taken from pytorch-optimizer by "
        "name is searched from a thousandth to three times its default.",
        "",
        f"**Sources.** {sources}.",
        "",
        *table,
    ]


def _composed() -> list[str]:
    """Returns the lines of the section on composed optimizers, such as ``lookahead(sgd)``."""
    row = OPTIMIZERS["lookahead(momentum)"]
    own = {knob.name for knob in OPTIMIZERS["momentum"].hyperparameters}
    knobs = [knob for knob in row.hyperparameters if knob.name not in own]
    refused = "; ".join(f"{name}: {reason}" for name, reason in REFUSED.items())
    return [
        "## Composed by name",
        "",
        "`lookahead(NAME)` is Lookahead around any optimizer but `lbfgs` and those that average "
        "by themselves: every k steps slow weights φ move the fraction α towards the optimizer's "
        "weights, which go on from there. It is searched over the optimizer's own "
        "hyperparameters and these.",
        "",
        row.reference.partition(";")[0],
        "",
        *_table(knobs),
        "",
        "`pytorch_optimizer:NAME` is any optimizer of pytorch-optimizer "
        "(`pip install 'tuner[optimizers]'`) that an ordinary training loop can run. One with a "
        "section above is searched over the ranges there, any other around its own defaults: its "
        "learning rate, over three decades, its momentum or betas and its weight decay.",
        "",
        " · ".join(PACKAGE),
        "",
        f"These are refused. {refused}.",
        "",
    ]


def _table(knobs: Iterable[Hyperparameter]) -> list[str]:
    rules = ["---" for _ in COLUMNS]
    cells = [
        (f"`{name}`", default, f"`{searched}`", *rest)
        for name, default, searched, *rest in map(describe_knob, knobs)
    ]
    return [f"| {' | '.join(line)} |" for line in (COLUMNS, rules, *cells)]


def _links(names: Iterable[str]) -> str:
    return " · ".join(f"[{name}](#{name})" for name in names)


def _section(row: OptimizerRow | ScheduleRow | AverageRow, notes: list[str]) -> list[str]:
    return [
        f"### {row.name}",
        "",
        " ".join([row.summary, *notes]),
        "",
        f"`{row.equation}`",
        "",
        *([] if row.reference == "–" else [row.reference, ""]),
        *_table(row.hyperparameters),
    ]


def _optimizer_notes(row: OptimizerRow) -> list[str]:
    arguments = "".join(f", `{name}={value}`" for name, value in row.arguments.items())
    around = f" in `{row.wrapper}`" if row.wrapper is not None else ""
    notes = [f"`{row.target}`{arguments}{around}."]
    if row.helper is not None:
        notes.append(f"With `{row.helper}` for the parameters it does not take.")
    if row.takes == "matrices":
        notes.append(
            'With `matrices = "hidden"` it leaves out embeddings, layers that share their '
            "weights, and the output layer (the `Linear` that the model names last), unless no "
            'other matrix trains; with `"all"` it takes every matrix. Try `"all"` in a network of '
            "two or three layers: on `models.digits` the best of 16 trials had a loss of 0.006 to "
            '0.012 with it, and of 0.030 to 0.038 with `"hidden"` (three seeds).'
        )
    if row.closure:
        notes.append("Budgets and schedules count each computation of the loss as a step.")
    if row.rate != "lr":
        notes.append(f"Schedules and the multipliers of groups act on `{row.rate}`.")
    if row.slow_start(row.decode({})):
        steps = row.slow_start(row.decode({}))
        notes.append(f"No trial of it is pruned in its first {steps} steps, its slow start.")
    if row.switches:
        notes.append("It evaluates other weights than it trains.")
    if row.package == "pytorch_optimizer":
        notes.append("It needs `pip install 'tuner[optimizers]'`.")
    return notes


def _schedule_notes(row: ScheduleRow) -> list[str]:
    if row.follows_metric:
        return ["It needs the metric after every evaluation."]
    if row.cycles_momentum:
        return ["It sets the momentum or beta1, so the optimizer's own has no effect."]
    return []


def _panel(row: ScheduleRow, width: int, height: int) -> str:
    left, top, right, bottom = 14, 26, width - 14, height - 12

    def line(values: list[float], kind: str) -> str:
        step = (right - left) / (len(values) - 1)
        points = [
            f"{left + at * step:.1f} {bottom - value * (bottom - top):.1f}"
            for at, value in enumerate(values)
        ]
        return f'<path class="{kind}" d="M{" L".join(points)}"/>'

    points = 2 * (right - left) + 1
    momentum = sample_momentum(row, points)
    return "".join(
        [
            f'<text x="{left}" y="{top - 10}">{html.escape(row.name)}</text>',
            f'<path class="frame" d="M{left} {top} V{bottom} H{right}"/>',
            line(momentum, "momentum") if momentum else "",
            line(sample_factor(row, points), "factor"),
        ]
    )
