"""What `import tuner` gives, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import tuner


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, tuner;"
        "heavy = {'torch', 'optuna', 'sqlalchemy', 'numpy'} & sys.modules.keys();"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", tuner.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(tuner, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert inspect.getdoc(thing)
        assert thing.__module__.startswith("tuner.")


@pytest.mark.parametrize("name", ["Run", "Winner"])
def test_every_public_method_is_documented(name: str) -> None:
    for method, value in vars(getattr(tuner, name)).items():
        if not method.startswith("_") and (callable(value) or isinstance(value, property)):
            assert inspect.getdoc(value), method


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'tuner' has no attribute 'bset'"):
        tuner.bset  # noqa: B018


def test_pruning_is_an_exception_that_a_loop_may_catch() -> None:
    assert issubclass(tuner.Pruned, Exception)
    assert not issubclass(tuner.Pruned, tuner.TunerError)
