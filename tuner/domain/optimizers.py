"""The catalog's optimizers: one row each, with ranges, priors, defaults, sources and references.

Sources of ranges: AP, the search spaces of MLCommons' algorithmic-efficiency baselines; SIV, the
priors of Sivaprasad et al., "Optimizer Benchmarking Needs to Account for Hyperparameter Tuning"
(ICML 2020); PB, Google's deep learning tuning playbook; MU, Jordan's Muon; J, our judgement.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tuner.domain.calls import Call
from tuner.domain.dimensions import Float, Value
from tuner.domain.hyperparameters import (
    BELOW_ONE,
    FINE,
    LR,
    MAIN,
    NOT_NEGATIVE,
    POSITIVE,
    Hyperparameter,
    LogNormalPrior,
)


@dataclass(frozen=True)
class OptimizerRow:
    """One optimizer: what it is, what torch calls it, and how it is searched.

    Attributes:
        name: Its name in study files.
        target: Import path of its torch class.
        summary: One sentence on when to use it.
        equation: Its update rule, g being the gradient.
        reference: Where it was published.
        hyperparameters: Its knobs.
        arguments: Arguments of the torch class that are the same in every trial.
        helper: Import path of the optimizer for whatever is not a matrix, for an optimizer
            that takes matrices only; its arguments are the hyperparameters prefixed with its
            lower-case class name.
    """

    name: str
    target: str
    summary: str
    equation: str
    reference: str
    hyperparameters: tuple[Hyperparameter, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    helper: str | None = None

    def decode(self, point: dict[str, Value]) -> dict[str, Value]:
        """Returns every hyperparameter in torch's form, defaults filled in."""
        return {knob.name: knob.decode(point) for knob in self.hyperparameters}

    def calls(self, values: dict[str, Value]) -> tuple[Call, ...]:
        """Returns the constructors that make up this optimizer.

        Args:
            values: Hyperparameters in torch's form, as :meth:`decode` gives them.

        >>> OPTIMIZERS["adam"].calls(OPTIMIZERS["adam"].decode({"lr": 0.01}))[0].arguments
        {'lr': 0.01, 'eps': 1e-08, 'weight_decay': 0.0, 'betas': (0.9, 0.999)}
        """
        if self.helper is None:
            return (Call(self.target, _pair_betas(values) | self.arguments),)
        prefix = self.helper.rpartition(".")[2].lower() + "_"
        own_values = {k: v for k, v in values.items() if not k.startswith(prefix)}
        helper_values = {
            k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)
        }
        return (
            Call(self.target, _pair_betas(own_values) | self.arguments, parameters="matrices"),
            Call(self.helper, _pair_betas(helper_values), parameters="others"),
        )


def _pair_betas(values: dict[str, Value]) -> dict[str, Any]:
    arguments: dict[str, Any] = {k: v for k, v in values.items() if k not in ("beta1", "beta2")}
    if "beta1" in values:
        arguments["betas"] = (values["beta1"], values["beta2"])
    return arguments


def _log(low: float, high: float) -> Float:
    return Float(low=low, high=high, log=True)


def _sgd_knobs(mean: float, std: float) -> tuple[Hyperparameter, ...]:
    return (
        Hyperparameter(
            "lr",
            1e-3,
            _log(1e-3, 1.0),
            "J; prior SIV",
            LR,
            bounds=POSITIVE,
            prior=LogNormalPrior(mean, std),
        ),
        Hyperparameter(
            "weight_decay", 0.0, _log(1e-7, 5e-5), "AP", FINE, bounds=NOT_NEGATIVE, switch=True
        ),
    )


_MOMENTUM = Hyperparameter(
    "momentum", 0.9, _log(0.005, 0.3), "AP", MAIN, bounds=BELOW_ONE, complement=True
)

