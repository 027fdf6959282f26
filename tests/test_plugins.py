"""Neurons and calibration methods from outside: registered in a script, or brought by an installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import snnconvert
from snnconvert.calibrate import METHODS
from snnconvert.errors import ModelFileError, OptionError
from snnconvert.neurons import NEURONS, register_neuron
from snnconvert.neurons.base import NeuronModel, State

MODULE = '''
from dataclasses import dataclass
from snnconvert import NeuronModel, State, register_calibration
from snnconvert.options import option

def fire(state, threshold, levels):
    n = (state.v / threshold).floor().clamp(-levels, levels).maximum(-state.sent)
    return n, State(state.v - threshold * n, state.sent + n)

DOUBLE = NeuronModel("twofold", fire, range=lambda levels: (-levels, levels), source="a test", memory=True, levels=2)

@dataclass(frozen=True)
class Largest:
    """Of --calibration utmost."""
    times: float = option(1.0, "Thresholds are this many times the largest.", commands=("convert",), above=0)

@register_calibration("utmost", help="the largest activation", options=Largest)
def utmost(task):
    from snnconvert.calibrate.observe import ranges
    from snnconvert.options import made
    times = made(Largest, task.options).times
    found, _ = ranges(task.ann.graph, task.images, task.progress)
    sites = {name: task.site(times * site.largest, site) for name, site in found.items()}
    record = {"method": "utmost", "options": {"times": times}, "candidates": []}
    return task.calibrated(task.ann.graph, sites, record)

def plain(task):
    """Found by its entry point alone."""
    return utmost(task)
'''
ENTRY_POINTS = """
[snnconvert.neurons]
twofold = my_spikes:DOUBLE

