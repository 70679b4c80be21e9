"""Optimizers that are not torch's: YellowFin, Lookahead, and those of pytorch-optimizer asked for.

Ranges belong to these implementations; others of the same name may scale differently. Sources of
ranges beside those of torch's rows: SF, the authors of schedule-free optimization.
"""

from __future__ import annotations

from dataclasses import replace

from tuner.domain.catalog import finetuning
from tuner.domain.catalog.dimensions import Choice, Fixed, Float, Int
from tuner.domain.catalog.hyperparameters import (
    BETWEEN,
    COUNT,
    FINE,
    FRACTION,
    LR,
    MAIN,
    NOT_NEGATIVE,
    POSITIVE,
    Bounds,
    Hyperparameter,
    as_beta,
    beta,
    log_range,
    rate,
    weight_decay,
)
from tuner.domain.catalog.optimizer_row import OptimizerRow
from tuner.domain.catalog.torch_optimizers import TORCH_ROWS

LOOKAHEAD = "tuner.optim.Lookahead"
_ZHANG = "Zhang et al., Lookahead Optimizer: k steps forward, 1 step back, NeurIPS 2019"


def _lookahead_hyperparameters(k: int) -> tuple[Hyperparameter, ...]:
    return (
        Hyperparameter(
            "lookahead_k",
            k,
            Int(low=1, high=20),
            "J",
            MAIN,
            bounds=COUNT,
            argument="k",
            owner="wrapper",
        ),
        Hyperparameter(
            "lookahead_alpha",
            0.5,
            Float(low=0.2, high=0.8),
            "J",
            MAIN,
            bounds=Bounds(0, 1, open_low=True),
            argument="alpha",
            owner="wrapper",
        ),
    )


def lookahead(row: OptimizerRow) -> OptimizerRow:
    """Returns an optimizer with Lookahead around it, whose ``k`` and ``alpha`` join the search."""
    return replace(
        row,
        name=f"lookahead({row.name})",
        summary=f"Steadier than {row.name} alone: every k steps, weights that follow slowly are "
        "where it goes on.",
        equation=f"{row.equation};  every k steps φ ← φ + α(p − φ), p ← φ",
        reference=f"{_ZHANG}; {row.reference}",
        hyperparameters=(*row.hyperparameters, *_lookahead_hyperparameters(5)),
        wrapper=LOOKAHEAD,
        generalises=(row.name,),  # at k = 1 it is that one, at alpha times the learning rate
    )


def _averaging_momentum(name: str) -> Hyperparameter:
    """Returns the share of the averaged weights in those that schedule-free methods train."""
    axis = Choice(choices=(0.9, 0.95, 0.98))
    return Hyperparameter(name, 0.9, axis, "SF", MAIN, bounds=BETWEEN, is_momentum=True)


def _ranger() -> OptimizerRow:
    [radam] = [row for row in TORCH_ROWS if row.name == "radam"]
    return replace(
        lookahead(radam),
        name="ranger",
        summary="RAdam in Lookahead: no warmup to set, and steadier than Adam.",
        reference="Wright, Ranger, 2019; Liu et al., ICLR 2020; Zhang et al., NeurIPS 2019",
        hyperparameters=(*radam.hyperparameters, *_lookahead_hyperparameters(6)),
    )


