"""The names of other people's studies in ours: guessed from the usual ones, or told."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.names import suggest
from tuner.errors import SpecError

OWN = "own"
"""The target of a parameter that stays what it is: a hyperparameter of the workload's own."""

_WORDS = {
    "optimizer": ("optimizer", "optim", "opt", "optimizer_name", "optimizer_type", "optimiser"),
    "schedule": ("schedule", "scheduler", "lr_scheduler", "lr_schedule", "scheduler_name"),
    "batch_size": ("batch_size", "batchsize", "bs", "train_batch_size"),
    "lr": ("lr", "learning_rate", "learningrate", "init_lr", "base_lr"),
    "weight_decay": ("weight_decay", "weightdecay", "wd", "l2"),
    "momentum": ("momentum", "mom"),
    "beta1": ("beta1", "beta_1", "b1", "adam_beta1"),
    "beta2": ("beta2", "beta_2", "b2", "adam_beta2"),
    "eps": ("eps", "epsilon", "adam_eps", "adam_epsilon"),
}
"""The usual names of what a study here calls otherwise, without regard to case and prefixes."""

_TARGETS = {word: target for target, words in _WORDS.items() for word in words}
_PREFIXES = ("optimizer_", "optim_", "opt_", "hparams_", "params_", "config_")


@dataclass(frozen=True)
class Target:
    """The setting of ours that a parameter of an imported study becomes.

    Attributes:
        key: ``optimizer``, ``schedule``, ``batch_size``, a hyperparameter such as ``lr``, or
            :data:`OWN`.
        optimizer: The only optimizer that it belongs to, or None for whichever has it.
        told: Whether a person has said so.
    """

    key: str
    optimizer: str | None = None
    told: bool = False

    def __str__(self) -> str:
        return self.key if self.optimizer is None else f"{self.optimizer}.{self.key}"


def map_names(names: Iterable[str], told: Mapping[str, str]) -> dict[str, Target]:
    """Returns what each parameter of theirs is here.

    Args:
        names: The names of their parameters.
        told: What a person has said, ours by theirs: a target's name, such as ``lr`` or
            ``adam.lr``, or ``own``.

    Raises:
        SpecError: If a name of theirs or ours that was told is unknown, or two have one target.
    """
    names = list(names)
    for theirs in told:
        if theirs not in names:
            raise SpecError(f"--map {theirs}={told[theirs]}: {suggest(theirs, names)}")
    targets = {name: _guess(name) for name in names}
    targets |= {theirs: _read_told(theirs, ours) for theirs, ours in told.items()}
    taken: dict[tuple[str, str | None], str] = {}
    for name in sorted(names, key=lambda name: not targets[name].told):
        target = targets[name]
        place = target.key, target.optimizer
        if target.key == OWN or taken.setdefault(place, name) == name:
            continue
        if target.told:
            raise SpecError(
                f"--map {name}={target}: {taken[place]} is that already; map one of them to {OWN}."
            )
        targets[name] = Target(OWN)
    return targets


def _guess(name: str) -> Target:
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if plain in _TARGETS:
        return Target(_TARGETS[plain])
    for prefix in _PREFIXES:
        if plain.startswith(prefix) and plain.removeprefix(prefix) in _TARGETS:
            return Target(_TARGETS[plain.removeprefix(prefix)])
    for optimizer in sorted(OPTIMIZERS, key=len, reverse=True):
        rest = plain.removeprefix(f"{optimizer}_")
        if rest != plain and _has(optimizer, _TARGETS.get(rest, rest)):
            return Target(_TARGETS.get(rest, rest), optimizer)
    known = {one.name for row in OPTIMIZERS.values() for one in row.hyperparameters}
    return Target(plain) if plain in known else Target(OWN)


def _read_told(theirs: str, ours: str) -> Target:
    optimizer, _, key = ours.rpartition(".")
    known = {one.name for row in OPTIMIZERS.values() for one in row.hyperparameters}
    known |= {"optimizer", "schedule", "batch_size", OWN}
    if optimizer and optimizer not in OPTIMIZERS:
        raise SpecError(
            f"--map {theirs}={ours}: there is no optimizer {optimizer!r}: "
            f"{suggest(optimizer, OPTIMIZERS)}"
        )
    if optimizer and not _has(optimizer, key):
        raise SpecError(
            f"--map {theirs}={ours}: {optimizer} has no {key!r}: "
            f"{suggest(key, [one.name for one in OPTIMIZERS[optimizer].hyperparameters])}"
        )
    if key not in known:
        raise SpecError(f"--map {theirs}={ours}: {suggest(key, sorted(known))}")
    return Target(key, optimizer or None, told=True)


def _has(optimizer: str, key: str) -> bool:
    return any(one.name == key for one in OPTIMIZERS[optimizer].hyperparameters)


def find_optimizer(theirs: object, given: Collection[str]) -> str | None:
    """Returns the optimizer that a name of theirs means, or None.

    torch has one SGD, of which this catalog has three rows.

    >>> find_optimizer("AdamW", ["lr"]), find_optimizer("SGD", ["lr", "momentum"])
    ('adamw', 'momentum')
    >>> find_optimizer("torch.optim.RMSprop", []), find_optimizer("mine", []) is None
    ('rmsprop', True)

    Args:
        theirs: The name.
        given: The hyperparameters that the trial sets, by our names.
    """
    plain = re.sub(r"[^a-z0-9]", "", str(theirs).rpartition(".")[2].lower())
    for name in OPTIMIZERS:
        if name.replace("_", "") == plain:
            return "momentum" if name == "sgd" and "momentum" in given else name
    return None


def find_schedule(theirs: object) -> str | None:
    """Returns the schedule that a name of theirs means, or None.

    >>> find_schedule("CosineAnnealingLR"), find_schedule("none")
    ('cosine', 'constant')
    """
    plain = re.sub(r"[^a-z0-9]", "", str(theirs).rpartition(".")[2].lower())
    if plain in _SCHEDULES:
        return _SCHEDULES[plain]
    return next((name for name in SCHEDULES if name.replace("_", "") == plain), None)


_SCHEDULES = {
    "none": "constant",
    "no": "constant",
    "constantlr": "constant",
    "cosineannealinglr": "cosine",
    "cosineannealing": "cosine",
    "cosineannealingwarmrestarts": "cosine_restarts",
    "steplr": "step",
    "multisteplr": "multistep",
    "linearlr": "linear",
    "polynomiallr": "polynomial",
    "exponentiallr": "exponential",
    "onecyclelr": "one_cycle",
    "cycliclr": "cyclic",
    "reducelronplateau": "plateau",
}
