"""The exporter `nir`: a file, the few lines that a reader needs to hold it rightly, and that reader in a process."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnconvert.errors import OptionError, UnsupportedError
from snnconvert.exporters.nir_graph import NirGraph, Profile
from snnconvert.exporters.portable import Form, portable
from snnconvert.exporters.task import Reader, Recording, Task, Written
from snnconvert.graph.types import Snn


@dataclass(frozen=True)
class NirReader:
    """A program that reads NIR.

    Attributes:
        form: of the network that it can hold.
        profile: of the file.
        package: what has to be importable where it runs.
        note: what else its user has to know.
    """

    form: Form
    profile: Profile
    package: str
    note: str = ""


_PORT = Form(convolutions=True, rounds=False)
_UNIT = Form(unit=True, convolutions=True, rounds=False)
READERS = {
    "sinabs": NirReader(
        _UNIT, Profile(), "sinabs", note="before sinabs.backend.dynapcnn discretises it for a Speck: load(lowest=-16)"
    ),
    "spikingjelly": NirReader(_UNIT, Profile(resistance=1e4), "spikingjelly"),
    "norse": NirReader(_PORT, Profile(neuron="cubalif", above=True), "norse"),
    "snntorch": NirReader(_UNIT, Profile(above=True), "snntorch"),
    "primitive": NirReader(_PORT, Profile(neuron="primitive", above=True), "nirtorch"),
}
# readers that cannot hold what conversions make, and why
REFUSED = {
    "spyx": "spyx follows the first edge out of a node only and drops other branches silently",
    "rockpool": "rockpool reads no convolutions from NIR",
}


def write_nir(task: Task) -> Written:
    """The file, and load_NAME.py beside it.

    Raises:
        OptionError: no reader, or one that cannot hold such networks.
        UnsupportedError: another schedule than streaming, or nodes that the reader cannot hold.
    """
    import nir

    reader, snn = reader_of(task), task.snn
    if snn.schedule.delay or snn.schedule.windowed:
        raise UnsupportedError(
            f"NIR has no schedule {snn.schedule.name}: all of its neurons integrate and send in every step",
            hint="run the checkpoint with --schedule streaming first and keep it with -o, or convert with it",
        )
    network = portable(snn, reader.form)
    made = NirGraph(network, reader.profile)
    task.path.parent.mkdir(parents=True, exist_ok=True)
    nir.write(str(task.path), made.file())
    _without_reset(task.path)
    loader = loader_of(task.path)
    loader.write_text(_loader(task, made, network), "utf-8")
    notes = (f"{loader.name} sets {task.options['reader']} right: load() and simulate(images)", reader.note)
    return Written(
        (task.path, loader), network, tuple(filter(None, notes)), {"nodes": len(made.nodes), "edges": len(made.edges)}
    )


def reader_of(task: Task) -> NirReader:
    """The reader that is asked for."""
    name = task.options["reader"]
    if name in REFUSED:
        raise OptionError(REFUSED[name], hint=f"choose one of {', '.join(READERS)}", options=("reader",))
    if name not in READERS:
        what = "--to nir needs to know who reads it" if name is None else f"--reader {name!r} is not known"
        raise OptionError(what, hint=f"give --reader one of {', '.join(READERS)}", options=("reader",))
    return READERS[name]


def loader_of(path: Path) -> Path:
    """Where the lines for the reader are."""
    return path.with_name(f"load_{path.stem}.py")


def _loader(task: Task, made: NirGraph, network: Snn) -> str:
    folder = resources.files("snnconvert.exporters").joinpath("nir_loaders")
    text, common = (
        folder.joinpath(f"{name}.txt").read_text("utf-8") for name in (f"load_{task.options['reader']}", "load_common")
    )
    filled = common.format(
        timesteps=network.schedule.timesteps,
        read_from=network.schedule.read_from,
        grid=repr(made.grid),
        limit=repr(made.limit) if math.isfinite(made.limit) else 'float("inf")',
        shape=made.input_shape,
    )
    return text.format(common=filled, file=task.path.name)


def _without_reset(path: Path) -> None:
    """Drop what nir writes since 1.0.5, and older versions, which sinabs pins, cannot read."""
    import h5py

    with h5py.File(path, "r+") as file:
        for node in file["node"]["nodes"].values():
            if "v_reset" in node:
                del node["v_reset"]


def read_nir(task: Task, written: Written) -> Reader:
    """The reader in a process of its own, in the environment of `--python`.

    Raises:
        OptionError: if the reader is not installed there, or fails.
    """
    reader, python = reader_of(task), task.options["python"] or sys.executable
    probe = subprocess.run(
        [python, "-c", f"import importlib.util, sys; sys.exit(importlib.util.find_spec({reader.package!r}) is None)"],
        capture_output=True,
        check=False,
    )
    if probe.returncode:
        raise OptionError(
            f"{reader.package} is not installed for {python}",
            hint=f"name the Python of an environment that has it with --python, or pip install {reader.package}",
            options=("python",),
        )
    harness = str(resources.files("snnconvert.exporters").joinpath("nir_harness.py"))

    def run(batch: Tensor) -> Recording:
        with tempfile.TemporaryDirectory() as place:
            inputs, outputs = Path(place) / "inputs.npz", Path(place) / "outputs.npz"
            np.savez(inputs, images=batch.float().numpy())
            command = [python, harness, str(loader_of(written.files[0])), str(inputs), str(outputs)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise OptionError(
                    f"{task.options['reader']} cannot run {written.files[0]}: {done.stderr.strip()[-600:]}",
                    hint="the versions that were tried are named in the loader beside the file",
                )
            with np.load(outputs) as found:
                return _recording({name: found[name] for name in found.files}, written.network)

    return run


def _recording(found: dict[str, Any], network: Snn) -> Recording:
    shapes = {node.name: tuple(node.meta["shape"]) for node in network.graph.graph.nodes if node.op != "output"}
    spikes = {}
    for name, array in found.items():
        if name.startswith("spikes/"):
            site = name.removeprefix("spikes/")
            spikes[site] = torch.from_numpy(array).reshape(*array.shape[:2], *shapes[site])
    scores = torch.from_numpy(found["scores"])
    return Recording(spikes, scores.unsqueeze(0))