[snnconvert.calibration]
utmost = my_spikes:utmost
plain = my_spikes:plain
"""
WORDS = ("zoo:digits-cnn", "-T", "6", "--schedule", "streaming", "--limit", "40", "--calibration-samples", "32", "-q")


def installed(folder: Path, entry_points: str = ENTRY_POINTS, module: str = MODULE) -> Path:
    """A distribution, as pip leaves it behind."""
    about = folder / "my_spikes-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-spikes\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(entry_points)
    (folder / "my_spikes.py").write_text(module)
    return folder


def command(*words: str, folder: Path, plugin: Path | None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with or without the distribution."""
    paths = [str(Path(snnconvert.__file__).parents[1]), *([str(plugin)] if plugin else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "snnconvert", *words]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_an_installed_package_brings_a_neuron_and_a_method_to_the_command_line(tmp_path: Path) -> None:
    plugin = installed(tmp_path / "site")
    shown = command("convert", "--help-all", folder=tmp_path, plugin=plugin)
    assert "|twofold|" in shown.stdout and "|utmost|plain]" in shown.stdout and "--times X" in shown.stdout
    assert shown.stderr == ""
    made = command(
        *WORDS, "--neuron", "twofold", "--calibration", "utmost", "--times", "0.9", "-o", "m.snn",
        folder=tmp_path, plugin=plugin,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    document = json.loads((tmp_path / "m.json").read_text("utf-8"))
    assert document["neuron"]["model"] == "twofold"
    assert document["calibration"]["options"] == {"times": 0.9}
    assert document["analysis"]["final"]["accuracy"] > 80
    again = command("run", "m.snn", "--data", "zoo:digits-cnn", "--json", folder=tmp_path, plugin=plugin)
    assert json.loads(again.stdout)["same_as_conversion"] is True
    refused = command("run", "m.snn", "--data", "zoo:digits-cnn", folder=tmp_path, plugin=None)
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: m.snn has neurons of the model 'twofold', which is not known\n\nhint: install the package that brings "
        "it, or register it first (snnconvert.register_neuron); it was my-spikes 1.2\n"
    )
    # a manifest takes both, and workers know them
    (tmp_path / "zoo.toml").write_text(
        '[defaults]\nneuron = "twofold"\ncalibration = "plain"\ntimesteps = 4\nschedule = "streaming"\nlimit = 20\n'
        'calibration_samples = 16\n\n[[model]]\nsource = "zoo:digits-cnn"\n'
    )
    zoo = command("zoo", "run", "zoo.toml", "-j", "1", folder=tmp_path, plugin=plugin)
    assert zoo.returncode == 0, zoo.stderr + zoo.stdout
    assert "1 of 1 models converted" in zoo.stdout


def test_a_package_that_cannot_be_loaded_is_named_and_stops_nothing(tmp_path: Path) -> None:
    alone = "[snnconvert.neurons]\ntwofold = my_spikes:DOUBLE\n"
    plugin = installed(tmp_path / "site", alone, "import nowhere_at_all\n")
    shown = command("convert", "--help", folder=tmp_path, plugin=plugin)
    assert shown.returncode == 0
    assert shown.stderr == (
        "note: my-spikes 1.2 brings 'twofold', but it cannot be loaded: ModuleNotFoundError: No module named "
        "'nowhere_at_all'\n"
    )
    other = installed(tmp_path / "named", alone, MODULE.replace('NeuronModel("twofold"', 'NeuronModel("other"'))
    assert "calls itself 'other'" in command("--help", folder=tmp_path, plugin=other).stderr


def fire(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    assert state.sent is not None
    n = (state.v / threshold).floor().clamp(-levels, levels).maximum(-state.sent)
    return n, State(state.v - threshold * n, state.sent + n)


def lazy(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    """The same up to a late threshold."""
    return fire(State(state.v - 0.25 * threshold, state.sent), threshold, levels)


def forgetful(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    """The same as long as it never sends more than four."""
    n, after = fire(state, threshold, levels)
    assert after.sent is not None
    return n, State(after.v, after.sent.clamp(max=4))


MINE = NeuronModel("mine", fire, range=lambda levels: (-levels, levels), source="this test", memory=True, levels=2)


def firing(step: Any) -> Any:
    """Equations of the membrane and the count of spikes alone."""
    return lambda state, *_: step(state.v, state.sent)


@pytest.mark.usefixtures("tables")
def test_a_checkpoint_needs_its_neuron(tmp_path: Path) -> None:
    assert snnconvert.register_neuron(MINE).provider == __name__
    snnconvert.register_neuron(MINE)  # a cell of a notebook is run again
    made = snnconvert.convert_model(
        "zoo:digits-cnn", neuron="mine", timesteps=4, schedule="streaming", calibration="mse", calibration_samples=16,
        limit=20,
    )  # fmt: skip
    path = snnconvert.save(made, tmp_path / "m.snn")
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(snnconvert.load(path)(x), made.snn(x))
    snnconvert.register_neuron(replace(MINE, fire=partial(fire)))  # of another make, the same equations
    assert torch.equal(snnconvert.load(path)(x), made.snn(x))
    for changed in (lazy, forgetful):
        snnconvert.register_neuron(replace(MINE, fire=changed, provider="my-spikes 2.0"))
        with pytest.raises(ModelFileError, match="'mine' that is registered sends other spikes") as caught:
            snnconvert.load(path)
        assert f"from {__name__}" in caught.value.hint and "my-spikes 2.0" in caught.value.hint
    del NEURONS["mine"]
    with pytest.raises(ModelFileError, match="neurons of the model 'mine', which is not known") as caught:
        snnconvert.load(path)
    assert __name__ in caught.value.hint


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "if"}, "'if' is a neuron of snnconvert itself"),
        ({"name": "auto"}, "'auto' cannot name a neuron"),
        ({"name": "My Neuron"}, "'My Neuron' cannot name a neuron"),
        ({"name": "--neuron"}, "cannot name a neuron"),
        ({"native": 1}, "names kernels"),
        ({"range": lambda levels: (0, levels)}, "fire sends -2 to 0 units where its range is 0 to 2"),
        ({"memory": False}, "its equations fail: AssertionError"),
        ({"fire": firing(lambda v, sent: (v / 1.5, State(v, sent)))}, "other than whole numbers"),
        ({"fire": firing(lambda v, sent: (v.floor().clamp(-2, 2).sum(), State(v, sent)))}, "membrane's shape"),
        ({"fire": firing(lambda v, _: v)}, "its equations fail: ValueError"),
        ({"fire": firing(lambda v, sent: (v.zero_(), State(v, sent)))}, "changes the membrane in place"),
        ({"fire": firing(lambda v, _: (0 * v, State(v, None)))}, "memory is True"),
        ({"fire": firing(lambda v, sent: (0 * v, State(v / 0, sent)))}, "not finite"),
        ({"fire": firing(lambda v, _: (0 * v, v))}, "does not return"),
    ],
)
def test_equations_that_break_a_rule_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        register_neuron(replace(MINE, **changed))
    assert caught.value.hint
    assert "mine" not in NEURONS


@pytest.mark.usefixtures("tables")
def test_a_method_is_a_decorated_function() -> None:
    @snnconvert.register_calibration("halved")
    def halved(task: snnconvert.Task) -> Any:
        """Half the thresholds of mse."""
        found = METHODS["mse"](task)
        sites = {name: replace(site, threshold=site.threshold / 2) for name, site in found.sites.items()}
        return replace(found, sites=sites, record={**found.record, "method": "halved", "options": {}})

    assert METHODS["halved"].help == "Half the thresholds of mse."
    made = snnconvert.convert_model("zoo:digits-cnn", calibration="halved", timesteps=4, schedule="streaming", limit=20)
    assert made.report["calibration"]["method"] == "halved"
    with pytest.raises(OptionError, match="percentile means nothing to calibration halved"):
        snnconvert.convert_model("zoo:digits-cnn", calibration="halved", percentile=3)
    for refused, message in (
        (lambda: snnconvert.register_calibration("mse"), "of snnconvert itself"),
        (lambda: snnconvert.register_calibration("x y"), "cannot name a calibration method"),
        (lambda: snnconvert.register_calibration("new", options=int), "no declared options"),
        (lambda: snnconvert.register_calibration("new")(3), "no function"),
        (lambda: snnconvert.register_neuron(halved), "function is no neuron model"),  # type: ignore[arg-type]
    ):
        with pytest.raises(OptionError, match=message):
            refused()
