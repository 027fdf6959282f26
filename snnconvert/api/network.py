"""A spiking network as users hold it in their hands: called like the network that it came from, saved and loaded."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnconvert import request  # noqa: F401  (a checkpoint may need what packages bring, which it loads)
from snnconvert.api.files import check_path, save
from snnconvert.api.over_time import Array, Simulated, continued, moving_input
from snnconvert.data.arrange import prepare, show_shape
from snnconvert.data.datasets import dataset_of
from snnconvert.data.memory import raw_in_memory
from snnconvert.data.moving import over_time_of
from snnconvert.data.named import Arrays, Wanted, as_array, by_name, packed_inputs, raw_of
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import DataError, OptionError, did_you_mean
from snnconvert.exporters import hub
from snnconvert.graph import checkpoint, types
from snnconvert.graph.dialect import neurons_of
from snnconvert.graph.inputs import events_of, inputs_of
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.simulate.chunks import chunk_size, with_smaller_chunks
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.result import Simulation


@dataclass(frozen=True, eq=False, repr=False)
class SpikingNetwork(types.Snn):
    """A spiking network that is called like the network it came from.

    It is what `Conversion.snn` and `load` give. Inputs are what the original network took: prepared, batch first, a
    NumPy array or a tensor of shape (n, *input_shape). `prepare` makes them of raw images as the conversion did.

    Attributes:
        schedule: when its neurons integrate and send; `schedule.describe()` says it in words.
        neuron: model and units per step of its neurons.
        input_shape: one input without the batch.
        outputs: names of the original network's outputs.
        source: where the original network was read from.
        preprocessing: of images, as `Preprocessing.to_dict` writes it.

    Examples:
        >>> import numpy as np, snnconvert
        >>> options = {"timesteps": 8, "schedule": "streaming", "calibration": "mse"}
        >>> snn = snnconvert.convert_model("zoo:digits-cnn", **options).snn
        >>> snn
        SpikingNetwork(digits_cnn: streaming, T = 8, 4 layers of if neurons, input 1x8x8)
        >>> images = np.random.default_rng(0).random((5, 1, 8, 8), np.float32)
        >>> snn(images).shape
        (5, 10)
        >>> seen = snn.simulate(images)
        >>> seen.outputs.shape, seen.steps
        ((8, 5, 10), [1, 2, 3, 4, 5, 6, 7, 8])
        >>> bool(np.allclose(seen.outputs[-1], snn(images), atol=1e-6))
        True
    """

    @classmethod
    def of(cls, snn: types.Snn) -> SpikingNetwork:
        """The same network with these methods."""
        return snn if isinstance(snn, cls) else cls(**{one.name: getattr(snn, one.name) for one in fields(types.Snn)})

    @property
    def timesteps(self) -> int:
        """T: steps from the first input to the answer."""
        return self.schedule.timesteps

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of its layers of neurons, in the order of the data; those of the report, `simulate` and its record."""
        return tuple(node.name for node in neurons_of(self.graph))

    def __call__(self, x: Array, *, device: str = "cpu") -> Any:
        """The outputs after T steps.

        Args:
            x: inputs as the original network took them, shape (n, *input_shape): an array or a tensor of real numbers;
                for a network with several inputs a mapping with one for each, by its name (`inputs` lists them). Whole
                numbers are taken for raw images where the conversion prepared such: see `prepare`.
            device: where to simulate, "cpu" or "cuda".

        Returns:
            On the scale of the original network's outputs, shape (n, *output): the mean over time. An array for an
            array, a tensor on the CPU for a tensor, of the inputs' own floating-point type (float32 for whole numbers).
            A tuple of them in the order of `outputs`, if there are several.

        Raises:
            DataError: inputs of another shape, or not finite.
            OptionError: a device that is not there.
        """
        given, x = self._given(x), _first(x)
        rows = [tuple(one[-1] for one in run.outputs) for run, _ in self._runs(given, device)]
        dtype = x.dtype if isinstance(x, Tensor) and x.is_floating_point() else torch.float32
        if not isinstance(x, Tensor) and np.asarray(x).dtype.kind == "f":
            dtype = torch.from_numpy(np.zeros(0, np.asarray(x).dtype)).dtype
        frames = len(self.schedule.answer_steps)
        made = [_like(x, (torch.cat(parts) / frames).to(dtype)) for parts in zip(*rows, strict=True)]
        return made[0] if len(made) == 1 else tuple(made)

    def simulate(
        self,
        x: Array,
        *,
        record: bool | str | Iterable[str] = False,
        state: Simulated | bool | None = None,
        device: str = "cpu",
    ) -> Simulated:
        """The outputs over time, and the spikes of each layer.

        Args:
            x, device: as of a call; or (steps, n, *input_shape), what comes in in each step: numbers of events, or real
                numbers. There are then as many steps as x has.
            state: go on where an earlier simulation of as many inputs stopped; True begins one to go on from. Outputs
                are means since then.
            record: layers whose spikes are kept one by one (`layers` lists the names), True for all of them. They take
                4 bytes for each neuron, frame and input.

        Raises:
            DataError, OptionError: inputs of another shape, or not finite; a layer or device that is not there.

        Examples:
            >>> import numpy as np, snnconvert
            >>> options = {"timesteps": 8, "schedule": "streaming", "calibration": "mse"}
            >>> snn = snnconvert.convert_model("zoo:digits-cnn", **options).snn
            >>> images = np.random.default_rng(0).random((5, 1, 8, 8), np.float32)
            >>> seen = snn.simulate(images, record=snn.layers[0])
            >>> seen.trains[snn.layers[0]].shape  # frames, inputs, channels, height, width
            (8, 5, 16, 8, 8)
        """
        given, wanted, x = self._given(x), self._recorded(record), _first(x)
        if state is not None:
            return self._continued(x, given, state, wanted)
        if (incoming := over_time_of(given)) is not None and incoming.steps != self.schedule.frames:
            return self._for(incoming.steps).simulate(given, record=record, device=device)
        outputs: list[tuple[Tensor, ...]] = []
        counts = {name: np.zeros(self.timesteps) for name in self.layers}
        trains: dict[str, list[Tensor]] = {name: [] for name in wanted}
        schedule, depths = self.schedule, site_depths(self.graph)
        for run, seen in self._runs(given, device, wanted):
            outputs.append(run.outputs)
            for name in wanted:
                trains[name].append(seen[name])
            for name, by_step in counts.items():
                for index, count in enumerate(run.spikes[name].tolist()):
                    frame, phase = divmod(index, schedule.steps_per_frame)
                    step = schedule.emission_step(depths[name], frame, phase)
                    if step < schedule.timesteps:
                        by_step[step] += count
        read = torch.arange(1, len(schedule.answer_steps) + 1, dtype=torch.float64)
        means = [torch.cat(parts, 1) for parts in zip(*outputs, strict=True)]
        means = [one / read.reshape(-1, *[1] * (one.ndim - 1)) for one in means]
        like, total = partial(_like, x), max(len(given), 1)
        return Simulated(
            outputs=like(means[0]),
            steps=list(schedule.answer_steps),
            spikes={name: like(torch.from_numpy(by_step / total)) for name, by_step in counts.items()},
            trains={name: like(torch.cat(parts, 1)) for name, parts in trains.items()},
            further=tuple(map(like, means[1:])),
        )

    def prepare(self, images: Any, *, steps: int | None = None) -> Tensor:
        """Raw images or recordings as inputs of this network, prepared as those that it was converted on.

        Args:
            images: shape (n, *sample), for instance (n, height, width, channels) of uint8; of a network with several
                inputs a mapping with one for each; of one that watches event cameras a list or data set of recordings,
                each a structured array with t (us), x, y and p.
            steps: of a replay of recordings; those of the network by default.

        Returns:
            A tensor (n, *input_shape), float32: of recordings what the original network would see of each as a whole,
            which also holds what comes in in each step.

        Raises:
            DataError: images that do not fit the network.

        Examples:
            >>> import numpy as np, snnconvert
            >>> snn = snnconvert.convert_model("zoo:digits-cnn", timesteps=8, calibration="mse", limit=50).snn
            >>> raw = np.random.default_rng(0).integers(0, 17, (5, 8, 8), np.uint8)  # values 0 to 16
            >>> snn.prepare(raw).shape
            torch.Size([5, 1, 8, 8])
            >>> bool(snn.prepare(raw).max() <= 1)
            True
            >>> snn(snn.prepare(raw)).shape
            torch.Size([5, 10])
        """
        plan = Preprocessing.from_dict({key: value for key, value in self.preprocessing.items() if value is not None})
        if self.inputs:
            held = by_name(self.inputs, images)
            raw = Arrays("the inputs", tuple(held), held.__getitem__).raw(Wanted(self.inputs))
            shape, inputs = self.input_shape, self.inputs
            return dataset_of(raw, "the inputs", preprocessing=plan, input_shape=shape, inputs=inputs).images()
        if plan.events is None:
            return prepare(plan, as_array(images, "images"), self.input_shape)
        given, name = raw_in_memory(images, "recordings")
        whole = events.steps if (events := events_of(self.graph)) is not None else None
        fitted: Any = {"input_shape": self.input_shape, "steps": steps or self.schedule.frames, "whole": whole}
        return dataset_of(raw_of(given, Wanted(())), name, preprocessing=plan, **fitted).images()

    def save(self, path: str | Path, *, original: bool = True) -> Path:
        """Write a checkpoint (.snn) that `load` and `snnconvert run` read; as `snnconvert.save`."""
        return save(self, path, original=original)

    def __repr__(self) -> str:
        models = ", ".join(dict.fromkeys(op.model for op in neurons_of(self.graph).values()))
        return (
            f"SpikingNetwork({self.source.name}: {self.schedule.describe()}, T = {self.timesteps}, {len(self.layers)} "
            f"layers of {models} neurons, input {show_shape(self.input_shape)})"
        )

    def _given(self, x: Any) -> Tensor:
        """Checked inputs (n, *input_shape), which may vary over time."""
        if over_time_of(x) is not None:
            return x  # type: ignore[no-any-return]
        if self.inputs or isinstance(x, Mapping):
            return self._inputs(x)
        array = as_array(x, "the inputs")
        if array.ndim != len(self.input_shape) + 2 or array.shape[2:] != self.input_shape or not len(array):
            return self._inputs(x)
        return moving_input(self, array, lambda values: self._inputs(values.reshape(-1, *self.input_shape)))

    def _for(self, steps: int) -> SpikingNetwork:
        """The same network for inputs of so many steps."""
        lag = self.schedule.timesteps - self.schedule.frames
        return replace(self, schedule=replace(self.schedule, timesteps=steps + lag), early_exit=None)

    def _continued(self, x: Any, given: Tensor, state: Simulated | bool, wanted: tuple[str, ...]) -> Simulated:
        """A simulation that goes on from `state`, and can be gone on from."""
        if wanted or (isinstance(state, Simulated) and state.state is None):
            what = "record and state do not go together" if wanted else "this simulation cannot be gone on from"
            hint = "leave record out" if wanted else "begin it with state=True"
            raise OptionError(what, hint=hint, options=("state",))
        run, means, carried = continued(self, given, None if isinstance(state, bool) else state.state)
        like, steps, done = partial(_like, x), carried.step - run.first, carried.step
        counts = {name: torch.zeros(steps, dtype=torch.float64) for name in self.layers}
        for name, by_step in counts.items():  # a layer that has not begun to send has been silent
            sent = run.simulation.spikes[name]
            by_step[steps - len(sent) :] = sent.double() / max(len(given), 1)
        return Simulated(
            outputs=like(means[0]),
            steps=list(range(done - len(means[0]) + 1, done + 1)),
            spikes={name: like(by_step) for name, by_step in counts.items()},
            trains={},
            further=tuple(map(like, means[1:])),
            state=carried,
        )

    def _inputs(self, x: Any) -> Tensor:
        """Checked inputs (n, *input_shape).

        Raises:
            DataError: another shape, no real numbers, or not finite.
        """
        if isinstance(x, Mapping) or self.inputs:
            return packed_inputs(inputs_of(self), x)
        array = as_array(x, "the inputs")
        shape = (len(array), *self.input_shape) if array.ndim else ()
        raw = "raw images are prepared by snn.prepare(x)"
        if array.dtype.kind not in "buif":
            raise DataError(f"the inputs are {array.dtype}", hint="give an array or a tensor of real numbers")
        if array.shape != shape:
            hint = f"add the batch: x[None]; {raw}" if array.shape == self.input_shape else raw
            raise DataError(
                f"inputs of shape {array.shape} do not fit {self.source.name}, which takes "
                f"(n, {', '.join(map(str, self.input_shape))})",
                hint=hint,
            )
        if array.dtype.kind in "bui" and self._prepares():
            raise DataError(
                f"the inputs are {array.dtype}, and {self.source.name} was converted on images that had been prepared",
                hint="give snn.prepare(x), or the real numbers that the original network took",
            )
        if not np.isfinite(array).all():
            raise DataError("the inputs hold NaN or infinite values", hint="repair or leave them out")
        given = torch.from_numpy(np.ascontiguousarray(array))
        given = given if given.is_floating_point() else given.float()
        bound = math.inf if self.calibrated is None else self.calibrated.input_bound
        if given.numel() and float(given.abs().max()) > bound:
            warnings.warn(
                f"the inputs reach {float(given.abs().max()):.3g}, those that {self.source.name} was calibrated on "
                f"{bound / 2:.3g}: what lies beyond is cut off. {raw[0].upper()}{raw[1:]}",
                stacklevel=3,
            )
        return given

    def _prepares(self) -> bool:
        """Whether the values of images are changed before they are inputs."""
        usual = {"scale": [1.0], "mean": [0.0], "std": [1.0]}
        found = {key: self.preprocessing.get(key) for key in usual}
        return any(value not in (None, usual[key], usual[key][0]) for key, value in found.items())

    def _recorded(self, record: bool | str | Iterable[str]) -> tuple[str, ...]:
        if isinstance(record, bool):
            return self.layers if record else ()
        names = (record,) if isinstance(record, str) else tuple(record)
        for name in names:
            if name not in self.layers:
                near = did_you_mean(name, self.layers) if isinstance(name, str) else ""
                raise OptionError(
                    f"{self.source.name} has no layer of neurons {name!r}",
                    hint=near or f"there are {', '.join(self.layers)}",
                )
        return names

    def _runs(
        self, given: Tensor, device: str, wanted: tuple[str, ...] = ()
    ) -> Iterator[tuple[Simulation, dict[str, Tensor]]]:
        """Each part of the inputs simulated, with the recorded layers; an empty batch is one part."""
        check_device(device)
        engine = LayerEngine(self, device)

        def work(size: int) -> list[tuple[Simulation, dict[str, Tensor]]]:
            done = []
            for start in range(0, max(len(given), 1), size):
                seen: dict[str, Tensor] = {}

                def probe(name: str, by_frame: Tensor, seen: dict[str, Tensor] = seen) -> None:
                    if name in wanted:
                        seen[name] = by_frame.round().to(torch.int32)

                done.append((engine.run(given[start : start + size], probe if wanted else None), seen))
            return done

        yield from with_smaller_chunks(chunk_size(self), work)[0]