COMPOSED_ROWS = (
    OptimizerRow(
        "yellowfin",
        "tuner.optim.YellowFin",
        "Momentum that tunes itself: it measures curvature and noise, and sets learning rate and "
        "momentum by them; what is left to search is a factor.",
        "μ, α from h_min, h_max, C, D;  m ← μ·m − α·lr_factor·g;  p ← p + m",
        "Zhang and Mitliagkas, YellowFin and the Art of Momentum Tuning, MLSys 2019",
        (
            Hyperparameter("lr_factor", 1.0, log_range(0.1, 10.0), "J", LR, bounds=POSITIVE),
            Hyperparameter("beta", 0.999, Choice(choices=(0.99, 0.999)), "J", MAIN, bounds=BETWEEN),
            Hyperparameter("window", 20, Choice(choices=(10, 20, 50)), "J", MAIN, bounds=COUNT),
        ),
        rate="lr_factor",
        slow_start=lambda values: 10 * int(values["window"]),
    ),
    _ranger(),
    OptimizerRow(
        "prodigy",
        "pytorch_optimizer.Prodigy",
        "When no learning rate is known: it estimates one, Adam's, from how far it has come.",
        "as Adam with step d;  d ← max(d, d_coef·Σ β₃-weighted d·⟨g, p₀ − p⟩ / ‖Σ d·g‖₁)",
        "Mishchenko and Defazio, Prodigy, ICML 2024",
        (
            Hyperparameter("d_coef", 1.0, log_range(0.5, 2.0), "J", LR, bounds=POSITIVE),
            beta(1, 0.9, 0.02, 0.5, MAIN),
            weight_decay(0.0, 1e-3, 1.0, breadth=MAIN),
            beta(2, 0.999, 1e-4, 0.1),
            Hyperparameter("lr", 1.0, Fixed(value=1.0), "J", FINE, bounds=POSITIVE),
        ),
        grows=False,
    ),
    OptimizerRow(
        "dadapt_adam",
        "pytorch_optimizer.DAdaptAdam",
        "When no learning rate is known: Adam, its rate from a lower bound on the distance to go.",
        "as Adam with step d;  d ← max(d, Σ d·⟨g, s⟩ / ‖s‖₁), s the weighted sum of gradients",
        "Defazio and Mishchenko, Learning-Rate-Free Learning by D-Adaptation, ICML 2023",
        (
            rate(1.0, 0.5, 2.0),
            beta(1, 0.9, 0.02, 0.5, MAIN),
            beta(2, 0.999, 1e-4, 0.1),
            weight_decay(0.0, 1e-7, 5e-5),
        ),
        grows=False,
    ),
    OptimizerRow(
        "schedulefree_sgd",
        "pytorch_optimizer.ScheduleFreeSGD",
        "Runs of unknown length: averaging takes the place of a schedule, so constant fits, with "
        "some warmup.",
        "y = βx + (1−β)z;  z ← z − lr·g(y);  x ← (1 − c_t)x + c_t·z",
        "Defazio et al., The Road Less Scheduled, NeurIPS 2024",
        (
            rate(1.0, 1e-2, 50.0, "SF", finetuning=finetuning.FREE_SGD),
            _averaging_momentum("momentum"),
            weight_decay(0.0, 1e-7, 5e-5),
        ),
        averages=True,
        switches=True,
    ),
    OptimizerRow(
        "schedulefree_adamw",
        "pytorch_optimizer.ScheduleFreeAdamW",
        "AdamW for runs of unknown length: averaging takes the place of a schedule, so constant "
        "fits, with some warmup.",
        "y = βx + (1−β)z;  z ← z − lr·g(y)/(√ŝ + ε);  x ← (1 − c_t)x + c_t·z",
        "Defazio et al., The Road Less Scheduled, NeurIPS 2024",
        (
            rate(2.5e-3, 1e-4, 1.0, "SF", finetuning=finetuning.FREE_ADAM),
            as_beta(_averaging_momentum("beta1"), 1),
            weight_decay(0.0, 0.005, 1.0, breadth=MAIN),
            beta(2, 0.999, 1e-4, 0.1),
        ),
        averages=True,
        switches=True,
    ),
    OptimizerRow(
        "lion",
        "pytorch_optimizer.Lion",
        "Large batches and little memory: steps are signs, so it wants a small rate and much "
        "decay.",
        "p ← p − lr·(sign(β₁m + (1−β₁)g) + λp);  m ← β₂m + (1−β₂)g",
        "Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023",
        (
            rate(1e-4, 1e-5, 1e-2, finetuning=finetuning.LION),
            beta(1, 0.9, 0.02, 0.5, MAIN),
            weight_decay(0.0, 0.015, 10.0, breadth=MAIN),
            beta(2, 0.99, 1e-3, 0.1),
        ),
    ),
    OptimizerRow(
        "soap",
        "pytorch_optimizer.SOAP",
        "Where a step may cost more than Adam's: Adam along the eigenvectors of Shampoo's "
        "preconditioner.",
        "L ← βL + (1−β)gg';  R ← βR + (1−β)g'g;  Adam on Q_L'·g·Q_R, turned back",
        "Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, ICLR 2025",
        (
            rate(3e-3, 1e-4, 0.1, finetuning=finetuning.ADAM_LIKE),
            beta(1, 0.95, 0.01, 0.5, MAIN),
            weight_decay(0.01, 1e-3, 1.0, breadth=MAIN),
            beta(2, 0.95, 1e-3, 0.3),
            Hyperparameter(
                "precondition_frequency", 10, Choice(choices=(1, 10, 50)), "J", FINE, bounds=COUNT
            ),
        ),
    ),
    OptimizerRow(
        "adabelief",
        "pytorch_optimizer.AdaBelief",
        "As Adam, with larger steps where gradients come as expected.",
        "m ← β₁m + (1−β₁)g;  s ← β₂s + (1−β₂)(g − m)² + ε;  p ← p − lr·m̂/(√ŝ + ε)",
        "Zhuang et al., AdaBelief Optimizer, NeurIPS 2020",
        (
            rate(1e-3, 1e-4, 0.1, finetuning=finetuning.ADAM_LIKE),
            beta(1, 0.9, 0.02, 0.5, MAIN),
            weight_decay(0.0, 0.005, 1.0, breadth=MAIN),
            beta(2, 0.999, 1e-4, 0.1),
            Hyperparameter("eps", 1e-16, log_range(1e-16, 1e-8), "J", FINE, bounds=POSITIVE),
        ),
    ),
    OptimizerRow(
        "adan",
        "pytorch_optimizer.Adan",
        "As Adam with Nesterov's look ahead, from differences of gradients; it bears large rates.",
        "m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)Δg;  s ← β₃s + (1−β₃)(g + β₂Δg)²;  "
        "p ← p − lr·(m̂ + β₂v̂)/(√ŝ + ε)",
        "Xie et al., Adan: Adaptive Nesterov Momentum Algorithm, TPAMI 2024",
        (
            rate(1e-3, 1e-4, 0.1, finetuning=finetuning.ADAM_LIKE),
            beta(1, 0.98, 0.005, 0.3, MAIN),
            beta(2, 0.92, 0.01, 0.5),
            beta(3, 0.99, 1e-3, 0.3),
            weight_decay(0.0, 1e-3, 1.0),
        ),
    ),
    OptimizerRow(
        "lamb",
        "pytorch_optimizer.Lamb",
        "Very large batches: each layer's step is as long as its weights allow.",
        "r as Adam's step, + λp;  p ← p − lr·(‖p‖/‖r‖)·r, layer by layer",
        "You et al., Large Batch Optimization for Deep Learning, ICLR 2020",
        (
            rate(1e-3, 1e-4, 0.1, finetuning=finetuning.ADAM_LIKE),
            beta(1, 0.9, 0.02, 0.5, MAIN),
            weight_decay(0.0, 1e-3, 1.0, breadth=MAIN),
            beta(2, 0.999, 1e-4, 0.1),
        ),
    ),
    OptimizerRow(
        "ranger21",
        "pytorch_optimizer.Ranger21",
        "Many tricks at once, with a warmup of its own and a descent over the last 28% of the "
        "steps, in which no schedule and no group's multiplier acts: constant fits.",
        "AdamW with positive-negative momentum, clipped and centred gradients, Lookahead",
        "Wright and Demeure, Ranger21, 2021",
        (
            rate(1e-3, 1e-4, 0.1, finetuning=finetuning.ADAM_LIKE),
            beta(1, 0.9, 0.02, 0.5, MAIN),
            weight_decay(1e-4, 1e-5, 0.1),
            beta(2, 0.999, 1e-4, 0.1),
            Hyperparameter("lookahead_merge_time", 5, Int(low=1, high=20), "J", FINE, bounds=COUNT),
            Hyperparameter(
                "lookahead_blending_alpha",
                0.5,
                Float(low=0.2, high=0.8),
                "J",
                FINE,
                bounds=FRACTION,
            ),
        ),
        length_argument="num_iterations",
        averages=True,
    ),
    OptimizerRow(
        "ademamix",
        "pytorch_optimizer.AdEMAMix",
        "Long runs: Adam with a second, slow momentum that remembers thousands of steps.",
        "m ← β₁m + (1−β₁)g;  n ← β₃n + (1−β₃)g;  p ← p − lr·(m̂ + α·n)/(√ŝ + ε)",
        "Pagliardini, Ablin and Grangier, The AdEMAMix Optimizer, ICLR 2025",
        (
            rate(1e-3, 1e-4, 0.1, finetuning=finetuning.ADAM_LIKE),
            beta(1, 0.9, 0.02, 0.5, MAIN),
            beta(3, 0.9999, 1e-5, 1e-2, MAIN),
            Hyperparameter("alpha", 5.0, Float(low=1.0, high=10.0), "J", MAIN, bounds=NOT_NEGATIVE),
            beta(2, 0.999, 1e-4, 0.1),
            weight_decay(0.0, 1e-7, 5e-5),
        ),
    ),
)
