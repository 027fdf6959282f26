"""A folder with tiny models, good and bad, their data and a manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, save

from snnconvert.zoo.batch import Quiet, Settings, run_zoo
from snnconvert.zoo.manifest import load_manifest
from snnconvert.zoo.processes import Task, Watcher
from snnconvert.zoo.rows import Outcome, Result
from snnconvert.zoo.worker import convert_task

FACTORIES = """
import os, time
import torch
from torch import nn

def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))

def good(): return network(1)
def other(): return network(2)
def third(): return network(3)

def hang(): time.sleep(600)
def crash(): os.kill(os.getpid(), 9)
def greedy(): return torch.zeros(1 << 40)
def slow():
    time.sleep(1.0)
    return network(4)

def lasting():
    import ray
    with open(str(os.getpid()) + ".part", "w") as file:
        file.write(ray.get_runtime_context().get_node_id())
    os.rename(str(os.getpid()) + ".part", str(os.getpid()) + ".started")
    time.sleep(6.0)
    return network(5)
"""

DEFAULTS = """
[defaults]
timesteps = 4
data = "test.npz"
calibration_data = "train.npz"
calibration = "percentile"
calibration_samples = 16
schedule = "streaming"
input_shape = [1, 4, 4]
"""


def write_folder(folder: Path, images: int = 30) -> None:
    """Data (so many test images) and factories; nothing random from run to run."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for name, count in (("train", 20), ("test", images)):
        pixels = generator.integers(0, 256, (count, 4, 4), dtype=np.uint8)
        np.savez(folder / f"{name}.npz", x=pixels, y=generator.integers(0, 4, count))
    (folder / "nets.py").write_text(FACTORIES)


def write_manifest(folder: Path, models: str, defaults: str = DEFAULTS) -> Path:
    """zoo.toml with these [[model]] tables."""
    path = folder / "zoo.toml"
    path.write_text(defaults + models)
    return path


def factory(name: str, *lines: str) -> str:
    """A [[model]] table for a factory of FACTORIES."""
    rows = ["[[model]]", f'name = "{name}"', f'source = "nets.py:{name}"', *lines]
    return "\n".join(rows) + "\n"


def write_onnx(path: Path, operator: str = "Relu", seed: int = 0) -> None:
    """A dense network on (1, 4, 4) images with one activation."""
    generator = np.random.default_rng(seed)
    weights = {"w": generator.standard_normal((16, 8)), "v": generator.standard_normal((8, 4))}
    stored = [
        helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.astype(np.float32).tobytes(), raw=True)
        for name, value in weights.items()
    ]
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["h"]),
        helper.make_node(operator, ["h"], ["a"], name="the_activation"),
        helper.make_node("MatMul", ["a", "v"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 4, 4]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4]),
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def check_pages(out: Path) -> None:
    """The matrix links to its reports, whose charts are all drawn by one file."""
    page = (out / "zoo.html").read_text()
    assert "3 of 9 models converted" in page
    assert 'href="models/good/good.html"' in page
    report = out / "models" / "good" / "good.html"
    assert '<script src="../../charts.js"></script>' in report.read_text("utf-8")
    assert (report.parent / "../../charts.js").stat().st_size > 5e5 > report.stat().st_size


class Listener(Quiet):
    """Remembers what was done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def finished(self, result: Result) -> None:
        self.done.append(result.entry.name)


class Inline:
    """An engine without processes, for tests of what happens around them."""

    def __init__(self, *, folder: Path, watcher: Watcher, **_: Any) -> None:
        self.folder, self.watcher = folder, watcher

    def run(self, tasks: Sequence[Task]) -> None:
        with contextlib.chdir(self.folder):
            for task in tasks:
                self.watcher.finished(task, convert_task(task))


def run(path: Path, **settings: Any) -> tuple[Outcome, list[str]]:
    """A run of the manifest at `path`, and the models in the order in which they were done."""
    listener = Listener()
    outcome = run_zoo(load_manifest(path), path.parent / "out", Settings(**{"jobs": 2, **settings}), listener)
    return outcome, listener.done


def rows(outcome: Outcome) -> Mapping[str, Mapping[str, Any]]:
    """By the models' names."""
    return {result.entry.name: result.row for result in outcome.results}
