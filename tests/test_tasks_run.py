"""Networks that do not classify, end to end: every headline against numpy on the network's own outputs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from snnconvert.data.memory import Memory
from snnconvert.errors import DataError, OptionError
from snnconvert.gates.limits import Gates
from snnconvert.gates.verdicts import Status, check_document
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.pipeline import Outcome, run
from snnconvert.report.characters import plot
from snnconvert.report.from_run import document_of, rebuilt_document
from snnconvert.report.latency_chart import latency
from snnconvert.report.sections import early_exit
from snnconvert.report.verdict import verdict
from snnconvert.request import Request
from snnconvert.simulate.layer_engine import LayerEngine

RNG = np.random.default_rng(11)


class UNet(nn.Module):
    """Two levels, a shortcut, so many classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.head = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, classes, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.down(x)
        found: torch.Tensor = self.head(torch.cat([first, torch.relu(self.up(self.deep(first)))], 1))
        return found


class TwoOutputs(nn.Module):
    """Four numbers, and a map."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.numbers, self.map = nn.Linear(4 * 64, 4), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self.body(x)
        return self.numbers(seen.flatten(1)), self.map(seen)


def mlp(*end: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1), *end)


NETWORKS: dict[str, tuple[Any, tuple[int, ...], str]] = {
    "mlp": (mlp, (6,), "regression"),
    "u-net": (lambda: UNet(3), (1, 8, 8), "segmentation"),
    "autoencoder": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 2, stride=2)
        ),
        (1, 8, 8),
        "regression",
    ),
    "signal": (
        lambda: nn.Sequential(nn.Conv1d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv1d(4, 1, 1)),
        (1, 32),
        "regression",
    ),
    "two outputs": (TwoOutputs, (1, 8, 8), "raw"),
}


def converted(module: nn.Module, shape: tuple[int, ...], data: str, **options: Any) -> tuple[Outcome, dict[str, Any]]:
    asked = {"timesteps": 8, "calibration": "mse", "schedule": "streaming", "calibration_samples": 40, **options}
    outcome = run(Request("net", input_shape=shape, data=data, **asked), memory=Memory(module=module))
    return outcome, document_of(outcome, command_line="")


def stored(path: Path, shape: tuple[int, ...], count: int = 90, **labels: np.ndarray) -> str:
    np.savez(path, x=RNG.normal(size=(count, *shape)).astype(np.float32), **labels)
    return str(path)


def by_hand(outcome: Outcome) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The outputs of the spiking network at the end, and those of the original, on the evaluation images."""
    assert outcome.inputs.evaluation is not None
    images = outcome.inputs.evaluation.images()
    snn = [sums[-1] / len(sums) for sums in LayerEngine(outcome.snn).run(images).outputs]
    with torch.inference_mode():
        return [one.numpy() for one in snn], [one.numpy() for one in outcome.ann.graph(images)]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_headline_is_what_numpy_finds(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    make, shape, kind = NETWORKS[name]
    outcome, document = converted(make(), shape, stored(tmp_path / "x.npz", shape))
    snn, ann = by_hand(outcome)
    assert document["task"]["kind"] == kind
    assert document["task"]["assumed"]
    assert "--task" in document["task"]["reason"]
    assert document["task"]["input"] == ("image" if len(shape) == 3 else "input")
    if kind == "segmentation":
        wanted = 100 * float((snn[0].argmax(1) == ann[0].argmax(1)).mean())
    else:
        each = [((one - other) ** 2).sum() / (other**2).sum() for one, other in zip(snn, ann, strict=True)]
        wanted = 100 * float(np.sqrt(np.mean(each)))
    curve, final = document["fit_curve"], document["analysis"]["final"]
    assert curve[curve["metric"]][-1] == pytest.approx(wanted, rel=1e-5)
    assert final["value"] == curve[curve["metric"]][-1]
    assert document["milestones"]["basis"] == curve["metric"]
    assert final["interval"][0] < final["value"] < final["interval"][1]
    assert set(curve["agreement"]) == {None}
    if kind == "raw":
        assert [row["relative_error"][-1] for row in document["outputs"]] == pytest.approx(
            [100 * float(np.sqrt(one)) for one in each], rel=1e-5
        )


def test_labels_of_numbers_give_their_own_figures(tmp_path: Path) -> None:
    torch.manual_seed(4)
    truth = RNG.normal(size=90)
    outcome, document = converted(mlp(), (6,), stored(tmp_path / "y.npz", (6,), y=truth))
    snn, ann = by_hand(outcome)
    assert outcome.inputs.evaluation is not None
    labels = outcome.inputs.evaluation.labels
    assert labels is not None
    assert "real numbers" in document["task"]["reason"]
    assert document["fit_curve"]["mae"][-1] == pytest.approx(np.abs(snn[0][:, 0] - labels).mean(), rel=1e-5)
    assert document["fit_curve"]["rmse"][-1] == pytest.approx(np.sqrt(((snn[0][:, 0] - labels) ** 2).mean()), rel=1e-5)
    assert document["ann"]["rmse"] == pytest.approx(np.sqrt(((ann[0][:, 0] - labels) ** 2).mean()), rel=1e-5)
    variation = ((ann[0] - ann[0].mean()) ** 2).sum()
    assert document["fit_curve"]["r2"][-1] == pytest.approx(1 - ((snn[0] - ann[0]) ** 2).sum() / variation, rel=1e-5)


def test_masks_are_compared_pixel_by_pixel(tmp_path: Path) -> None:
    torch.manual_seed(5)
    masks = RNG.integers(0, 3, (90, 8, 8)).astype(np.uint8)
    masks[:, :2] = 255
    outcome, document = converted(UNet(3), (1, 8, 8), stored(tmp_path / "m.npz", (1, 8, 8), y=masks))
    assert "% of the pixels right, " in verdict(document)
    tried = {"name": "another", "eligible": True, "chosen": False, "agreement": None}
    tried["curve"] = {"metric": "pixel_agreement", "steps": [8], "values": [90.0]}
    drawn = {**document, "candidates": [*document["candidates"], tried]}
    assert "others: same class per pixel" in "".join(plot(drawn)), "they are not known by the figure of this network"
    assert '"title": "pixels (%)"' in json.dumps(latency(drawn))
    snn, ann = by_hand(outcome)
    assert outcome.inputs.evaluation is not None
    wanted = outcome.inputs.evaluation.labels
    assert wanted is not None
    known = wanted != 255
    right = [100 * float((one[0].argmax(1) == wanted)[known].mean()) for one in (snn, ann)]
    assert (document["fit_curve"]["accuracy"][-1], document["ann"]["accuracy"]) == pytest.approx(tuple(right))
    assert document["milestones"]["basis"] == "accuracy"
    assert document["analysis"]["final"]["drop"] == pytest.approx(right[1] - right[0])
    low, high = document["analysis"]["drop_interval"]
    assert low <= right[1] - right[0] <= high
    assert check_document(document, Gates(max_drop=50.0)).ok
    assert check_document(document, Gates(min_accuracy=99.0)).status == Status.failed


def test_one_logit_behind_a_sigmoid_decides_by_its_sign(tmp_path: Path) -> None:
    torch.manual_seed(6)
    module = mlp(nn.Sigmoid())
    outcome, document = converted(module, (6,), stored(tmp_path / "s.npz", (6,)))
    assert document["task"]["kind"] == "classification"
    snn, _ = by_hand(outcome)
    assert outcome.inputs.evaluation is not None
    with torch.inference_mode():
        probability = module(outcome.inputs.evaluation.images()).numpy()
    same = float(((snn[0] > 0) == (probability > 0.5)).mean())
    assert document["analysis"]["final"]["agreement"] == pytest.approx(100 * same)
    assert same < 1 or document["evaluation"]["answers"]["ann"] == 2
    kept, told = converted(module, (6,), str(tmp_path / "s.npz"), task="regression")
    assert not told["task"]["assumed"]
    assert float(by_hand(kept)[1][0].max()) <= 1.0, "the sigmoid is part of what is compared"


def test_a_class_that_never_varies_is_called_out(tmp_path: Path) -> None:
    module = mlp()
    with torch.no_grad():
        module[-1].bias.fill_(100.0)  # type: ignore[index, union-attr, operator]
    _, document = converted(module, (6,), stored(tmp_path / "c.npz", (6,)), task="classification")
    assert document["analysis"]["final"]["agreement"] == 100.0
    (row,) = [row for row in document["warnings"] if row["code"] == "constant_answer"]
    assert "agreement between them means nothing" in row["text"]


def test_gates_and_conditions_on_errors(tmp_path: Path) -> None:
    torch.manual_seed(7)
    _, document = converted(mlp(), (6,), stored(tmp_path / "g.npz", (6,)))
    error = document["analysis"]["final"]["value"]
    assert check_document(document, Gates(max_error=2 * error)).status == Status.passed
    assert check_document(document, Gates(max_error=error / 3)).status == Status.failed
    assert check_document(document, Gates(min_r2=0.2, fail_if=("error > 90",))).ok
    assert check_document(document, Gates(min_r2=1.0)).status == Status.failed
    without = check_document(document, Gates(min_agreement=90.0))
    assert without.status == Status.failed
    assert "regression" in without.verdicts[0].text


def test_a_checkpoint_keeps_its_task(tmp_path: Path) -> None:
    torch.manual_seed(8)
    truth = RNG.normal(size=90)
    outcome, document = converted(mlp(), (6,), stored(tmp_path / "k.npz", (6,), y=truth))
    save_snn(outcome.snn, tmp_path / "net.snn")
    snn = load_snn(tmp_path / "net.snn")
    assert snn.task == outcome.snn.task
    assert outcome.inputs.evaluation is not None
    again = rebuilt_document(snn, outcome.inputs.evaluation, source="again", command_line="")
    for name in ("relative_error", "r2", "mae", "rmse"):
        assert again["fit_curve"][name] == pytest.approx(document["fit_curve"][name], rel=1e-9)
    assert again["ann"]["rmse"] == document["ann"]["rmse"]


def test_auto_takes_a_schedule_whose_error_is_near_the_best(tmp_path: Path) -> None:
    torch.manual_seed(9)
    make, shape, _ = NETWORKS["autoencoder"]
    _, document = converted(make(), shape, stored(tmp_path / "a.npz", shape), timesteps=16, schedule="auto")
    rows = [row for row in document["candidates"] if row["value"] is not None]
    (chosen,) = [row for row in rows if row["chosen"]]
    assert len(rows) > 3
    assert chosen["value"] <= 1.1 * min(row["value"] for row in rows)
    assert {row["curve"]["metric"] for row in rows} == {"relative_error"}
    assert chosen["holds_from"] == min(row["holds_from"] for row in rows if row["holds_from"])


def test_a_table_of_labels_may_hold_numbers(tmp_path: Path) -> None:
    torch.manual_seed(10)
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = []
    for index in range(60):
        Image.fromarray(RNG.integers(0, 256, (8, 8), np.uint8)).save(folder / f"{index:02}.png")
        rows.append((f"{index:02}.png", f"{RNG.normal():.4f}"))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows])
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 1))
    outcome, document = converted(module, (1, 8, 8), str(folder))
    assert document["task"]["kind"] == "regression"
    assert document["fit_curve"]["mae"][-1] is not None
    assert outcome.inputs.evaluation is not None and outcome.inputs.evaluation.labels is not None
    assert outcome.inputs.evaluation.labels.dtype == np.float64


