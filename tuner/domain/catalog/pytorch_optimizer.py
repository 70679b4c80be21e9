"""The optimizers of the package pytorch-optimizer: those that can be searched, and those refused.

Nothing of the package is imported, so that a study can be read where it is not installed; a test
holds the table to the package. Names may be written in any case, as the package allows.
"""

from __future__ import annotations

from typing import NamedTuple

from tuner.domain.catalog import finetuning
from tuner.domain.catalog.hyperparameters import MAIN, beta, momentum, rate, weight_decay
from tuner.domain.catalog.optimizer_row import OptimizerRow

PREFIX = "pytorch_optimizer:"
"""The prefix of the package's optimizers in a study file."""


class Defaults(NamedTuple):
    """The defaults of an optimizer of the package, and how it behaves in a training loop.

    Attributes:
        lr: Its learning rate.
        weight_decay: Its weight decay; None where it has none.
        momentum: Its momentum; None where it has none, or one of 0.
        betas: Its betas; None where it has not exactly two.
        averages: Whether it averages its iterates by itself.
        switches: Whether it trains other weights than it evaluates.
        grows: Whether parameters may join it in mid-run.
    """

    lr: float
    weight_decay: float | None = 0.0
    momentum: float | None = None
    betas: tuple[float, float] | None = None
    averages: bool = False
    switches: bool = False
    grows: bool = True


_ADAM = (0.9, 0.999)

