"""Python, tuner, and the packages that it needs or can use."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement

from tuner.service.doctor.finding import Finding, ok, problem

_TOPIC = "packages"
_TOLD = ("torch", "optuna", "numpy", "sqlalchemy", "optuna-dashboard")
_DEVELOPMENT = "dev"


def examine_software() -> list[Finding]:
    """Returns what there is of Python, tuner, and its packages."""
    python = f"Python {platform.python_version()} at {sys.executable}"
    wanted = [Requirement(line) for line in metadata.requires("tuner") or ()]
    always = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [
        ok("python", f"{python}, {platform.platform()}"),
        ok("tuner", f"tuner {metadata.version('tuner')}"),
        *_examine_needed(always),
        *_examine_extras(wanted),
    ]


def _examine_needed(requirements: Iterable[Requirement]) -> list[Finding]:
    """Returns which of the needed packages are there, and those of a version that is not."""
    findings, told = [], []
    for requirement in requirements:
        name, found = requirement.name, _version_of(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            there = "is not installed" if found is None else f"{found} is installed"
            wanted = f"{name}{requirement.specifier}"
            findings.append(
                problem(_TOPIC, f"{name} {there}, tuner needs {wanted}", f"pip install '{wanted}'")
            )
        elif name in _TOLD:
            told.append(f"{name} {found}")
    return [ok(_TOPIC, ", ".join(told)), *findings]


def _examine_extras(requirements: Iterable[Requirement]) -> list[Finding]:
    """Returns which extras are there, and which are of a version that tuner is not tested with."""
    there, missing, findings = [], [], []
    for requirement in requirements:
        extra = _extra_of(requirement)
        if extra in (None, _DEVELOPMENT):
            continue
        found = _version_of(requirement.name)
        if found is None:
            missing.append(str(extra))
        elif requirement.specifier.contains(found, prereleases=True):
            there.append(f"{requirement.name} {found}")
        else:
            wanted = f"{requirement.name}{requirement.specifier}"
            findings.append(
                problem(
                    "extras",
                    f"{requirement.name} {found} is installed, the extra {extra} needs {wanted}",
                    f"pip install 'tuner[{extra}]'",
                )
            )
    told = ", ".join(dict.fromkeys(there)) or "none"
    if missing:
        told += f"; not installed: {', '.join(dict.fromkeys(missing))}"
    return [ok("extras", told), *findings]


def _extra_of(requirement: Requirement) -> str | None:
    """Returns the name of the extra that asks for a package, None if all of tuner does."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        return None
    _, _, named = str(requirement.marker).partition("extra == ")
    return named.strip("\"' )") or None


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
