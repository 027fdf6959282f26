"""Integers for chips and hardware descriptions: a C header, the same as arrays, and a golden trace.

A folder holds
    network.h      every weight, bias, threshold and initial membrane as an integer, and the instructions that use them
    reference.c    the interpreter of these instructions; plain C, no floating point
    integers.npz   the same arrays for Python, with the size of each unit
    integers.json  layers, widths, scales, timing, and the layout of the trace
    inputs.bin     the integers of a few inputs
    golden.bin     membranes and spikes of every neuron in every step on these, and the scores
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.errors import OptionError, OutputError
from snnconvert.exporters.integer_program import Instruction, IntegerProgram, timing
from snnconvert.graph.dialect import output_nodes
from snnconvert.graph.types import Snn
from snnconvert.simulate.integer import IntegerEngine

HEADER, REFERENCE, ARRAYS, ACCOUNT, INPUTS, GOLDEN = (
    "network.h", "reference.c", "integers.npz", "integers.json", "inputs.bin", "golden.bin",
)  # fmt: skip
FILES = (HEADER, REFERENCE, ARRAYS, ACCOUNT, INPUTS, GOLDEN)
# widest integers that the header's types hold
LARGEST_BITS = {"weight": 16, "state": 32, "input": 24}


@dataclass(frozen=True)
class Widths:
    """Bits of integers, sign included; `scale_per` channel or layer."""

    weight: int = 8
    state: int = 16
    input: int = 16
    scale_per: str = "channel"


class IntegerExport:
    """`snn` in integers, ready to be written.

    Raises:
        OptionError: for widths that the header's types cannot hold.
        UnsupportedError: naming the first node without an integer form.
    """

    def __init__(self, snn: Snn, widths: Widths) -> None:
        for name, most in LARGEST_BITS.items():
            if not 2 <= getattr(widths, name) <= most:
                raise OptionError(
                    f"{name} integers of {getattr(widths, name)} bits cannot be exported", hint=f"choose 2 to {most}"
                )
        self.snn, self.widths = snn, widths
        self.engine = IntegerEngine(
            snn,
            weight_bits=widths.weight,
            state_bits=widths.state,
            input_bits=widths.input,
            scale_per=widths.scale_per,
        )
        self.program = IntegerProgram(self.engine.integers)

    def write(self, folder: Path, images: Tensor) -> None:
        """Write the folder's files, with the trace of `images` (n, *sample)."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            (folder / HEADER).write_text(self.header(), "utf-8")
            (folder / REFERENCE).write_text(_packaged(REFERENCE), "utf-8")
            np.savez_compressed(folder / ARRAYS, **self.arrays())  # type: ignore[arg-type]
            (folder / ACCOUNT).write_text(json.dumps(self.account(len(images)), indent=1) + "\n", "utf-8")
            (folder / INPUTS).write_bytes(self.inputs(images))
            with (folder / GOLDEN).open("wb") as file:
                for image in images:
                    file.write(self.trace(image))
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error}", hint="make room, or choose another place") from error

    # --- values ---

    def inputs(self, images: Tensor) -> bytes:
        """Integers of `images` as little-endian int32."""
        return self.engine.whole_input(images).to(torch.int32).numpy().astype("<i4").tobytes()

    def trace(self, image: Tensor) -> bytes:
        """What reference.c writes for one image: membranes and spikes of each step, then the scores."""
        steps, sites = self.snn.schedule.timesteps, self.program.sites()
        seen: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
        for site in sites:
            start = _broadcast(site, "second")
            seen[site.name] = np.tile(start, (steps, 1)), np.zeros((steps, len(start)), np.int64)

        def watch(name: str, step: int, membranes: Tensor, spikes: Tensor) -> None:
            held, sent = seen[name]
            held[step:] = membranes[0].flatten().numpy()
            sent[step] = spikes[0].flatten().numpy()

        run = self.engine.run(image.unsqueeze(0), watch)
        rows = [part[step] for step in range(steps) for site in sites for part in seen[site.name]]
        return np.concatenate(rows).astype("<i4").tobytes() + self.scores(run.scores)

    @staticmethod
    def scores(scores: Tensor) -> bytes:
        """As reference.c writes them."""
        return scores.numpy().round().astype("<i8").tobytes()

    def parsed(self, trace: bytes) -> tuple[dict[str, Tensor], Tensor]:
        """What `trace` of one image says: units by site (frames, 1, *sample), and the output (1, 1, scores)."""
        steps, sites = self.snn.schedule.timesteps, self.program.sites()
        split = len(trace) - 8 * self.program.scores
        rows = torch.from_numpy(np.frombuffer(trace[:split], "<i4").astype(np.int32)).reshape(steps, -1)
        sizes = [site.numbers["size"] for site in sites for _ in range(2)]
        parts = torch.split(rows, sizes, 1)[1::2]
        spikes = {
            site.name: self.by_frame(site.name, dict(enumerate(part.unsqueeze(1))))
            for site, part in zip(sites, parts, strict=True)
        }
        scores = torch.from_numpy(np.frombuffer(trace[split:], "<i8").astype(np.float64))
        output = output_nodes(self.snn.graph)[0]
        return spikes, scores.reshape(1, 1, -1) * self.engine.units[output].sizes

    def by_frame(self, name: str, steps: Mapping[int, Tensor]) -> Tensor:
        """The units that a site sent in each of its frames, from those of every step."""
        moments = self.engine.moments(self.engine.depths[name])
        sent = torch.stack([steps[step] for step in sorted(moments)])
        return sent.reshape(self.snn.schedule.frames, -1, *sent.shape[1:]).sum(1)

    # --- files ---

    def header(self) -> str:
        """network.h."""
        widths, program, snn = self.widths, self.program, self.snn
        constants = {
            **timing(snn.schedule),
            "LOWEST": int(self.engine.integers.low),
            "HIGHEST": int(self.engine.integers.high),
            "INPUTS": int(np.prod(snn.input_shape)),
            "VALUES": program.values,
            "STATES": max(1, program.states),
            "SCORES": program.scores,
            "SCORE_AT": program.score_at,
            "SCORE_DEPTH": program.score_depth,
            "OPS": len(program.instructions),
        }
        lines = [
            f"/* {snn.source.name}: a spiking network in integers, {snn.schedule.describe()}, "
            f"T = {snn.schedule.timesteps}.",
            f" * Weights {widths.weight} bits, membranes {widths.state}, inputs {widths.input}; one unit per "
            f"{widths.scale_per}.",
            f" * An input of 1 is {self.input_unit:.9g} of the model's input. */",
            *(f"#define {name} ({value})" for name, value in constants.items()),
            f"#include <stdint.h>\ntypedef {_weight_type(widths)} weight_t;",
            _packaged("instruction.h"),
        ]
        for number, one in enumerate(program.instructions):
            for name, array in one.arrays.items():
                kind = "weight_t" if name == "weight" else "int32_t"
                lines.append(f"static const {kind} {name}_{number}[] = {{ /* {_comment(one)} */")
                values = [str(value) for value in array.flatten().tolist()]
                lines += [", ".join(values[start : start + 32]) + "," for start in range(0, len(values), 32)]
                lines.append("};")
        lines.append("static const op_t ops[OPS] = {")
        for number, one in enumerate(program.instructions):
            pointers = {name: f"{name}_{number}" for name in one.arrays}
            given = {"kind": one.kind, **one.numbers, **pointers}
            told = ", ".join(f".{name} = {value}" for name, value in given.items())
            lines.append(f"    {{{told}}}, /* {_comment(one)} */")
        return "\n".join([*lines, "};", ""])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By node and what it is: weights as the header's type, everything else int32, and the size of each unit."""
        found: dict[str, NDArray[Any]] = {}
        meaning = {
            "CONVOLVE": {"weight": "weight", "first": "bias"},
            "FIRE": {"first": "threshold", "second": "initial"},
            "SCALE": {"first": "factor"},
            "RESCALE": {"first": "multiplier", "second": "shift"},
            "MOVE": {"first": "from"},
        }
        ops = {node.name: (node, op) for node, op in self.engine.integers.ops.items()}
        for one in self.program.instructions:
            for name, array in one.arrays.items():
                narrow = (np.int8 if self.widths.weight <= 8 else np.int16) if name == "weight" else np.int32
                shape = tuple(ops[one.name][1].get_buffer("weight").shape) if name == "weight" else array.shape
                found[f"{one.name}.{meaning[one.kind][name]}"] = array.reshape(shape).astype(narrow)
            node = ops[one.name][0] if one.name in ops else None
            unit = self.engine.units.get(node) if node is not None else None
            if unit is not None:
                found[f"{one.name}.unit"] = unit.sizes.double().numpy()
        return found

    def account(self, images: int) -> dict[str, Any]:
        """integers.json: what the numbers mean."""
        return {
            "model": {"name": self.snn.source.name, "sha256": self.snn.source.sha256},
            "schedule": self.snn.schedule.to_dict(),
            "preprocessing": self.snn.preprocessing,
            "label_offset": self.snn.label_offset,
            "input": {"shape": list(self.snn.input_shape), "bits": self.widths.input, "unit": self.input_unit},
            "weight_bits": self.widths.weight,
            "state_bits": self.widths.state,
            "scale_per": self.widths.scale_per,
            "timing": timing(self.snn.schedule),
            "layers": [
                {"kind": one.kind.lower(), "name": one.name, "origin": one.origin, **one.numbers}
                for one in self.program.instructions
            ],
            "golden": {
                "images": images,
                "layout": "per image: per step, per neuron layer: membranes after the step, spikes of the step "
                "(int32, little endian); then the scores (int64)",
                "neuron_layers": [{"name": one.name, "size": one.numbers["size"]} for one in self.program.sites()],
                "scores": self.program.scores,
            },
        }

    @property
    def input_unit(self) -> float:
        """What an input of 1 stands for."""
        (entry,) = [node for node in self.engine.domains if node.op == "placeholder"]
        return float(self.engine.units[entry].sizes[0])

    @property
    def largest_input(self) -> float:
        """Of the model's input, what the integers reach."""
        return self.input_unit * (self.engine.integers.largest_input or 0)


