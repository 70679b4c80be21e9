"""The winner's optimizer as Python that needs only torch, and the package it comes from if any."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field

from tuner.analysis.summary import BestTrial
from tuner.domain.catalog.calls import Call
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.groups import REST, GroupValues, assign_group, group_settings
from tuner.domain.spec import StudySpec

_PACKAGES = {"pytorch_optimizer": "pytorch-optimizer", "tuner": "tuner"}

_SELECTIONS = {
    "all": "[p for p in model.parameters() if p.is_floating_point() or p.is_complex()]",
    "hidden": "hidden_matrices(model)",
    "outer": "[p for p in model.parameters() if all(p is not matrix for matrix in hidden)]",
    "matrices": "[p for p in model.parameters() if p.ndim == 2]",
    "others": "[p for p in model.parameters() if p.ndim != 2]",
    "sparse": """[
        p
        for p in model.parameters()
        if (p.grad is not None and p.grad.is_sparse)
        or any(
            p is m.weight
            for m in model.modules()
            if isinstance(m, (torch.nn.Embedding, torch.nn.EmbeddingBag)) and m.sparse
        )
    ]""",
    "dense": "[p for p in model.parameters() if all(p is not weight for weight in sparse)]",
}


@dataclass(frozen=True)
class OptimizerCode:
    """Lines of Python that build an optimizer, or two over parts of a model, as it was trained.

    Attributes:
        calls: The constructors that make it up.
        groups: Its parameter groups.
        spare_vectors: Whether biases and norms are spared from weight decay.
        switches: Whether it trains other weights than it evaluates.
        networks: What its loop called the models it trained; empty where none had a name.
        own_calls: The constructors for a network that trains otherwise than the others, by name.
        standing: Where the schedule stands in a loop over ``step``, as Python.
    """

    calls: tuple[Call, ...]
    groups: tuple[GroupValues, ...]
    spare_vectors: bool
    switches: bool = False
    networks: tuple[str | None, ...] = ()
    own_calls: Mapping[str, tuple[Call, ...]] = field(default_factory=dict)
    standing: str = "step"

    @classmethod
    def of(cls, best: BestTrial, spec: StudySpec, standing: str = "step") -> OptimizerCode:
        """Returns the code of a trial's optimizer, whose schedule stands somewhere at a step."""
        config = best.config
        row = OPTIMIZERS[config.optimizer]
        calls = row.calls(config.optimizer_values, best.full_steps)
        spared = spec.train.no_decay_on_biases_and_norms
        names = tuple(best.record.attributes.get("networks", config.networks))
        own = {name: row.calls(config.values_of(name), best.full_steps) for name in config.networks}
        return cls(calls, config.groups, spared, row.switches, names, own, standing)

    @property
    def several(self) -> bool:
        """Whether there are two optimizers."""
        return len(self.calls) > 1

    @property
    def rate(self) -> str:
        """What its learning rate is called where a schedule drives it."""
        return self.calls[0].rate

    @property
    def packages(self) -> list[str]:
        """The packages beside torch that it is imported from."""
        roots = {target.partition(".")[0] for call in self.calls for target in call.targets}
        return sorted(roots & _PACKAGES.keys())

    @property
    def remarks(self) -> list[str]:
        """The lines of comment that say what it needs."""
        lines = []
        if self.packages:
            names = [_PACKAGES[package] for package in self.packages]
            lines += [f"# Install torch, {' and '.join(names)} to run it."]
        if self.switches:
            lines += [
                "# It trains other weights than it evaluates: call optimizer.eval() before each",
                "# evaluation and before the model is saved for use, optimizer.train() after it.",
            ]
        return lines

    @property
    def freezes(self) -> bool:
        """Whether a group is frozen for a while."""
        return any(group.frozen_until for group in self.groups)

    @property
    def constants(self) -> list[str]:
        """The lines that say which parameters belong to which group."""
        if not self._grouped:
            return []
        return [f"MATCHES = {[(group.name, group.match) for group in self.groups]!r}"]

    @property
    def definitions(self) -> list[str]:
        """The lines that define ``build_optimizer``, or ``build_optimizers`` where it is two."""
        parts = [self._several() if self.several else self._single()]
        if any(call.parameters == "hidden" for call in self.calls):
            parts = [_HIDDEN, *parts]
        if self._grouped:
            parts = [inspect.getsource(assign_group).rstrip(), self._split(), *parts]
        if self.freezes:
            freeze = _FREEZE_COUNTING if "pytorch_optimizer" in self.packages else _FREEZE
            parts += [freeze.replace("step / STEPS", f"{self.standing} / STEPS")]
        return "\n\n\n".join(parts).splitlines()

    @property
    def _grouped(self) -> bool:
        return bool(self.groups) or self.spare_vectors

    def build(self, model: str) -> str:
        """Returns the expression for a list of the optimizers of a model."""
        given = f"{model}, {self.networks[0]!r}" if self.networks else model
        return f"build_optimizers({given})" if self.several else f"[build_optimizer({given})]"

    def _single(self) -> str:
        [call] = self.calls
        lines = [
            f"def build_optimizer({self._arguments}):",
            f'    """Returns the optimizer{self._purpose}."""',
            f"    parameters = {_SELECTIONS[call.parameters]}",
        ]
        for name, [own] in self.own_calls.items():
            lines += [
                f"    if network == {name!r}:",
                f"        return {self._constructor(own, 'parameters')}",
            ]
        return "\n".join([*lines, f"    return {self._constructor(call, 'parameters')}"])

    def _several(self) -> str:
        lines = [
            f"def build_optimizers({self._arguments}):",
            f'    """Returns the optimizers{self._purpose}: for a part, and for the rest if any; '
            'step all."""',
            "    optimizers = []",
        ]
        for index, call in enumerate(self.calls):
            part, word = call.parameters, "if"
            lines += [f"    {part} = {_SELECTIONS[part]}"]
            for name, own in self.own_calls.items():
                lines += [
                    f"    {word} {part} and network == {name!r}:",
                    f"        optimizers.append({self._constructor(own[index], part)})",
                ]
                word = "elif"
            lines += [
                f"    {word} {part}:",
                f"        optimizers.append({self._constructor(call, part)})",
            ]
        return "\n".join([*lines, "    return optimizers"])

    @property
    def _arguments(self) -> str:
        return "model, network" if self.networks else "model"

    @property
    def _purpose(self) -> str:
        called = ", ".join(map(repr, self.networks))
        return f" of a network, one of {called}" if self.networks else ""

    def _constructor(self, call: Call, parameters: str) -> str:
        arguments = "".join(f", {key}={value!r}" for key, value in call.arguments.items())
        if self._grouped:
            rest = ", network" if self.networks else ""
            parameters = f"split(model, {parameters}, {self._settings(call)}{rest})"
        code = f"{call.target}({parameters}{arguments})"
        if call.wrapper is not None:
            around = "".join(f", {key}={value!r}" for key, value in call.wrapper.arguments.items())
            code = f"{call.wrapper.target}({code}{around})"
        return code

    def _settings(self, call: Call) -> str:
        """Returns what each group changes, as a literal."""
        lines = []
        for values in (*self.groups, GroupValues(REST, "*")):
            for spared in (False, True) if self.spare_vectors else (False,):
                settings = group_settings(call, values, spared=spared)
                name = settings.pop("name")
                lines.append(f"        {name!r}: {settings!r},\n")
        return "{\n" + "".join(lines) + "    }"

    def _split(self) -> str:
        spare = (
            """            if parameter.ndim < 2:
                group += " (no decay)"
"""
            if self.spare_vectors
            else ""
        )
        more, named = (", network", "prefix=network or ''") if self.networks else ("", "")
        return f'''def split(model, parameters, settings{more}):
    """Returns parameter groups of those parameters, each with its own settings."""
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        return split(model.module, parameters, settings{more})
    groups = {{}}
    for name, parameter in model.named_parameters({named}):
        if any(parameter is p for p in parameters):
            group = assign_group(name, MATCHES)
{spare}            groups.setdefault(group, []).append(parameter)
    return [{{"params": own, "name": name, **settings[name]}} for name, own in groups.items()]'''


