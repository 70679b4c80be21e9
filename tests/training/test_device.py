from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tuner.errors import SpecError
from tuner.training.device import autocast, dtype_of, free_bytes, is_out_of_memory, resolve_device

CPU = torch.device("cpu")


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == CPU


def test_auto_names_a_device_that_computes() -> None:
    device = resolve_device("auto")
    assert torch.ones(2, device=device).sum().item() == 2
    assert (device.type == "cuda") == torch.cuda.is_available()


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cpu0"])
def test_a_name_that_means_no_device_is_refused_with_those_that_do(name: str) -> None:
    with pytest.raises(SpecError, match=rf"--device {name}: use auto, cpu, cuda, cuda:N or mps"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda:99", "meta", "xpu"])
def test_a_device_this_machine_lacks_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=rf"--device {name}: this machine has no such device"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", torch.float32), ("bfloat16", torch.float32), ("float64", torch.float64)],
)
def test_parameters_are_kept_in_the_type_of_the_precision(
    precision: str, dtype: torch.dtype
) -> None:
    assert dtype_of(precision, CPU) == dtype


def test_double_precision_is_refused_where_the_device_has_none() -> None:
    with pytest.raises(SpecError, match=r'precision = "float64": not on mps'):
        dtype_of("float64", torch.device("mps"))


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float64", torch.float32)],
)
def test_only_bfloat16_casts_products(precision: str, dtype: torch.dtype) -> None:
    with autocast(precision, CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == dtype


def test_memory_that_ran_out_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory\nCompile with more"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("memory")])
def test_another_error_is_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_free_memory_is_less_than_there_is() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < free_bytes(torch.device("cpu")) < total


def test_a_container_s_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    monkeypatch.setattr("tuner.training.device._CGROUP", tmp_path)
    assert free_bytes(torch.device("cpu")) == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(torch.device("cpu")) > 600_000
