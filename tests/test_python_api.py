"""`import snnconvert`: networks that are called, and errors that say what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import snnconvert
from snnconvert.data.bundled import dataset_for
from snnconvert.errors import DataError, GateError, ModelFileError, OptionError, SnnConvertError
from snnconvert.report.document import load_report
from snnconvert.simulate.layer_engine import LayerEngine

TRAIN, TEST, PREPROCESSING = dataset_for("digits-cnn")
QUICK: dict[str, Any] = {"timesteps": 8, "schedule": "streaming", "calibration": "mse", "calibration_samples": 64}


@pytest.fixture(scope="module")
def conversion() -> snnconvert.Conversion:
    return snnconvert.convert_model("zoo:digits-cnn", **QUICK, limit=100)


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
        (nn.Linear(3, 3), "the shape of one input of Linear is not known", "takes it from data"),
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
