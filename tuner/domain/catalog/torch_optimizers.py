"""The optimizers of torch: one row each, with ranges, priors, defaults, sources and references.

Sources of ranges: AP, the search spaces of MLCommons' algorithmic-efficiency baselines; SIV, the
priors of Sivaprasad et al., "Optimizer Benchmarking Needs to Account for Hyperparameter Tuning"
(ICML 2020); PB, Google's deep learning tuning playbook; MU, Jordan's Muon; J, our judgement; TB,
tuner's own bench (``python -m benchmarks.search learn``, half the way from SIV).
"""

from __future__ import annotations

from dataclasses import replace

from tuner.domain.catalog import finetuning
from tuner.domain.catalog.dimensions import Choice, Float
from tuner.domain.catalog.hyperparameters import (
    ASKED,
    BELOW_ONE,
    BETWEEN,
    COUNT,
    FINE,
    MAIN,
    NOT_NEGATIVE,
    POSITIVE,
    Bounds,
    Finetuning,
    Hyperparameter,
    LogNormalPrior,
    below_one,
    beta,
    log_range,
    momentum,
    rate,
    weight_decay,
)
from tuner.domain.catalog.optimizer_row import NONE, OptimizerRow


def _helper_rate(
    name: str, axis: Float, source: str, prior: LogNormalPrior | None = None
) -> Hyperparameter:
    """Returns the learning rate of the optimizer beside one that cannot train all parameters."""
    return Hyperparameter(
        name,
        1e-3,
        axis,
        source,
        MAIN,
        prior=prior,
        bounds=POSITIVE,
        argument="lr",
        owner="helper",
        finetuning=finetuning.HELPER,
    )


def _sgd_hyperparameters(mean: float, tuned: Finetuning) -> tuple[Hyperparameter, ...]:
    return (
        rate(1e-3, 1e-3, 1.0, "J; prior TB", LogNormalPrior(mean, 0.7), finetuning=tuned),
        weight_decay(0.0, 1e-7, 5e-5, "AP", FINE),
    )


_MOMENTUM = momentum(0.9, 0.005, 0.3, "AP", bounds=BELOW_ONE)
_NESTEROV_MOMENTUM = momentum(0.9, 0.005, 0.3, "AP", bounds=BETWEEN)


def _adam_hyperparameters(lr: float, *others: Hyperparameter) -> tuple[Hyperparameter, ...]:
    return (
        rate(lr, 1e-4, 0.3, "J; prior TB", LogNormalPrior(-2.19, 0.7), finetuning=finetuning.ADAM),
        beta(1, 0.9, 0.02, 0.5, MAIN, source="AP", bounds=BELOW_ONE),
        beta(2, 0.999, 1e-5, 0.1, FINE, source="SIV", bounds=BELOW_ONE),
        Hyperparameter("eps", 1e-8, log_range(1e-8, 1.0), "SIV", FINE, bounds=NOT_NEGATIVE),
        weight_decay(0.0, 1e-7, 5e-5, "AP", FINE),
        *others,
    )


