"""The bundled models: present, small, as accurate as the table says, and built by the committed script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from digits_networks import DigitsCnn, DigitsResNet
from train_digits import NETWORKS, build

from snnconvert.data.bundled import FOLDER, MODELS, dataset_for, model_path
from snnconvert.data.datasets import check_labels, load_dataset
from snnconvert.errors import OptionError
from snnconvert.request import Request
from snnconvert.stages import with_bundled_data

NAMES = sorted(NETWORKS)


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_is_the_one_in_the_table(name: str) -> None:
    row = MODELS[name]
    _, test, preprocessing = dataset_for(name)
    dataset = load_dataset(test, preprocessing=preprocessing, input_shape=row.input_shape)
    check_labels(dataset, row.classes)
    session = onnxruntime.InferenceSession(model_path(name), providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": dataset.images().numpy()})[0]
    assert dataset.labels is not None
    assert (logits.argmax(1) == dataset.labels).mean() == pytest.approx(row.accuracy, abs=0.004)
    assert row.accuracy > 0.98


def test_files_are_small_and_keep_batch_norm() -> None:
    operators = {}
    for name in NAMES:
        assert model_path(name).stat().st_size < 200_000
        model = onnx.load(model_path(name))
        operators[name] = [node.op_type for node in model.graph.node]
        assert model.opset_import[0].version == 17
    assert operators["digits-resnet"].count("BatchNormalization") == 6
    assert operators["digits-resnet"].count("Relu") == 5
    assert operators["digits-resnet"].count("Add") == 2
    assert operators["digits-cnn"].count("Relu") == 4


def test_training_and_test_images_are_all_the_digits_and_share_none() -> None:
    train, test = (np.load(path) for path in dataset_for("digits-cnn")[:2])
    both = np.concatenate([train["x"], test["x"]])
    assert both.shape == (1797, 8, 8)
    assert both.dtype == np.uint8
    assert both.max() == 16
    assert len(np.unique(both.reshape(1797, -1), axis=0)) == 1797
    counts = np.bincount(test["y"])
    assert counts.max() - counts.min() <= 1


def test_bundled_data_are_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    digits = datasets.load_digits()
    known = {image.astype(np.uint8).tobytes(): label for image, label in zip(digits.images, digits.target, strict=True)}
    for path in dataset_for("digits-cnn")[:2]:
        content = np.load(path)
        assert all(known[image.tobytes()] == label for image, label in zip(content["x"], content["y"], strict=True))


@pytest.mark.parametrize("network", [DigitsResNet, DigitsCnn])
def test_written_graph_computes_what_the_module_does(network: type[DigitsResNet] | type[DigitsCnn]) -> None:
    torch.manual_seed(3)
    module = network()
    module.train()
    module(torch.rand(32, 1, 8, 8))
    module.eval()
    images = torch.rand(7, 1, 8, 8)
    session = onnxruntime.InferenceSession(module.onnx().SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = module(images).numpy()
    np.testing.assert_allclose(session.run(None, {"image": images.numpy()})[0], wanted, atol=1e-5)


def test_training_script_learns_and_repeats_itself(tmp_path: Path) -> None:
    row = MODELS["digits-resnet"]
    assert build(row, tmp_path, epochs=3) > 0.9
    first = (tmp_path / row.file).read_bytes()
    build(row, tmp_path, epochs=3)
    assert (tmp_path / row.file).read_bytes() == first


def test_table_is_complete() -> None:
    assert {*NETWORKS, "nmnist-cnn"} == set(MODELS)
    assert {row.file for row in MODELS.values()} == {path.name for path in FOLDER.glob("*.onnx")}
    for row in MODELS.values():
        assert row.licence
        assert row.description
        assert not row.dataset or all(path.exists() for path in dataset_for(row.name)[:2])


@pytest.mark.parametrize(
    ("data", "own"), [(None, True), ("zoo:digits-cnn", True), ("zoo:digits-resnet/train", True), ("mine.npz", False)]
)
def test_named_data_are_prepared_as_they_are_by_default(data: str | None, own: bool) -> None:
    request = with_bundled_data(Request(model="zoo:digits-cnn", data=data))
    assert (request.preprocessing == MODELS["digits-cnn"].preprocessing) is own
    assert request.data == (data or "zoo:digits-cnn")


def test_names_with_and_without_prefix() -> None:
    assert model_path("zoo:digits-cnn") == model_path("digits-cnn")
    with pytest.raises(OptionError, match=r"no bundled model 'zoo:lenet'; there are zoo:digits-resnet, zoo:digits-cnn"):
        model_path("zoo:lenet")


def test_the_network_that_watches_event_cameras_comes_without_recordings() -> None:
    row = MODELS["nmnist-cnn"]
    session = onnxruntime.InferenceSession(model_path("nmnist-cnn"), providers=["CPUExecutionProvider"])
    assert session.run(None, {"image": np.zeros((3, *row.input_shape), np.float32)})[0].shape == (3, row.classes)
    assert model_path("nmnist-cnn").stat().st_size < 300_000
    with pytest.raises(OptionError, match="comes without data") as caught:
        dataset_for("nmnist-cnn")
    assert "--data" in caught.value.hint
