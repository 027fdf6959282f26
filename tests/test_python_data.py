"""`import snnconvert`: models and data in every form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

import snnconvert
from snnconvert.data.bundled import dataset_for, model_path
from snnconvert.data.memory import Items, raw_in_memory
from snnconvert.data.named import Wanted, raw_of
from snnconvert.data.sources import RawData
from snnconvert.errors import DataError

TRAIN, TEST, PREPROCESSING = dataset_for("digits-cnn")
QUICK: dict[str, Any] = {"timesteps": 8, "schedule": "streaming", "calibration": "mse", "calibration_samples": 64}


@pytest.fixture(scope="module")
def module() -> nn.Module:
    """The bundled network's own weights, as a module that takes what it took."""
    return _Digits().eval()


class _Digits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.graph = snnconvert.convert_model("zoo:digits-cnn", **QUICK, limit=20).ann.graph

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.graph(x)[0]
        return found


def read(given: Any, called: str = "data") -> tuple[RawData, str]:
    """As for a model of one input that no name is known of."""
    raw, name = raw_in_memory(given, called)
    return raw_of(raw, Wanted()), name


class Pairs(Dataset[Any]):
    """A data set of torchvision's kind: items one by one, a transform, labels kept apart."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, noise: float = 0.0, targets: bool = True) -> None:
        self.images, self.noise, self.read = images.astype(np.float32)[:, None] / 16, noise, list[int]()
        self.known = labels
        if targets:
            self.targets = labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index >= len(self):
            raise IndexError(index)
        self.read.append(index)
        noise = self.noise * torch.rand(1, 8, 8)
        return torch.from_numpy(self.images[index]) + noise, int(self.known[index])


class Stream(IterableDataset[Any]):
    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def __iter__(self) -> Iterator[Any]:
        return (self.pairs[index] for index in range(len(self.pairs)))


def forms(x: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], Any]]:
    floats = x.astype(np.float32)[:, None] / 16
    tensors = torch.from_numpy(floats), torch.from_numpy(y)
    pairs = Pairs(x, y)
    half = [index for index in range(len(x)) if index % 2]
    return {
        "arrays": lambda: (floats, y),
        "lists of labels": lambda: [floats, y.tolist()],
        "tensors": lambda: tensors,
        "mapping": lambda: {"x": floats, "y": y},
        "one-hot": lambda: (floats, np.eye(10)[y]),
        "TensorDataset": lambda: TensorDataset(*tensors),
        "Dataset": lambda: pairs,
        "Dataset without targets": lambda: Pairs(x, y, targets=False),
        "Subset": lambda: Subset(Subset(pairs, range(len(x))), range(len(x))),
        "list of pairs": lambda: [pairs[index] for index in range(len(x))],
        "list of dicts": lambda: [{"image": pairs[index][0], "label": y[index]} for index in range(len(x))],
        "DataLoader": lambda: DataLoader(pairs, batch_size=7),
        "shuffling DataLoader": lambda: DataLoader(pairs, batch_size=7, shuffle=True),
        "DataLoader of workers": lambda: DataLoader(TensorDataset(*tensors), batch_size=50, num_workers=1),
        "DataLoader with a sampler": lambda: DataLoader(
            Pairs(np.repeat(x, 2, 0), np.repeat(y, 2)), 16, sampler=[2 * i for i in range(len(x))]
        ),
        "DataLoader of a stream": lambda: DataLoader(Stream(pairs), batch_size=9),
        "IterableDataset": lambda: Stream(pairs),
        "generator of batches": lambda: ((floats[i : i + 9], y[i : i + 9]) for i in range(0, len(x), 9)),
        "loader of a part": lambda: DataLoader(ConcatTwice(pairs, half), batch_size=8),
    }


class ConcatTwice(Dataset[Any]):
    """The odd samples, then the even ones: the same set in another order."""

    def __init__(self, pairs: Pairs, first: list[int]) -> None:
        self.pairs, self.order = pairs, [*first, *(i for i in range(len(pairs)) if i not in set(first))]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Any:
        return self.pairs[self.order[index]]


NAMES = list(forms(np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.int64)))


@pytest.mark.parametrize("name", NAMES)
def test_data_in_every_form_are_the_same_data(name: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    raw, _ = read(forms(*digits)[name](), "data")
    order = np.arange(len(digits[1]))
    if name == "loader of a part":
        order = np.array([*order[1::2], *order[::2]])
    assert raw.labels is not None
    assert np.array_equal(raw.labels, digits[1][order])
    assert raw.labels.dtype == np.int64
    assert raw.source.shape == (1, 8, 8)
    assert np.allclose(raw.source.read(list(range(len(raw.source)))), digits[0][order, None] / 16)


def test_files_arrays_and_loaders_give_the_same_conversion(
    digits: tuple[np.ndarray, np.ndarray], module: nn.Module, tmp_path: Path
) -> None:
    x, y = digits
    np.savez(tmp_path / "t.npz", x=x, y=y)
    from_file = snnconvert.convert_model(
        model_path("digits-cnn"), data=tmp_path / "t.npz", calibration_data=TRAIN, scale=16, **QUICK
    )
    from_arrays = snnconvert.convert_model(
        str(model_path("digits-cnn")), data=(x, y), calibration_data=str(TRAIN), preprocessing=PREPROCESSING, **QUICK
    )
    train = np.load(TRAIN)
    loaders = [DataLoader(Pairs(*pair), batch_size=32, shuffle=True) for pair in ((x, y), (train["x"], train["y"]))]
    from_loaders = snnconvert.convert_model(module, data=loaders[0], calibration_data=loaders[1], **QUICK)
    assert from_file.accuracy == from_arrays.accuracy == from_loaders.accuracy
    assert from_file.curve == from_arrays.curve
    assert from_file.report["evaluation"]["fingerprint"] == from_arrays.report["evaluation"]["fingerprint"]
    assert from_file.curve[-1]["spikes_per_image"] == from_loaders.curve[-1]["spikes_per_image"]
    assert from_file.ann_accuracy == from_loaders.ann_accuracy
    assert from_file.ann_accuracy is not None and from_file.ann_accuracy > 95
    assert from_loaders.report["evaluation"]["source"] == "Pairs of a DataLoader"
    # what the command line would do with the same file, it can do with the checkpoint of arrays in memory
    from_arrays.save(tmp_path / "m.snn")
    loaded = snnconvert.load(tmp_path / "m.snn")
    assert torch.equal(
        loaded(loaded.prepare(torch.from_numpy(x))), from_file.snn(from_file.snn.prepare(torch.tensor(x)))
    )


def test_a_large_data_set_is_not_read_for_a_few_samples(
    digits: tuple[np.ndarray, np.ndarray], module: nn.Module
) -> None:
    many = Pairs(np.repeat(digits[0], 20, 0), np.repeat(digits[1], 20))
    train = np.load(TRAIN)
    held = Pairs(np.repeat(train["x"], 3, 0), np.repeat(train["y"], 3))
    snnconvert.convert_model(module, data=many, calibration_data=held, **{**QUICK, "calibration_samples": 20}, limit=30)
    assert len(set(many.read)) <= 30 + 2
    assert len(set(held.read)) <= 20 + 2


def test_augmentation_is_drawn_once(digits: tuple[np.ndarray, np.ndarray]) -> None:
    raw, _ = read(Pairs(*digits, noise=0.3), "data")
    assert isinstance(raw.source, Items)
    first = raw.source.read([3, 4])
    assert np.array_equal(first, raw.source.read([3, 4]))
    assert raw.source.digest(3) == raw.source.digest(3)
    raw.source.kept.clear()
    assert not np.array_equal(first, raw.source.read([3, 4])), "it is the memory that keeps them the same"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "data is int, which holds no samples"),
        (object(), "data is object, which holds no samples"),
        (np.zeros((4, 8, 8), complex), "type complex128"),
        ((np.zeros((4, 8, 8)), np.zeros(3)), "4 images but 3 labels"),
        ((np.zeros((4, 8, 8)), np.array(list("abcd"))), "the labels in data have the shape"),
        ((np.full((4, 8, 8), np.nan), np.zeros(4)), "holds NaN"),
        ({"features": np.zeros((4, 8, 8))}, None),
        ({"a": np.zeros((4, 8, 8)), "b": np.zeros(4)}, "no images under a known key"),
        ([], "data holds no samples"),
        (
            [(np.zeros((8, 8)), 1), (np.zeros((8, 9)), 1)],
            r"sample 1 of data has the shape \(8, 9\)",
        ),
        ([(np.zeros((8, 8)), 1), (np.zeros((8, 8)),)], "samples of data have no label: 1"),
        ([(np.zeros((8, 8)), 1, 2)], r"sample 0 of data is no pair \(sample, label\)"),
        ([("text", 1)], "sample 0 of data is str, which is no array of numbers"),
        ([{"pixels": np.zeros((8, 8))}], "sample 0 of data has the keys pixels"),
        ([(np.full((8, 8), np.inf), 1)], "sample 0 of data holds NaN or infinite values"),
        (iter([np.zeros((2, 8, 8)), np.zeros((2, 9, 8))]), r"differ in shape: \(8, 8\) and \(9, 8\)"),
        (iter([(np.zeros((2, 8, 8)), [0, 1]), np.zeros((2, 8, 8))]), "some samples of data have labels"),
        (iter([]), "data holds no samples"),
        (Stream(Pairs(np.zeros((3, 8, 8)), np.zeros(1))), "data cannot be read: IndexError"),
        (Pairs(np.zeros((3, 8, 8)), np.zeros(1), targets=False), "sample 1 of data cannot be read: IndexError"),
    ],
)
def test_data_that_are_none_are_refused_with_a_hint(given: Any, message: str | None) -> None:
    if message is None:  # a mapping of one array is that array
        assert len(read(given)[0].source) == 4
        return
    with pytest.raises(DataError, match=message) as caught:
        read(given)
    assert caught.value.hint


def test_a_sampler_that_leaves_samples_out_is_obeyed(digits: tuple[np.ndarray, np.ndarray]) -> None:
    loader = DataLoader(Pairs(*digits), batch_size=4, sampler=SubsetRandomSampler(range(10)))
    raw, _ = read(loader, "data")
    assert raw.labels is not None
    assert sorted(raw.labels.tolist()) == sorted(digits[1][:10].tolist())


@pytest.mark.parametrize("shape", [(1, 8, 8), (8, 8), (64,), (3, 12), (16, 8, 3)])
def test_a_module_takes_the_shape_of_its_data(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    size = int(np.prod(shape))
    net = nn.Sequential(nn.Flatten(), nn.Linear(size, 12), nn.ReLU(), nn.Linear(12, 3))
    x = torch.rand(80, *shape)
    found = snnconvert.convert_model(net, data=(x, net(x).argmax(1)), **{**QUICK, "calibration_samples": 20})
    assert found.snn.input_shape == shape
    assert found.ann_accuracy == 100.0
    assert torch.equal(found.snn.prepare(x), x)
    if shape == (1, 8, 8):  # channels are added where the module wants them
        conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        grey = snnconvert.convert_model(conv, data=x[:, 0].numpy(), **{**QUICK, "calibration_samples": 20})
        assert grey.snn.input_shape == (1, 8, 8)
        assert grey.accuracy is None and grey.agreement is not None