TORCH_ROWS = (
    OptimizerRow(
        "sgd",
        "torch.optim.SGD",
        "The baseline: one knob, no state, and the clearest sign of a badly scaled problem.",
        "p ← p − lr·g",
        "Robbins and Monro, A Stochastic Approximation Method, 1951",
        _sgd_hyperparameters(-1.26, finetuning.SGD),
    ),
    OptimizerRow(
        "momentum",
        "torch.optim.SGD",
        "Well-normalised networks, above all in vision, when lr and momentum are tuned.",
        "m ← μ·m + g;  p ← p − lr·m",
        "Polyak, Some methods of speeding up the convergence of iteration methods, 1964",
        (*_sgd_hyperparameters(-1.77, finetuning.MOMENTUM), _MOMENTUM),
        generalises=("sgd",),  # at momentum 0; a small one averages over few steps
    ),
    OptimizerRow(
        "nesterov",
        "torch.optim.SGD",
        "As momentum, with a look ahead that allows a little more momentum.",
        "m ← μ·m + g;  p ← p − lr·(g + μ·m)",
        "Sutskever et al., On the importance of initialization and momentum, ICML 2013",
        (*_sgd_hyperparameters(-1.77, finetuning.MOMENTUM), _NESTEROV_MOMENTUM),
        {"nesterov": True},
        generalises=("sgd",),  # as momentum does
    ),
    OptimizerRow(
        "adagrad",
        "torch.optim.Adagrad",
        "Sparse features and convex problems; its steps only ever shrink.",
        "s ← s + g²;  p ← p − lr·g/(√s + ε)",
        "Duchi, Hazan and Singer, Adaptive Subgradient Methods, JMLR 2011",
        (
            rate(
                1e-2,
                1e-3,
                1.0,
                "J; prior TB",
                LogNormalPrior(-1.42, 0.7),
                finetuning=finetuning.ADAGRAD,
            ),
            Hyperparameter("eps", 1e-10, log_range(1e-10, 1e-3), "J", FINE, bounds=NOT_NEGATIVE),
        ),
    ),
    OptimizerRow(
        "rmsprop",
        "torch.optim.RMSprop",
        "Recurrent networks and reinforcement learning, where gradients change scale.",
        "s ← α·s + (1−α)·g²;  p ← p − lr·g/(√s + ε)",
        "Tieleman and Hinton, Neural Networks for Machine Learning, lecture 6.5, 2012",
        (
            rate(
                1e-2,
                1e-4,
                0.1,
                "J; prior TB",
                LogNormalPrior(-2.25, 0.7),
                finetuning=finetuning.ADAM_LIKE,
            ),
            below_one("alpha", 0.99, 1e-3, 0.3, "J", MAIN),
            Hyperparameter("eps", 1e-8, log_range(1e-8, 1.0), "J", FINE, bounds=NOT_NEGATIVE),
        ),
    ),
    OptimizerRow(
        "adam",
        "torch.optim.Adam",
        "The usual first try: works over a wide band of learning rates.",
        "m ← β₁m + (1−β₁)g;  s ← β₂s + (1−β₂)g²;  p ← p − lr·m̂/(√ŝ + ε)",
        "Kingma and Ba, Adam, ICLR 2015",
        _adam_hyperparameters(1e-3),
    ),
    OptimizerRow(
        "adamw",
        "torch.optim.AdamW",
        "Transformers and anything that needs regularisation: decay acts apart from the step.",
        "as Adam, and p ← p − lr·λ·p",
        "Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019",
        (
            rate(
                1e-3,
                1e-4,
                0.3,
                "AP, widened for small models; prior TB",
                LogNormalPrior(-2.1, 0.7),
                finetuning=finetuning.ADAM,
            ),
            beta(1, 0.9, 0.02, 0.5, MAIN, source="AP", bounds=BELOW_ONE),
            replace(weight_decay(0.01, 0.005, 1.0, "AP", MAIN), finetuning=finetuning.DECAY),
            beta(2, 0.999, 1e-5, 0.1, FINE, source="SIV", bounds=BELOW_ONE),
            Hyperparameter("eps", 1e-8, log_range(1e-8, 1.0), "SIV", FINE, bounds=NOT_NEGATIVE),
        ),
        generalises=("adam",),  # both at weight decay 0; theirs are small
    ),
    OptimizerRow(
        "muon",
        "torch.optim.Muon",
        "Hidden matrices of larger networks; AdamW trains vectors, embeddings and the output.",
        "m ← μ·m + (1−μ)·g;  p ← p − lr·NewtonSchulz(g + μ·(m − g))",
        "Jordan et al., Muon, 2024",
        (
            rate(
                1e-3,
                5e-3,
                0.5,
                "MU, widened for small models; prior TB",
                LogNormalPrior(-1.44, 0.7),
                finetuning=finetuning.MUON,
            ),
            momentum(0.95, 0.01, 0.3, bounds=BELOW_ONE),
            _helper_rate(
                "adamw_lr",
                log_range(1e-4, 0.1),
                "MU, widened for small models; prior TB",
                LogNormalPrior(-2.3, 0.79),
            ),
            weight_decay(0.1, 1e-3, 0.3, "MU", FINE),
            Hyperparameter(
                "matrices",
                "hidden",
                Choice(choices=("hidden", "all")),
                "MU",
                ASKED,
                owner="parameters",
            ),
        ),
        takes="matrices",
        helper="torch.optim.AdamW",
    ),
    OptimizerRow(
        "adamax",
        "torch.optim.Adamax",
        "As Adam where rare large gradients would shrink its steps, as in embeddings.",
        "m ← β₁m + (1−β₁)g;  u ← max(β₂u, |g| + ε);  p ← p − lr·m̂/u",
        "Kingma and Ba, Adam, ICLR 2015",
        _adam_hyperparameters(2e-3),
    ),
    OptimizerRow(
        "nadam",
        "torch.optim.NAdam",
        "As Adam, with Nesterov's look ahead in place of plain momentum.",
        "as Adam, with μ_t growing towards β₁ and a step along μ_{t+1}m̂ + (1−μ_t)ĝ",
        "Dozat, Incorporating Nesterov Momentum into Adam, ICLR workshop 2016",
        _adam_hyperparameters(
            2e-3,
            Hyperparameter(
                "momentum_decay", 4e-3, log_range(1e-4, 1e-1), "J", FINE, bounds=NOT_NEGATIVE
            ),
        ),
    ),
    OptimizerRow(
        "radam",
        "torch.optim.RAdam",
        "As Adam without a warmup: its first steps wait until the variance is known.",
        "as Adam, the adaptive step scaled by r_t once it is defined",
        "Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020",
        _adam_hyperparameters(1e-3),
    ),
    OptimizerRow(
        "adafactor",
        "torch.optim.Adafactor",
        "Large matrices in little memory: second moments are kept by row and column.",
        "s ≈ row(s)·col(s)/mean(s);  p ← p − lr·max(ε₂, rms(p))·clip(g/√s)",
        "Shazeer and Stern, Adafactor, ICML 2018",
        (
            rate(1e-2, 1e-4, 1e-2, "AP", finetuning=finetuning.ADAFACTOR),
            weight_decay(0.0, 1e-3, 1.0, "AP", FINE),
        ),
    ),
    OptimizerRow(
        "adadelta",
        "torch.optim.Adadelta",
        "When no learning rate is known at all: steps take the units of past updates.",
        "s ← ρs + (1−ρ)g²;  Δ = g·√(d+ε)/√(s+ε);  d ← ρd + (1−ρ)Δ²;  p ← p − lr·Δ",
        "Zeiler, ADADELTA, 2012",
        (
            rate(1.0, 1e-2, 10.0, "J"),
            below_one("rho", 0.9, 1e-3, 0.5, "J", MAIN),
            Hyperparameter("eps", 1e-6, log_range(1e-8, 1e-4), "J", FINE, bounds=NOT_NEGATIVE),
        ),
    ),
    OptimizerRow(
        "asgd",
        "torch.optim.ASGD",
        "Convex problems to high precision: a decaying rate beside an averaged iterate.",
        "p ← p·(1 − λη_t) − η_t·g;  η_t = lr/(1 + λ·lr·t)^α",
        "Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992",
        (
            rate(
                1e-2,
                1e-3,
                1.0,
                "J; prior SIV",
                LogNormalPrior(-2.10, 1.31),
                finetuning=finetuning.SGD,
            ),
            Hyperparameter("lambd", 1e-4, log_range(1e-6, 1e-2), "J", MAIN, bounds=NOT_NEGATIVE),
            Hyperparameter("alpha", 0.75, Float(low=0.5, high=1.0), "J", FINE, bounds=NOT_NEGATIVE),
        ),
        generalises=("sgd",),  # as lambd goes to 0, the rate stays and nothing decays
    ),
    OptimizerRow(
        "rprop",
        "torch.optim.Rprop",
        "Full batches only: it uses the signs of gradients and suffers from their noise.",
        "Δ ← Δ·(η⁺ if signs agree else η⁻);  p ← p − sign(g)·Δ",
        "Riedmiller and Braun, RPROP, ICNN 1993",
        (
            rate(1e-2, 1e-4, 0.1, "J"),
            Hyperparameter(
                "etaminus",
                0.5,
                Float(low=0.3, high=0.7),
                "J",
                MAIN,
                bounds=Bounds(0, 1, open_low=True, open_high=True),
                argument="etas",
                place=0,
            ),
            Hyperparameter(
                "etaplus",
                1.2,
                Float(low=1.05, high=1.5),
                "J",
                MAIN,
                bounds=Bounds(1, open_low=True),
                argument="etas",
                place=1,
            ),
        ),
    ),
    OptimizerRow(
        "lbfgs",
        "torch.optim.LBFGS",
        "Small smooth problems in large batches; each of its steps costs many gradients. Its "
        "default here is a line search with four iterations a batch: torch's own default, without "
        "line search, diverges on mini-batches.",
        "p ← p − lr·H·g, H from the last differences of p and g",
        "Liu and Nocedal, On the limited memory BFGS method, Mathematical Programming 1989",
        (
            rate(1.0, 0.1, 1.0, "J"),
            Hyperparameter(
                "line_search_fn", "strong_wolfe", Choice(choices=(NONE, "strong_wolfe")), "J", MAIN
            ),
            Hyperparameter("max_iter", 4, Choice(choices=(4, 10, 20)), "J", MAIN, bounds=COUNT),
            Hyperparameter(
                "history_size", 100, Choice(choices=(5, 10, 20, 100)), "J", FINE, bounds=COUNT
            ),
        ),
        closure=True,
        groups=False,
    ),
    OptimizerRow(
        "sparse_adam",
        "torch.optim.SparseAdam",
        "Large embeddings with sparse gradients, of which a batch touches few rows; Adam "
        "trains the rest.",
        "as Adam, on the rows that a batch touches",
        "Kingma and Ba, Adam, ICLR 2015",
        (
            rate(
                1e-3,
                1e-4,
                0.1,
                "J; prior SIV",
                LogNormalPrior(-2.7, 1.42),
                finetuning=finetuning.ADAM_LIKE,
            ),
            beta(1, 0.9, 0.02, 0.5, MAIN, source="AP", bounds=BELOW_ONE),
            _helper_rate("adam_lr", log_range(1e-4, 0.1), "J"),
            beta(2, 0.999, 1e-5, 0.1, FINE, source="SIV", bounds=BELOW_ONE),
            Hyperparameter("eps", 1e-8, log_range(1e-8, 1.0), "SIV", FINE, bounds=POSITIVE),
        ),
        takes="sparse",
        helper="torch.optim.Adam",
    ),
)
