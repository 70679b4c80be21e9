"""The wheels that checking a GPU takes, from nothing but Python and torch: ``benchmarks.gpu``."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

TORCH = ((2, 9), (2, 13))
"""The oldest and the newest torch that is checked."""

WHEELS = (
    *("alembic", "annotated-types", "certifi", "charset-normalizer", "click", "cloudpickle"),
    *("cmaes", "colorlog"),
    *("filelock", "idna", "iniconfig", "joblib", "Mako", "markdown-it-py", "MarkupSafe", "mdurl"),
    *("narwhals", "numpy", "optuna", "packaging", "platformdirs", "pluggy", "pooch", "pydantic"),
    *("pydantic_core", "Pygments", "pytest", "pytest-timeout", "pytorch_optimizer", "PyYAML"),
    *("requests", "rich"),
    *("scikit-learn", "scipy", "SQLAlchemy", "threadpoolctl", "tomli_w", "tqdm"),
    *("typing-inspection", "typing_extensions", "urllib3"),
)
"""What the tests and benchmarks import besides torch, and what that needs in turn."""


def requirements() -> list[str]:
    """Returns the wheels, each with the version that tuner is tested with."""
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", _read("constraints.txt"), re.MULTILINE))
    return [f"{name}=={pins[name]}" for name in WHEELS]


def missing() -> list[str]:
    """Returns those that this Python lacks, or has too old a version of."""
    project = tomllib.loads(_read("pyproject.toml"))["project"]
    least = {
        _plain(name): version
        for name, version in re.findall(r"([\w-]+)>=([\d.]+)", " ".join(project["dependencies"]))
    }
    found = []
    for requirement in requirements():
        name = requirement.partition("==")[0]
        try:
            own = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(requirement)
            continue
        if numbers(own) < numbers(least.get(_plain(name), "0")):
            found.append(requirement)
    return found


def install(wanted: list[str], folder: Path, wheels: Path | None, limit_s: float) -> None:
    """Installs wheels into a folder, and leaves this Python and its torch as they are.

    Args:
        wanted: Which, as pip takes them.
        folder: Where to.
        wheels: A folder that has them; None for the package index.
        limit_s: Seconds that may take.

    Raises:
        subprocess.SubprocessError: If they cannot be had.
    """
    source = [] if wheels is None else ["--no-index", "--find-links", str(wheels)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "--no-deps", "--upgrade", "--target", str(folder), *source, *wanted],
        check=True,
        timeout=limit_s,
    )


def numbers(version: str) -> tuple[int, ...]:
    """Returns the leading numbers of a version.

    >>> numbers("2.13.0+cu126"), numbers("5.0.0rc1")
    ((2, 13, 0), (5, 0, 0))
    """
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
