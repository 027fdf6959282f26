"""`import snnconvert`: models and data in every form, networks that are called, and errors that say what to do."""

from __future__ import annotations

import subprocess
import sys
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
from snnconvert.errors import DataError, GateError, ModelFileError, OptionError, SnnConvertError
from snnconvert.report.document import load_report
from snnconvert.simulate.layer_engine import LayerEngine

TRAIN, TEST, PREPROCESSING = dataset_for("digits-cnn")
QUICK: dict[str, Any] = {"timesteps": 8, "schedule": "streaming", "calibration": "mse", "calibration_samples": 64}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Raw test images (n, 8, 8) uint8 with values 0 to 16, and labels."""
    stored = np.load(TEST)
    return stored["x"][:160], stored["y"][:160]


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


@pytest.fixture(scope="module")
def conversion() -> snnconvert.Conversion:
    return snnconvert.convert_model("zoo:digits-cnn", **QUICK, limit=100)


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
    raw, _ = raw_in_memory(forms(*digits)[name](), "data")
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
    raw, _ = raw_in_memory(Pairs(*digits, noise=0.3), "data")
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
        assert len(raw_in_memory(given, "data")[0].source) == 4
        return
    with pytest.raises(DataError, match=message) as caught:
        raw_in_memory(given, "data")
    assert caught.value.hint


def test_a_sampler_that_leaves_samples_out_is_obeyed(digits: tuple[np.ndarray, np.ndarray]) -> None:
    loader = DataLoader(Pairs(*digits), batch_size=4, sampler=SubsetRandomSampler(range(10)))
    raw, _ = raw_in_memory(loader, "data")
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


def test_the_outputs_are_those_of_the_engine_on_the_scale_of_the_original(
    conversion: snnconvert.Conversion, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    snn = conversion.snn
    x = snn.prepare(digits[0])
    run = LayerEngine(snn).run(x)
    frames = snn.schedule.frames - snn.schedule.read_from
    assert torch.equal(snn(x), (run.outputs[0][-1] / frames).float())
    ann = conversion.ann.graph(x)[0]
    assert float((snn(x) - ann).norm() / ann.norm()) < 0.2
    seen = snn.simulate(x, record=True)
    assert seen.steps == snn.schedule.answer_steps
    for answer in range(len(seen.steps)):
        assert torch.allclose(seen.outputs[answer], run.outputs[0][answer] / (answer + 1))
    assert set(seen.spikes) == set(snn.layers) == {row["name"] for row in conversion.report["layers"]}
    for name in snn.layers:
        assert seen.trains[name].abs().sum() == run.units[name].sum()
        assert seen.spikes[name].sum() * len(x) == pytest.approx(int(run.spikes[name].sum()))
        assert len(seen.spikes[name]) == snn.timesteps


@pytest.mark.parametrize("schedule", ["bistable", "wait", "streaming"])
def test_every_schedule_answers_on_the_scale_of_the_original(schedule: str) -> None:
    steps = {"bistable": 30, "wait": 32, "streaming": 32}[schedule]
    found = snnconvert.convert_model("zoo:digits-cnn", **{**QUICK, "timesteps": steps, "schedule": schedule}, limit=60)
    x = found.snn.prepare(np.load(TEST)["x"][:40])
    ann, mean = found.ann.graph(x)[0], found.snn(x)
    assert float((mean * ann).sum() / ann.square().sum()) == pytest.approx(1, abs=0.1), (
        "the slope of one over the other"
    )
    assert float((mean - ann).norm() / ann.norm()) < 0.3
    seen = found.snn.simulate(x)
    assert torch.allclose(seen.outputs[-1].float(), mean, atol=1e-5)
    assert seen.steps[-1] == found.report["latency"]["total"]
    # spikes of the report are those until the last step, so is what is counted here
    on_all = found.snn.simulate(found.snn.prepare(np.load(TEST)["x"]))
    assert on_all.total_spikes == pytest.approx(found.curve[-1]["spikes_per_image"], rel=0.1)


def test_arrays_come_back_as_arrays_and_tensors_as_tensors(conversion: snnconvert.Conversion) -> None:
    snn = conversion.snn
    floats = np.random.default_rng(0).random((5, 1, 8, 8))
    for dtype in (np.float32, np.float64, np.float16):
        found = snn(floats.astype(dtype))
        assert isinstance(found, np.ndarray) and found.dtype == dtype
    tensor = torch.from_numpy(floats).float().requires_grad_()
    found = snn(tensor)
    assert isinstance(found, torch.Tensor) and found.dtype == torch.float32 and not found.requires_grad
    assert np.allclose(found.numpy(), snn(floats.astype(np.float32)))
    assert snn(tensor.double()).dtype == torch.float64
    assert snn(floats[:0]).shape == (0, 10)
    assert isinstance(snn.simulate(floats).outputs, np.ndarray)
    assert isinstance(snn.simulate(tensor).outputs, torch.Tensor)
    assert torch.allclose(torch.cat([snn(tensor[:2]), snn(tensor[2:])]), found), "batches do not matter"


def test_several_outputs_come_as_a_tuple() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            hidden = torch.relu(self.body(x))
            return {"a": self.a(hidden), "b": self.b(hidden)}

    torch.manual_seed(0)
    net = Two().eval()
    x = torch.rand(100, 6)
    found = snnconvert.convert_model(net, data=x, **{**QUICK, "timesteps": 64})
    assert found.snn.outputs == ("a", "b")
    a, b = found.snn(x)
    expected = net(x)
    assert (a.shape, b.shape) == ((100, 3), (100, 2))
    for got, wanted in ((a, expected["a"]), (b, expected["b"])):
        assert float((got - wanted).detach().norm() / wanted.detach().norm()) < 0.1
    assert found.snn.simulate(x).further[0].shape == (64, 100, 2)
    with pytest.raises(OptionError, match="no output 'c'"):
        snnconvert.convert_model(net, data=x, **QUICK, output_name="c")


def test_inputs_that_do_not_fit_are_refused(conversion: snnconvert.Conversion) -> None:
    snn, good = conversion.snn, np.zeros((2, 1, 8, 8), np.float32)
    for given, message, hint in (
        (good[0], r"inputs of shape \(1, 8, 8\) do not fit .* \(n, 1, 8, 8\)", "x[None]"),
        (good[:, 0], r"inputs of shape \(2, 8, 8\)", "snn.prepare(x)"),
        (good.astype(np.uint8), "the inputs are uint8", "snn.prepare(x)"),
        (good + np.nan, "NaN or infinite", "repair"),
        (good.astype(complex), "the inputs are complex128", "real numbers"),
        ("images", "the inputs are <U6", "real numbers"),
        (None, "the inputs are object", "real numbers"),
        ([[1.0], [1.0, 2.0]], "do not make one array", "same shape"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            snn(given)
        assert hint in caught.value.hint
    with pytest.raises(OptionError, match="no layer of neurons 'relu_9'"):
        snn.simulate(good, record="relu_9")
    with pytest.raises(OptionError, match="'tpu' is not available"):
        snn(good, device="tpu")
    with pytest.warns(UserWarning, match=r"the inputs reach 16, .* snn\.prepare\(x\)"):
        snn(good + 16)


def test_what_is_written_can_be_read(conversion: snnconvert.Conversion, tmp_path: Path) -> None:
    written = conversion.save(tmp_path / "m.snn", csv=True, markdown=True)
    assert {path.name for path in written} == {"m.snn", "m.html", "m.json", "m.csv", "m-layers.csv", "m.md"}
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written}
    document = load_report(tmp_path / "m.json")
    assert document["next_commands"] == [
        f"snnconvert run {tmp_path / 'm.snn'} --data zoo:digits-cnn", f"snnconvert info {tmp_path / 'm.snn'}"
    ]  # fmt: skip
    assert {**document, "next_commands": []} == conversion.report
    x = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)
    assert np.array_equal(snnconvert.load(str(tmp_path / "m.snn"))(x), conversion.snn(x))
    assert snnconvert.save(conversion, tmp_path / "n.snn").read_bytes() == (tmp_path / "m.snn").read_bytes()
    assert conversion.snn.save(tmp_path / "small.snn", original=False).stat().st_size < written[0].stat().st_size
    for path, message in (
        (tmp_path / "m.onnx", "does not end in .snn"),
        (tmp_path / "nowhere" / "m.snn", "does not exist"),
        (3, "3 is no path"),
        ("", "'' is no path"),
    ):
        with pytest.raises(SnnConvertError, match=message):
            conversion.save(path)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="int is no spiking network"):
        snnconvert.save(3, tmp_path / "m.snn")
    with pytest.raises(ModelFileError, match="there is no checkpoint"):
        snnconvert.load(tmp_path / "none.snn")
    with pytest.raises(OptionError, match="gif"):
        conversion.save(tmp_path / "m.snn", figures="gif")


def test_a_conversion_is_read_at_a_glance(conversion: snnconvert.Conversion) -> None:
    pd = pytest.importorskip("pandas")
    assert len(conversion.curve) == conversion.timesteps == 8
    assert conversion.curve[-1]["accuracy"] == conversion.accuracy
    frame = conversion.curve.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert frame.index.tolist() == list(range(1, 9))
    assert frame.loc[8, "accuracy"] == conversion.accuracy
    assert "digits" in repr(conversion) and len(repr(conversion)) < 1000
    page = conversion._repr_html_()
    assert "data:image/svg+xml;base64," in page and "<b>" in page and "<script" not in page
    assert conversion.report["tool"]["command_line"].startswith(
        "snnconvert.convert_model('zoo:digits-cnn', timesteps=8"
    )


def test_pandas_is_asked_for_by_name(conversion: snnconvert.Conversion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SnnConvertError, match="pandas is not installed") as caught:
        conversion.curve.to_pandas()
    assert "pip install pandas" in caught.value.hint


def test_every_option_is_a_keyword() -> None:
    found = snnconvert.convert_model(
        "zoo:digits-cnn", timesteps=np.int64(6), neuron="burst", levels=3, schedule="streaming", limit=np.int32(40),
        calibration="percentile", percentile=99.0, granularity="layer", calibration_samples=30, mean=np.array([0.0]),
        std=torch.tensor([1.0]), scale=16, seed=3, max_drop=50, read_from="auto", fail_if="drop > 60", precision="int8",
    )  # fmt: skip
    assert found.snn.neuron.levels == 3
    assert found.snn.precision == "int8"
    assert found.report["calibration"]["options"]["percentile"] == 99.0
    assert found.report["gates"]["status"] == "passed"
    same = snnconvert.convert_model(
        "zoo:digits-cnn", preprocessing={"scale": 16}, options={"percentile": 99.0}, calibration="percentile",
        timesteps=6, schedule="streaming", calibration_samples=30, limit=40,
    )  # fmt: skip
    assert same.report["calibration"]["options"]["percentile"] == 99.0


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"timestep": 8}, "no argument 'timestep'", "did you mean timesteps?"),
        ({"bogus": 8}, "no argument 'bogus'", "there are arch, input_shape"),
        ({"percentile": 99}, "percentile means nothing to calibration reconstruct", "calibration percentile"),
        ({"timesteps": "8"}, "timesteps '8' is not a whole number from 1", "give timesteps"),
        ({"timesteps": 0}, "timesteps 0 is not", "e.g. timesteps 32"),
        ({"timesteps": 8.5}, "timesteps 8.5 is not", "whole number"),
        ({"timesteps": None}, None, ""),
        ({"neuron": "ternery"}, "neuron 'ternery' is not known", "did you mean ternary"),
        ({"neuron": 3}, "neuron 3 is not one of", "one of if"),
        ({"max_drop": "much"}, "max_drop 'much' is not a number", "max_drop"),
        ({"max_drop": 500}, "max_drop 500 is not", "-100 to 100"),
        ({"mean": "grey"}, "mean is 'grey'", "mean"),
        ({"mean": [0.5], "preprocessing": {}}, "preprocessing and mean were both given", "one of the two"),
        ({"preprocessing": 3}, "preprocessing is int", "Preprocessing"),
        ({"options": {"precentile": 1}, "calibration": "percentile"}, "precentile means nothing", "did you mean"),
        ({"data": 3}, "data is int", "a DataLoader"),
        ({"data": "nowhere.npz"}, "nowhere.npz does not exist", "check the path"),
        ({"data": Path("nowhere.npz")}, "nowhere.npz does not exist", "check the path"),
        ({"device": "tpu"}, "device 'tpu' is not available", "device cpu"),
        ({"limit": True}, "limit True is not a whole number", "limit"),
        ({"timesteps": "auto"}, "timesteps auto has no target", "add max_drop 1.0, min_accuracy 90"),
        ({"input_shape": (3, 0)}, r"input_shape \(3, 0\)", "3,32,32"),
        (
            {"data": np.zeros((40, 5, 5), np.uint8)},
            "images of shape 1x5x5 do not fit the model's input 1x8x8",
            "resize",
        ),
    ],
)
def test_wrong_arguments_are_refused_in_the_words_of_python(
    options: dict[str, Any], message: str | None, hint: str
) -> None:
    given = {**QUICK, "calibration": "reconstruct", "limit": 20, **options}
    if message is None:
        assert snnconvert.convert_model("zoo:digits-cnn", **{**given, "calibration": "mse"}).timesteps == 32
        return
    with pytest.raises(SnnConvertError, match=message) as caught:
        snnconvert.convert_model("zoo:digits-cnn", **given)
    assert hint in caught.value.hint
    assert "--" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        (nn.Linear, "the class Linear", "Linear(...)"),
        ({"weight": torch.zeros(1)}, "a mapping", "load_state_dict"),
        (3, "the model is int", "torch.nn.Module"),
        (None, "the model is NoneType", "torch.nn.Module"),
        ("", "the model is str", "model.onnx"),
        ("nowhere.onnx", "nowhere.onnx", ""),
        (Path("nowhere.onnx"), "nowhere.onnx", ""),
        (nn.Linear(3, 3), "the shape of one of its inputs is not known", "data=..."),
    ],
)
def test_what_is_no_model_is_refused_with_what_to_do(model: Any, message: str, hint: str) -> None:
    with pytest.raises(SnnConvertError, match=message) as caught:
        snnconvert.convert_model(model)
    assert hint in caught.value.hint


def test_a_gate_that_is_missed_keeps_what_was_made() -> None:
    with pytest.raises(GateError, match="gate failed") as caught:
        snnconvert.convert_model("zoo:digits-cnn", **{**QUICK, "timesteps": 1}, min_accuracy=99.99)
    made = caught.value.conversion
    assert isinstance(made, snnconvert.Conversion)
    assert made.failed and made.accuracy is not None and made.accuracy < 99.99
    with pytest.raises(GateError, match="the original network itself has"):
        snnconvert.convert_model("zoo:digits-cnn", **{**QUICK, "timesteps": "auto"}, min_accuracy=100)


def test_the_smallest_number_of_steps_is_found(digits: tuple[np.ndarray, np.ndarray]) -> None:
    said = list[str]()
    found = snnconvert.convert_model(
        "zoo:digits-cnn", data=digits, scale=16, calibration_data=TRAIN, **{**QUICK, "timesteps": "auto"}, max_drop=2.0,
        progress=lambda what, done, total: said.append(f"{what} {done}/{total}"),
    )  # fmt: skip
    assert found.accuracy is not None and found.ann_accuracy is not None
    assert found.ann_accuracy - found.accuracy <= 2.0
    assert found.timesteps < 32
    assert said
    with pytest.raises(OptionError, match="holds no labels"):
        snnconvert.convert_model(
            "zoo:digits-cnn", data=digits[0], scale=16, **{**QUICK, "timesteps": "auto"}, max_drop=2.0
        )


def test_old_names_work_and_warn(conversion: snnconvert.Conversion, tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="use save"):
        save_snn = snnconvert.save_snn
    with pytest.warns(DeprecationWarning, match="use load"):
        load_snn = snnconvert.load_snn
    save_snn(conversion, tmp_path / "old.snn")
    assert load_snn(tmp_path / "old.snn").schedule == conversion.snn.schedule
    with pytest.warns(DeprecationWarning, match=r"conversion\.snn\.schedule"):
        assert conversion.schedule == conversion.snn.schedule
    with pytest.warns(DeprecationWarning):
        engine = snnconvert.LayerEngine(conversion)  # type: ignore[arg-type]
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(engine.run(x).outputs[0], LayerEngine(conversion.snn).run(x).outputs[0])
    with pytest.warns(DeprecationWarning):
        outcome = snnconvert.run(snnconvert.Request("zoo:digits-cnn", **QUICK, limit=20))
    with pytest.warns(DeprecationWarning):
        assert isinstance(outcome, snnconvert.Outcome)
    with pytest.raises(AttributeError, match="no attribute 'bogus'"):
        _ = conversion.bogus
    with pytest.raises(AttributeError, match="no attribute 'bogus'"):
        _ = snnconvert.bogus


def test_importing_is_light_and_every_public_name_is_documented() -> None:
    code = (
        "import sys, snnconvert; dir(snnconvert)\n"
        "assert not {'torch', 'numpy', 'onnx', 'altair', 'typer', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in snnconvert.__all__:
        assert len(getattr(snnconvert, name).__doc__ or "") > 60, name