def _packaged(name: str) -> str:
    return resources.files("snnconvert.exporters").joinpath(name).read_text("utf-8")


def _weight_type(widths: Widths) -> str:
    return "int8_t" if widths.weight <= 8 else "int16_t"


def _comment(one: Instruction) -> str:
    """The node in a comment, which a name cannot end."""
    return f"{one.kind.lower()} {one.name}, {one.origin}".replace("*/", "* /").replace("\\", "/").replace("\n", " ")


def _broadcast(site: Instruction, name: str) -> NDArray[np.int64]:
    """A parameter of neurons at each of them."""
    places = np.arange(site.numbers["size"]) // site.numbers["inner"] % site.numbers["count"]
    return site.arrays[name][places]


def compiler() -> str | None:
    """A C compiler of this machine."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def compiled_reference(folder: Path, place: Path) -> Path:
    """The program that `folder` holds, compiled into `place`.

    Raises:
        OptionError: if there is no C compiler, or it refuses the file.
    """
    found, program = compiler(), place / "reference"
    if found is None:
        raise OptionError("the C reference needs a C compiler, and there is none", hint="install gcc or clang")
    command = [found, "-std=c99", "-O2", "-o", str(program), str(folder / REFERENCE)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise OptionError(
            f"{found} does not compile {folder / REFERENCE}: {made.stderr.strip()[:400]}",
            hint="export again into an empty folder",
        )
    return program


def run_reference(program: Path, inputs: bytes, arguments: Sequence[str] = ()) -> bytes:
    """What a compiled reference makes of `inputs`."""
    return subprocess.run([str(program), *arguments], input=inputs, capture_output=True, check=True).stdout
