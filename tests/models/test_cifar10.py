from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from models.cifar10 import Cifar10, read_archive
from tests.models.learning import learn, prepare
from tuner import Data, data_folder
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.errors import WorkloadError
from tuner.fused.eligibility import Refusals
from tuner.training.prepared_workload import PreparedWorkload

SUBSET = data_folder() / "cifar10" / "cifar10-subset.npz"
ARCHIVE = data_folder() / "cifar10" / "cifar-10-binary.tar.gz"


class Other(Cifar10):
    """The same model on other images."""

    def __init__(self, data: Callable[[], Data]) -> None:
        self._data = data

    def data(self) -> Data:
        return self._data()


def coloured() -> Data:
    """Returns noise whose mean colour tells the label."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (160,), generator=generator)
    x = torch.randint(0, 128, (160, 3, 32, 32), generator=generator, dtype=torch.uint8)
    x[torch.arange(160), y] += 64
    return Data(train=(x[:128], y[:128]), val=(x[128:], y[128:]))


def subset(rows: int) -> Data:
    with np.load(SUBSET) as files:
        x = torch.from_numpy(files["x_train"][:rows]).permute(0, 3, 1, 2).contiguous()
        y = torch.from_numpy(files["y_train"][:rows]).long()
    cut = rows // 5
    return Data(train=(x[cut:], y[cut:]), val=(x[:cut], y[:cut]))


@pytest.fixture(scope="module")
def prepared() -> PreparedWorkload:
    return prepare(Other(coloured))


def test_an_archive_of_batches_is_read_in_order() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, rows in (("data_batch_2", [2, 3]), ("test_batch", [0]), ("data_batch_1", [0, 1])):
            content = b"".join(bytes([row]) + pixels[row].tobytes() for row in rows)
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    x, y = read_archive(packed.getvalue())
    assert y.tolist() == [0, 1, 2, 3]
    assert (x.shape, x.dtype) == ((4, 3, 32, 32), torch.uint8)
    assert torch.equal(x.reshape(4, 3072), torch.from_numpy(pixels))


def test_a_damaged_archive_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_DATA", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / ARCHIVE.name).write_bytes(b"half of it")
    with pytest.raises(WorkloadError, match="Delete it to have it fetched again"):
        Cifar10().data()


def test_the_untrained_network_guesses_among_ten(prepared: PreparedWorkload) -> None:
    model = prepared.build_model(0)
    assert sum(p.numel() for p in model.parameters()) == 77_850
    assert model(prepared.data.val[0]).shape == (32, 10)
    assert prepared.evaluate(model)["val_loss"] == pytest.approx(2.303, abs=0.3)


def test_it_trains_as_lanes(prepared: PreparedWorkload) -> None:
    tree = {
        "study": {"name": "s", "workload": "a:B"},
        "budget": {"steps": 10},
        "space": {"optimizers": ["adam"]},
        "train": {"batch_size": 32},
    }
    spec = StudySpec.model_validate(tree).resolve()
    values = OPTIMIZERS["adam"].decode({"lr": 0.01})
    config = TrialConfig("adam", values, "constant", {"warmup": 0.0}, 32)
    assert Refusals(prepared, spec)(config) is None


def test_it_learns_to_tell_colours_in_a_few_steps(prepared: PreparedWorkload) -> None:
    assert learn(prepared, 20)["val_loss"] < 0.5


@pytest.mark.skipif(not SUBSET.exists(), reason=f"{SUBSET.name} is not in the data folder")
def test_it_learns_real_images_in_a_few_dozen_steps() -> None:
    metrics = learn(prepare(Other(partial(subset, 1600))), 40, lr=0.003)
    assert metrics["val_loss"] < 2.2
    assert metrics["val_accuracy"] > 0.2


@pytest.mark.skipif(not ARCHIVE.exists(), reason=f"{ARCHIVE.name} is not in the data folder")
def test_the_training_images_are_split_in_two() -> None:
    data = Cifar10().data()
    assert (len(data.train[0]), len(data.val[0])) == (45_000, 5_000)
    assert data.train[1].unique().tolist() == list(range(10))