PACKAGE: dict[str, Defaults] = {
    "AccSGD": Defaults(0.001),
    "AdaBelief": Defaults(0.001, betas=_ADAM),
    "AdaBound": Defaults(0.001, betas=_ADAM),
    "AdaDelta": Defaults(1.0),
    "AdaFactor": Defaults(0.001, betas=_ADAM),
    "AdaGC": Defaults(0.001, weight_decay=0.1, betas=_ADAM),
    "Adai": Defaults(0.001, betas=(0.1, 0.99)),
    "Adalite": Defaults(0.001, weight_decay=0.01, betas=_ADAM),
    "AdaMax": Defaults(0.001, betas=_ADAM),
    "AdamC": Defaults(0.001, betas=_ADAM),
    "AdamG": Defaults(1.0),
    "AdaMod": Defaults(0.001),
    "AdamP": Defaults(0.001, betas=_ADAM),
    "AdamS": Defaults(0.001, weight_decay=0.0001, betas=_ADAM),
    "AdamWSN": Defaults(0.001, betas=_ADAM),
    "Adan": Defaults(0.001),
    "AdaNorm": Defaults(0.001, betas=(0.9, 0.99)),
    "AdaPNM": Defaults(0.001),
    "AdaSmooth": Defaults(0.001, betas=(0.5, 0.99)),
    "AdaTAM": Defaults(0.001, betas=_ADAM),
    "AdEMAMix": Defaults(0.001),
    "ADOPT": Defaults(0.001, betas=(0.9, 0.9999)),
    "AggMo": Defaults(0.001),
    "Aida": Defaults(0.001, betas=_ADAM),
    "Alice": Defaults(0.02),
    "Amos": Defaults(0.001, weight_decay=None),
    "Ano": Defaults(0.0001, betas=(0.92, 0.99)),
    "APOLLO": Defaults(0.01, betas=_ADAM),
    "ApolloDQN": Defaults(0.01),
    "ASGD": Defaults(0.01),
    "AvaGrad": Defaults(0.1, betas=_ADAM),
    "BCOS": Defaults(0.001, weight_decay=0.1),
    "CAME": Defaults(0.0002),
    "DAdaptAdaGrad": Defaults(1.0, grows=False),
    "DAdaptAdam": Defaults(1.0, betas=_ADAM, grows=False),
    "DAdaptAdan": Defaults(1.0, grows=False),
    "DAdaptLion": Defaults(1.0, betas=_ADAM, grows=False),
    "DAdaptSGD": Defaults(1.0, momentum=0.9, grows=False),
    "DASH": Defaults(0.001, betas=(0.9, 0.95)),
    "DiffGrad": Defaults(0.001, betas=_ADAM),
    "DualAdam": Defaults(0.001, betas=_ADAM),
    "EmoFact": Defaults(0.001, weight_decay=0.01, betas=_ADAM),
    "EmoLynx": Defaults(0.001, weight_decay=0.01, betas=(0.9, 0.99)),
    "EmoNavi": Defaults(0.001, weight_decay=0.01, betas=_ADAM),
    "EXAdam": Defaults(0.001, betas=_ADAM),
    "FAdam": Defaults(0.001, weight_decay=0.1, betas=_ADAM),
    "Fira": Defaults(0.001, betas=_ADAM),
    "FlashAdamW": Defaults(0.001, weight_decay=0.01, betas=_ADAM),
    "FOCUS": Defaults(0.01, betas=_ADAM),
    "Fromage": Defaults(0.01, weight_decay=None),
    "FTRL": Defaults(0.001, weight_decay=None),
    "GaLore": Defaults(0.001, betas=_ADAM),
    "Grams": Defaults(0.001, betas=_ADAM),
    "Gravity": Defaults(0.01, weight_decay=None),
    "GrokFastAdamW": Defaults(0.0001, betas=(0.9, 0.99)),
    "Kate": Defaults(0.001),
    "Kron": Defaults(0.001, momentum=0.9),
    "Lamb": Defaults(0.001, betas=_ADAM),
    "LaProp": Defaults(0.0004, betas=_ADAM),
    "LARS": Defaults(0.001, momentum=0.9),
    "Lion": Defaults(0.0001, betas=(0.9, 0.99)),
    "LoRARite": Defaults(0.001, betas=_ADAM),
    "MADGRAD": Defaults(0.001, momentum=0.9),
    "MARS": Defaults(0.003, betas=(0.95, 0.99)),
    "MSVAG": Defaults(0.01, weight_decay=None),
    "Nero": Defaults(0.01, weight_decay=None),
    "NovoGrad": Defaults(0.001, betas=(0.95, 0.98)),
    "PAdam": Defaults(0.1, betas=_ADAM),
    "PID": Defaults(0.001),
    "PNM": Defaults(0.001),
    "Prodigy": Defaults(1.0, betas=_ADAM),
    "QHAdam": Defaults(0.001, betas=_ADAM),
    "QHM": Defaults(0.001),
    "RACS": Defaults(0.001),
    "RAdam": Defaults(0.001, betas=_ADAM),
    "Ranger": Defaults(0.001, betas=(0.95, 0.999), averages=True),
    "Ranger21": Defaults(0.001, weight_decay=0.0001, betas=_ADAM, averages=True),
    "ROSE": Defaults(0.001, weight_decay=0.0001),
    "ScheduleFreeAdamW": Defaults(0.0025, betas=_ADAM, averages=True, switches=True),
    "ScheduleFreeRAdam": Defaults(0.0025, betas=_ADAM, averages=True, switches=True),
    "ScheduleFreeSGD": Defaults(1.0, momentum=0.9, averages=True, switches=True),
    "SGDP": Defaults(0.001),
    "SGDSaI": Defaults(0.01, weight_decay=0.01, momentum=0.9),
    "SGDW": Defaults(0.0001),
    "Shampoo": Defaults(0.001),
    "SignSGD": Defaults(0.001, momentum=0.9),
    "SimplifiedAdEMAMix": Defaults(0.0001, betas=(0.99, 0.95)),
    "SM3": Defaults(0.1, weight_decay=None),
    "SOAP": Defaults(0.003, weight_decay=0.01, betas=(0.95, 0.95)),
    # It clips parameters that join later by a second moment of zero.
    "SPAM": Defaults(0.001, betas=_ADAM, grows=False),
    "SPlus": Defaults(0.1, weight_decay=0.01, betas=_ADAM, averages=True, switches=True),
    "SRMM": Defaults(0.01, weight_decay=None),
    "StableAdamW": Defaults(0.001, weight_decay=0.01, betas=(0.9, 0.99)),
    "StableSPAM": Defaults(0.001, betas=_ADAM),
    "SWATS": Defaults(0.001, betas=_ADAM),
    "TAM": Defaults(0.001, momentum=0.9),
    "Tiger": Defaults(0.001, weight_decay=0.01),
    "VSGD": Defaults(0.1),
    "Yogi": Defaults(0.01, betas=_ADAM),
}
"""The optimizers that run in an ordinary training loop, by class."""