def test_labels_that_do_not_fit_are_refused_with_the_option_that_helps(tmp_path: Path) -> None:
    data = stored(tmp_path / "w.npz", (6,), y=RNG.normal(size=90))
    with pytest.raises(DataError, match="no class numbers") as caught:
        converted(mlp(), (6,), data, task="classification")
    assert "--task regression" in caught.value.hint
    wrong = stored(tmp_path / "v.npz", (6,), y=RNG.normal(size=(90, 3)))
    with pytest.raises(DataError, match="are not the numbers of an output of 1"):
        converted(mlp(), (6,), wrong)
    masks = stored(tmp_path / "u.npz", (1, 8, 8), y=np.full((90, 8, 8), 7, np.uint8))
    with pytest.raises(DataError, match="hold 7, the network has the classes 0 to 2"):
        converted(UNet(3), (1, 8, 8), masks)
    with pytest.raises(OptionError, match="does not fit the labels"):
        converted(mlp(), (6,), data, label_offset=1)


def test_numbers_stop_early_and_the_report_says_it_in_their_words(tmp_path: Path) -> None:
    data = stored(tmp_path / "w.npz", (6,), y=RNG.normal(size=90))
    outcome, document = converted(mlp(), (6,), data, early_exit=0.9, timesteps=32)
    found = document["early_exit"]
    assert (found["metric"], found["truth"], found["by"], found["agreement"]) == (
        "relative_error",
        "rmse",
        "rest",
        None,
    )
    assert found["value"] < 20 and found["mean_steps"] < 32
    said = early_exit.sentence(document) or ""
    assert "the outputs are" in said and "root mean square error" in said and "answers are" not in said
    again = rebuilt_document(outcome.snn, outcome.inputs.measured, source="again", command_line="")
    assert again["early_exit"] == found
