"""A spiking network as a torch module of its own: a readable file and its weights, or one step as a .pt2 program.

The module is the checkpoint's network itself, not its portable form: torch has all the precisions that it needs.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnconvert.exporters.task import Reader, Recording, Task, Written
from snnconvert.exporters.torch_source import Source
from snnconvert.files import atomic, write_atomically
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn

MODULE, WEIGHTS, PROGRAM = "network.py", "weights.pt", "step.pt2"


def write_torch(task: Task) -> Written:
    """Write a folder: network.py and weights.pt, or step.pt2 (see `Exporter.write`)."""
    source = Source(task.snn)
    text = source.text()
    facts = {"lines": len(text.splitlines()), "tensors": len(source.tensors)}
    if task.form == "pt2":
        path = task.path / PROGRAM
        with atomic(path) as temporary:
            _program(source, text, task.snn, temporary)
        note = "output, state, spikes = torch.export.load(FILE).module()(image, state); states start as network.start"
        return Written((path,), task.snn, (_ranges(task.snn), note), facts)
    files = task.path / MODULE, task.path / WEIGHTS
    with atomic(files[1]) as temporary:
        torch.save(source.tensors, temporary)
        write_atomically({files[0]: text})
    return Written(files, task.snn, (f"from network import Network; Network()(images); {_ranges(task.snn)}",), facts)


def _ranges(snn: Snn) -> str:
    return f"images are (batch, {', '.join(map(str, snn.input_shape))}), prepared as for the network"


def _loaded(path: Path | None, text: str) -> Any:
    """The module that was written, imported from its file; or from its text."""
    spec = importlib.util.spec_from_loader("snnconvert_exported", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path or MODULE)
    sys.modules[spec.name] = module  # nn.Module looks its class's module up
    exec(compile(text, module.__file__, "exec"), module.__dict__)  # what this package wrote itself
    return module


class _Step(nn.Module):
    """One step of a written module, as a program."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, state: dict[str, Any]) -> Any:
        step: Any = self.network.step
        return step(image, state)


def _program(source: Source, text: str, snn: Snn, path: Path) -> None:
    """One step with a free number of images."""
    network: Any = _loaded(None, text).Network(None)
    network.load_state_dict(source.tensors)
    image = torch.zeros(2, *snn.input_shape)
    state = network.start(image)
    free = {0: torch.export.Dim("batch")}

    def shapes(value: Any) -> Any:
        return tuple(map(shapes, value)) if isinstance(value, tuple) else free if value.ndim else None

    dynamic = {"image": free, "state": {name: shapes(value) for name, value in state.items()}}
    with torch.no_grad():
        program = torch.export.export(_Step(network.eval()), (image, state), dynamic_shapes=dynamic)
    with path.open("wb") as file:
        torch.export.save(program, file)


def read_torch(task: Task, written: Written) -> Reader:
    """What runs the written module, or program, step by step."""
    source = Source(task.snn)
    text = written.files[0].read_text("utf-8") if task.form != "pt2" else source.text()
    made = _loaded(written.files[0] if task.form != "pt2" else None, text)
    network = made.Network() if task.form != "pt2" else made.Network(None)
    step: Callable[..., Any] = network.step
    if task.form == "pt2":
        network.load_state_dict(source.tensors)
        step = torch.export.load(written.files[0]).module()
    snn, schedule = task.snn, task.snn.schedule
    depths, frames = site_depths(snn.graph), schedule.frames
    total = frames if schedule.windowed else schedule.timesteps

    def first(site: str) -> int:
        return 0 if schedule.windowed else schedule.emission_step(depths[site], 0)

    output_site = max(source.sites, key=lambda site: depths[site])

    @torch.no_grad()
    def run(batch: Tensor) -> Recording:
        state, outputs = network.start(batch), list[Tensor]()
        spikes: dict[str, list[Tensor]] = {site: [] for site in source.sites}
        for _ in range(total):
            output, state, sent = step(batch, state)
            outputs.append(output.double())
            for site, name in source.sites.items():
                spikes[site].append(sent[name].to(torch.int16))
        by_frame = {site: torch.stack(each[first(site) : first(site) + frames]) for site, each in spikes.items()}
        read = outputs[first(output_site) + schedule.read_from : first(output_site) + frames]
        return Recording(by_frame, torch.stack(read).cumsum(0))

    return run