_TORCH = "it is torch's own: write {!r}"
_TWICE = "it takes two steps, with a gradient each, where a training loop takes one"
_MODEL = "it takes a model and its layers apart, not parameters"
_HESSIAN = "it differentiates gradients again, which needs loss.backward(create_graph=True)"
_MUON = "it needs parameter groups marked use_muon: write 'muon', which is torch's"
_PICKLED = "its state holds Python objects, which a checkpoint does not keep"
_WRAPS = "it wraps an optimizer, and has no name of its own"

REFUSED: dict[str, str] = {
    "A2Grad": "it has no learning rate to search",
    "AdaGO": _MUON,
    "AdaHessian": _HESSIAN,
    "AdaLOMO": _MODEL,
    "Adam": _TORCH.format("adam"),
    "AdamMini": _MODEL,
    "AdaMuon": _MUON,
    "AdamW": _TORCH.format("adamw"),
    "AdaShift": _PICKLED,
    "AliG": "it has no learning rate to search, and needs a closure",
    "BSAM": _TWICE,
    "Conda": _PICKLED,
    "DeMo": "it trains several processes at once, and needs the package einops",
    "DistributedMuon": _MUON,
    "FriendlySAM": _TWICE,
    "GSAM": _TWICE,
    "LBFGS": _TORCH.format("lbfgs"),
    "LOMO": _MODEL,
    "Lookahead": "write 'lookahead(adam)', or around any other optimizer",
    "LookSAM": _TWICE,
    "Magma": _WRAPS,
    "Muon": _MUON,
    "MuonClip": _MUON,
    "NAdam": _TORCH.format("nadam"),
    "NorMuon": _MUON,
    "OrthoGrad": _WRAPS,
    "PCGrad": _WRAPS,
    "RMSprop": _TORCH.format("rmsprop"),
    "SAM": _TWICE,
    "SaRA": "it fine-tunes chosen weights of a trained model, and has no learning rate of its own",
    "ScalableShampoo": _PICKLED,
    "ScheduleFreeWrapper": _WRAPS,
    "SCION": _PICKLED,
    "SCIONLight": _PICKLED,
    "SGD": _TORCH.format("sgd"),
    "SophiaH": _HESSIAN,
    "SpectralSphere": "it takes parameters with two dimensions alone",
    "TRAC": _WRAPS,
    "WSAM": _TWICE,
}
"""The optimizers that do not, by class, each with the reason."""

_BY_LOWER = {name.lower(): name for name in (*PACKAGE, *REFUSED)}


def class_of(name: str) -> str | None:
    """Returns the package's spelling of a class, or None if it has no such optimizer.

    >>> class_of("lION")
    'Lion'
    """
    return _BY_LOWER.get(name.lower())


def package_row(name: str) -> OptimizerRow:
    """Returns the row of an optimizer that has none in the catalog: its own defaults, our ranges.

    Args:
        name: Its class, one of :data:`PACKAGE`.
    """
    own = PACKAGE[name]
    # Three decades around its authors' choice.
    hyperparameters = [
        rate(own.lr, 0.03 * own.lr, 30 * own.lr, finetuning=finetuning.around(own.lr))
    ]
    if own.momentum:
        hyperparameters.append(momentum(own.momentum, 0.005, 0.3))
    if own.betas is not None:
        hyperparameters.append(beta(1, own.betas[0], 0.02, 0.5, MAIN))
        hyperparameters.append(beta(2, own.betas[1], 1e-4, 0.1))
    if own.weight_decay is not None:
        hyperparameters.append(weight_decay(own.weight_decay, 1e-5, 0.1))
    return OptimizerRow(
        f"{PREFIX}{name}",
        f"pytorch_optimizer.{name}",
        "Taken from pytorch-optimizer by name: searched around its own defaults.",
        "as its reference says",
        f"pytorch-optimizer 4.1, {name}",
        tuple(hyperparameters),
        grows=own.grows,
        averages=own.averages,
        switches=own.switches,
    )