_HIDDEN = '''def hidden_matrices(model):
    """Returns the matrices but those of embeddings and of the Linear that the model names last.

    Where nothing that trains would be left, it is all matrices.
    """
    matrices = [p for p in model.parameters() if p.ndim == 2]
    embeddings = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    outer = [m for m in model.modules() if isinstance(m, embeddings)]
    outer += [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1:]
    apart = {id(p) for module in outer for p in module.parameters()}
    hidden = [p for p in matrices if id(p) not in apart]
    return hidden if any(p.requires_grad for p in hidden) else matrices'''

_FREEZE = '''def freeze(optimizer, step):
    """Freezes and thaws an optimizer's groups; call it at the start of every step, from 0."""
    for group in optimizer.param_groups:
        if until := group.get("frozen_until"):
            thawed = until < 1 and step / STEPS >= until
            for parameter in group["params"]:
                if not thawed and parameter.requires_grad:
                    parameter.waits = True
                    parameter.requires_grad_(False)
                elif thawed and getattr(parameter, "waits", False):
                    parameter.waits = False
                    parameter.requires_grad_(True)'''

# Steps are counted by group there, and those of a group that is trained from some point on start
# then.
_FREEZE_COUNTING = _FREEZE.replace(
    """            for parameter in""",
    """            if any(getattr(parameter, "waits", False) for parameter in group["params"]):
                counted = ("step", "weight_sum", "lr_max")
                for key in counted:
                    group.pop(key, None)
                group.update({k: v for k, v in optimizer.defaults.items() if k in counted})
            for parameter in""",
)
