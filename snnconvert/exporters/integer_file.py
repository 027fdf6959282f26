"""The exporter `integers`: what is asked of it, the folder that it writes, and the C reference as its reader."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from snnconvert.cost.chip import load_target, violations
from snnconvert.errors import InternalError, OptionError
from snnconvert.exporters.integers import (
    FILES,
    GOLDEN,
    INPUTS,
    IntegerExport,
    Widths,
    compiled_reference,
    run_reference,
)
from snnconvert.exporters.task import Reader, Recording, Task, Written

# inputs of the golden trace: it holds every membrane in every step
GOLDEN_IMAGES = 2


def write_integers(task: Task) -> Written:
    """A folder with the network in integers (see `integers`).

    Raises:
        OptionError: widths that cannot be exported, or a chip whose reset is another one than that of the neurons.
        UnsupportedError: naming what has no integer form.
    """
    widths, notes = _widths(task)
    made = IntegerExport(task.snn, widths)
    images = task.images
    if images is None:
        drawn = torch.rand(GOLDEN_IMAGES, *task.snn.input_shape, generator=torch.Generator().manual_seed(0))
        images = (2 * drawn - 1) * made.largest_input / 2
        notes.append("the golden trace is of random inputs: give --data for real ones")
    if made.engine.integers.shortcut_synapses > 1:
        notes.append(
            f"the factor of an identity shortcut takes up to {made.engine.integers.shortcut_synapses} synapses side by "
            f"side of {widths.weight}-bit weights"
        )
    made.write(task.path, images[:GOLDEN_IMAGES])
    facts = {"weight_bits": widths.weight, "state_bits": widths.state, "input_bits": widths.input}
    files = tuple(task.path / name for name in FILES)
    return Written(files, task.snn, tuple(notes), facts, engine=_simulated(made))


def read_integers(task: Task, written: Written) -> Reader:
    """The C reference, compiled and run; it has to repeat the golden trace first, bit for bit."""
    made, folder = IntegerExport(task.snn, _widths(task)[0]), written.files[0].parent
    place = tempfile.TemporaryDirectory()  # as long as the reader lives
    program = compiled_reference(folder, Path(place.name))
    if run_reference(program, (folder / INPUTS).read_bytes()) != (folder / GOLDEN).read_bytes():
        raise InternalError("the C reference does not repeat the golden trace")

    def run(batch: Tensor) -> Recording:
        assert place
        spikes, outputs = {site.name: list[Tensor]() for site in made.program.sites()}, list[Tensor]()
        for image in batch:
            sent, output = made.parsed(run_reference(program, made.inputs(image[None])))
            outputs.append(output)
            for name, tensor in sent.items():
                spikes[name].append(tensor)
        return Recording({name: torch.cat(parts, 1) for name, parts in spikes.items()}, torch.cat(outputs, 1))

    return run


def _simulated(made: IntegerExport) -> Reader:
    """The same integers in this package's simulation."""

    def run(batch: Tensor) -> Recording:
        steps: dict[str, dict[int, Tensor]] = {site.name: {} for site in made.program.sites()}

        def watch(name: str, step: int, membranes: Tensor, spikes: Tensor) -> None:
            del membranes
            steps[name][step] = spikes.to(torch.int32)

        outputs = made.engine.run(batch, watch).outputs[-1:]
        frames = {name: made.by_frame(name, found) for name, found in steps.items()}
        return Recording(frames, outputs)

    return run


def _widths(task: Task) -> tuple[Widths, list[str]]:
    """The widths that are asked for, those of a chip before the usual ones, and what does not fit that chip."""
    widths, notes = Widths(), list[str]()
    name = task.options["target"]
    if name is not None:
        target = load_target(name)
        given = {"weight": target.weight_bits, "state": target.state_bits, "input": target.input_bits}
        kept = {key: bits for key, bits in given.items() if bits is not None}
        widths = replace(widths, scale_per=target.scale_per or widths.scale_per, **kept)
        broken = violations(task.snn, target)
        if any(row["limit"] == "reset" for row in broken):
            neuron = "if-zero" if target.reset == "zero" else "if"
            raise OptionError(
                f"{target.name} resets a membrane to {target.reset}; the neurons of this network do not",
                hint=f"convert the model with --neuron {neuron} --schedule streaming, which calibrates it for that",
                options=("target",),
            )
        notes += [f"{target.name}: {row['layer']}: {row['text']}" for row in broken]
    asked = {"weight": task.options["weight_bits"], "state": task.options["state_bits"]}
    return replace(widths, **{key: bits for key, bits in asked.items() if bits is not None}), notes