OPTIMIZERS: dict[str, OptimizerRow] = {
    row.name: row
    for row in (
        OptimizerRow(
            "sgd",
            "torch.optim.SGD",
            "The baseline: one knob, no state, and the clearest sign of a badly scaled problem.",
            "p ← p − lr·g",
            "Robbins and Monro, A Stochastic Approximation Method, 1951",
            _sgd_knobs(-2.10, 1.31),
        ),
        OptimizerRow(
            "momentum",
            "torch.optim.SGD",
            "Well-normalised networks, above all in vision, when lr and momentum are tuned.",
            "m ← μ·m + g;  p ← p − lr·m",
            "Polyak, Some methods of speeding up the convergence of iteration methods, 1964",
            (*_sgd_knobs(-2.38, 1.41), _MOMENTUM),
        ),
        OptimizerRow(
            "nesterov",
            "torch.optim.SGD",
            "As momentum, with a look ahead that allows a little more momentum.",
            "m ← μ·m + g;  p ← p − lr·(g + μ·m)",
            "Sutskever et al., On the importance of initialization and momentum, ICML 2013",
            (*_sgd_knobs(-2.38, 1.41), _MOMENTUM),
            {"nesterov": True},
        ),
        OptimizerRow(
            "adagrad",
            "torch.optim.Adagrad",
            "Sparse features and convex problems; its steps only ever shrink.",
            "s ← s + g²;  p ← p − lr·g/(√s + ε)",
            "Duchi, Hazan and Singer, Adaptive Subgradient Methods, JMLR 2011",
            (
                Hyperparameter(
                    "lr",
                    1e-2,
                    _log(1e-3, 1.0),
                    "J; prior SIV",
                    LR,
                    bounds=POSITIVE,
                    prior=LogNormalPrior(-2.0, 1.2),
                ),
                Hyperparameter("eps", 1e-10, _log(1e-10, 1e-3), "J", FINE, bounds=NOT_NEGATIVE),
            ),
        ),
        OptimizerRow(
            "rmsprop",
            "torch.optim.RMSprop",
            "Recurrent networks and reinforcement learning, where gradients change scale.",
            "s ← α·s + (1−α)·g²;  p ← p − lr·g/(√s + ε)",
            "Tieleman and Hinton, Neural Networks for Machine Learning, lecture 6.5, 2012",
            (
                Hyperparameter("lr", 1e-2, _log(1e-4, 0.1), "J", LR, bounds=POSITIVE),
                Hyperparameter(
                    "alpha", 0.99, _log(1e-3, 0.3), "J", MAIN, bounds=BELOW_ONE, complement=True
                ),
                Hyperparameter("eps", 1e-8, _log(1e-8, 1.0), "J", FINE, bounds=NOT_NEGATIVE),
            ),
        ),
        OptimizerRow(
            "adam",
            "torch.optim.Adam",
            "The usual first try: works over a wide band of learning rates.",
            "m ← β₁m + (1−β₁)g;  s ← β₂s + (1−β₂)g²;  p ← p − lr·m̂/(√ŝ + ε)",
            "Kingma and Ba, Adam, ICLR 2015",
            (
                Hyperparameter(
                    "lr",
                    1e-3,
                    _log(1e-4, 0.1),
                    "J; prior SIV",
                    LR,
                    bounds=POSITIVE,
                    prior=LogNormalPrior(-2.7, 1.42),
                ),
                Hyperparameter(
                    "beta1", 0.9, _log(0.02, 0.5), "AP", MAIN, bounds=BELOW_ONE, complement=True
                ),
                Hyperparameter(
                    "beta2", 0.999, _log(1e-5, 0.1), "SIV", FINE, bounds=BELOW_ONE, complement=True
                ),
                Hyperparameter("eps", 1e-8, _log(1e-8, 1.0), "SIV", FINE, bounds=NOT_NEGATIVE),
                Hyperparameter(
                    "weight_decay",
                    0.0,
                    _log(1e-7, 5e-5),
                    "AP",
                    FINE,
                    bounds=NOT_NEGATIVE,
                    switch=True,
                ),
            ),
        ),
        OptimizerRow(
            "adamw",
            "torch.optim.AdamW",
            "Transformers and anything that needs regularisation: decay acts apart from the step.",
            "as Adam, and p ← p − lr·λ·p",
            "Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019",
            (
                Hyperparameter(
                    "lr", 1e-3, _log(1e-4, 0.1), "AP, widened for small models", LR, bounds=POSITIVE
                ),
                Hyperparameter(
                    "beta1", 0.9, _log(0.02, 0.5), "AP", MAIN, bounds=BELOW_ONE, complement=True
                ),
                Hyperparameter(
                    "weight_decay", 0.01, _log(0.005, 1.0), "AP", MAIN, bounds=NOT_NEGATIVE
                ),
                Hyperparameter(
                    "beta2", 0.999, _log(1e-5, 0.1), "SIV", FINE, bounds=BELOW_ONE, complement=True
                ),
                Hyperparameter("eps", 1e-8, _log(1e-8, 1.0), "SIV", FINE, bounds=NOT_NEGATIVE),
            ),
        ),
        OptimizerRow(
            "muon",
            "torch.optim.Muon",
            "Hidden matrices of larger networks; AdamW trains whatever is not a matrix.",
            "m ← μ·m + (1−μ)·g;  p ← p − lr·NewtonSchulz(g + μ·(m − g))",
            "Jordan et al., Muon, 2024",
            (
                Hyperparameter("lr", 1e-3, _log(5e-3, 0.1), "MU", LR, bounds=POSITIVE),
                Hyperparameter(
                    "momentum", 0.95, _log(0.01, 0.3), "J", MAIN, bounds=BELOW_ONE, complement=True
                ),
                Hyperparameter("adamw_lr", 1e-3, _log(1e-4, 3e-3), "MU", MAIN, bounds=POSITIVE),
                Hyperparameter(
                    "weight_decay", 0.1, _log(1e-3, 0.3), "MU", FINE, bounds=NOT_NEGATIVE
                ),
            ),
            helper="torch.optim.AdamW",
        ),
    )
}