def _first(x: Any) -> Any:
    """What decides between arrays and tensors: the inputs, or the first of several."""
    return next(iter(x.values()), x) if isinstance(x, Mapping) else x


def check_device(device: str) -> None:
    """Refuse a device that is not there."""
    if device == "cpu":
        return
    if not (str(device).startswith("cuda") and torch.cuda.is_available()):
        raise OptionError(f"--device {device!r} is not available here", hint="use --device cpu")


def _like(x: Any, value: Tensor) -> Any:
    """A tensor for a tensor, an array for all else."""
    return value if isinstance(x, Tensor) else value.numpy()


def load(path: str | Path) -> SpikingNetwork:
    """Read a checkpoint.

    Args:
        path: a .snn file, written by `snnconvert MODEL`, `Conversion.save` or `save`; or "hf:USER/NAME", what
            `snnconvert hub pull USER/NAME` has brought from the Hugging Face hub. Reading one runs no code, and
            downloads nothing.

    Returns:
        The spiking network, the same in every spike as the one that was saved.

    Raises:
        ModelFileError: the file is missing, damaged or no checkpoint, or its neurons come from a package that is not
            installed.

    Examples:
        >>> import snnconvert
        >>> conversion = snnconvert.convert_model("zoo:digits-cnn", timesteps=8, calibration="mse", limit=50)
        >>> _ = snnconvert.save(conversion, "digits.snn")
        >>> snnconvert.load("digits.snn").timesteps
        8
    """
    check_path(path, "a checkpoint")
    found = hub.cached(str(path)) if str(path).startswith(hub.PREFIX) else path
    return SpikingNetwork.of(checkpoint.load_snn(found))
