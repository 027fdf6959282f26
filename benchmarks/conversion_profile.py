"""Where the default command's time goes: by stage and by layer, in processor seconds and in passes of the ANN.

    python benchmarks/conversion_profile.py resnet20 --calibration-samples 512 --limit 1000
    python benchmarks/conversion_profile.py digits-resnet mlp squeezenet --calibration-samples 32 --limit 16
    python benchmarks/conversion_profile.py resnet20 --layers            # each operator and site, dearest first
    python benchmarks/profile_table.py                                   # what --keep has kept, side by side

A stage's seconds are its own: what it calls and what has a row of its own is not counted twice. `passes` is a stage's
time over that of one pass of the ANN over the same calibration images (torch, same batch size); `values` is how many
values operators and kernels computed, over those of one pass; `bytes` what these took in memory, written once. One
thread, processor time: a busy machine hardly changes it.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snnconvert.allocator import keep_freed_memory
from snnconvert.threads import wait_quietly

wait_quietly()  # before torch is loaded, as the command line does it
_START = time.process_time()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from wired_networks import EFFICIENTNET, WIRED, efficientnet_lite0, with_live_statistics  # noqa: E402

from snnconvert.data.datasets import load_dataset  # noqa: E402
from snnconvert.data.memory import Memory  # noqa: E402
from snnconvert.data.preprocessing import Preprocessing  # noqa: E402
from snnconvert.graph.walk import walk  # noqa: E402
from snnconvert.pipeline import Request, run  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "conversion_profile.jsonl"
DATA = Path(os.environ.get("SNNCONVERT_DATA", Path(__file__).parents[2] / "shared" / "data"))
UNIT = {"scale": "255"}
IMAGENET = {"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225", "scale": "255"}
SYMMETRIC = {"mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5", "scale": "255"}
CROPPED = {"crop": "224"}


@dataclass(frozen=True)
class Case:
    """A network of the data folder, its data, and how it is converted besides the default."""

    file: str
    data: str = "cifar10"
    preprocessing: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "digits-resnet": Case("zoo:digits-resnet", ""),
    "digits-cnn": Case("zoo:digits-cnn", ""),
    "mlp": Case("mnist-net_256x4.onnx", "mnist", UNIT),
    "resnet20": Case("resnet20-12fca82f.th", preprocessing=IMAGENET),
    "resnet44": Case("resnet44-014dd654.th", preprocessing=IMAGENET),
    "mlperf": Case("mlperf_tiny_pretrainedResnet.onnx", preprocessing={"scale": "1"}),
    "squeezenet": Case(
        "squeezenet_v1.1_ncnn.onnx",
        "imagenet",
        {"mean": "104,117,123", "std": "1,1,1", "scale": "1", "channels": "bgr"},
        {"neuron": "ternary", "timesteps": 16},
    ),
    "mobilenet-v2": Case(
        "mobilenet_v2_1.0_224_quant.onnx",
        "imagenet",
        {**SYMMETRIC, **CROPPED},
        {"neuron": "ternary", "label_offset": 1},
    ),
    EFFICIENTNET: Case(
        EFFICIENTNET, "imagenet", {**SYMMETRIC, "resize": "224"}, {"neuron": "ternary", "timesteps": 16}
    ),
    "resnet50": Case(
        "resnet50_v1.5_w8.onnx",
        "imagenet",
        {"mean": "123.68,116.78,103.94", "std": "1,1,1", "scale": "1", **CROPPED},
        {"neuron": "ternary", "timesteps": 16},
    ),
    "deit-tiny": Case(
        "deit_tiny_patch16_224_fp16.onnx",
        "imagenet",
        {**IMAGENET, **CROPPED},
        {"neuron": "graded", "levels": 15, "timesteps": 4},
    ),
    **{name: Case(name, "imagenet", {**IMAGENET, **CROPPED}, {"neuron": "ternary", "timesteps": 16}) for name in WIRED},
}
# stage: the functions whose own time it is (MODULE:NAME)
STAGES = {
    "open, compare, canonicalise": ("stages:open_ann",),
    "read data": ("pipeline:chosen_inputs",),
    "encoder, units": ("pipeline:with_encoder",),
    "ranges": ("calibrate.reconstruct:ranges", "calibrate.mse:ranges", "calibrate.percentile:ranges"),
    "histograms": ("calibrate.reconstruct:histograms", "calibrate.mse:histograms"),
    "least squared error": ("calibrate.reconstruct:best_bounds", "calibrate.mse:best_bounds"),
    "first solution: targets": ("calibrate.reconstruct:lacking_of",),
    "rows": ("calibrate.reconstruct_rows:patches", "calibrate.reconstruct_rows:read_by"),
    "Gram matrices, right-hand sides": ("calibrate.least_squares:NormalEquations.add",),
    "factors": ("calibrate.least_squares:NormalEquations._factor",),
    "solving": ("calibrate.least_squares:NormalEquations.solve",),
    "judging solutions": ("calibrate.least_squares:NormalEquations.errors",),
    "ANN values": ("calibrate.reconstruct_networks:Networks.ann",),
    "spiking means": (
        "calibrate.reconstruct_networks:Networks.mean",
        "calibrate.reconstruct_networks:Networks.mean_at",
    ),
    "spiking currents": (
        "calibrate.reconstruct_networks:Networks.frames",
        "calibrate.reconstruct_networks:Networks.frames_at",
    ),
    "neurons of trials": ("calibrate.reconstruct_neuron:SiteNeuron.tried",),
    "unpacking": ("calibrate.sent_spikes:Spikes.sent", "calibrate.sent_spikes:Spikes.at"),
    "packing": ("calibrate.sent_spikes:Sent.kept",),
    "correction: the rest": ("calibrate.reconstruct_site:SiteStep._correct",),
    "neurons that send": (
        "calibrate.reconstruct_neuron:SiteNeuron.sent",
        "calibrate.reconstruct_neuron:SiteNeuron.units",
    ),
    "means of what is sent": ("calibrate.sent_spikes:Sent.means",),
    "sending: the rest": ("calibrate.reconstruct_site:SiteStep._emit", "calibrate.reconstruct_networks:Networks.store"),
    "other calibration": ("calibrate.reconstruct:calibrate_reconstruct", "calibrate.mse:calibrate_mse"),
    "compiling": ("stages:compile_network",),
    "ranking of candidates": ("search:rank",),
    "reference answers": ("search:answers",),
    "evaluation": ("stages:evaluate",),
    "studies": ("pipeline:studied",),
    "report": ("report.from_run:document_of",),
}
REST = "everything else"
# (function, which of its arguments is the node)
LAYERS = (
    ("calibrate.reconstruct:Reconstruction._solve", 1),
    ("calibrate.reconstruct_site:SiteStep.run", 1),
    ("calibrate.reconstruct_networks:Networks.store", 2),
)


class Meter:
    """Time, values and bytes by stage and by layer, each where the innermost function runs."""

    def __init__(self) -> None:
        self.stack, self.layer = [REST], ""
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.values: dict[tuple[str, str], int] = defaultdict(int)
        self.bytes: dict[tuple[str, str], int] = defaultdict(int)
        self.calls: dict[str, int] = defaultdict(int)
        self.since = time.process_time()
        self.calibrated: Tensor | None = None
        self.expected: Any = None

    def switch(self) -> None:
        """What has passed is the current stage's."""
        now = time.process_time()
        self.seconds[self.stack[-1], self.layer] += now - self.since
        self.since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The block is this stage's."""
        self.switch()
        self.calls[name] += 1
        self.stack.append(name)
        try:
            yield
        finally:
            self.switch()
            self.stack.pop()

    @contextmanager
    def of_layer(self, name: str) -> Iterator[None]:
        """The block is about this layer."""
        self.switch()
        before, self.layer = self.layer, name
        try:
            yield
        finally:
            self.switch()
            self.layer = before

    def computed(self, value: Any) -> None:
        """An operator or kernel has made `value`."""
        if isinstance(value, Tensor):
            self.values[self.stack[-1], self.layer] += value.numel()
            self.bytes[self.stack[-1], self.layer] += value.numel() * value.element_size()

    def wrap(self, place: str, made: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Replace the function at MODULE:NAME."""
        module, name = place.split(":")
        owner: Any = importlib.import_module(f"snnconvert.{module}")
        *classes, last = name.split(".")
        for one in classes:
            owner = getattr(owner, one)
        stored = owner.__dict__[last]
        function = made(stored.__func__ if isinstance(stored, classmethod) else stored)
        setattr(owner, last, classmethod(function) if isinstance(stored, classmethod) else function)

    def install(self) -> None:
        """Watch everything in the tables above."""
        for stage, places in STAGES.items():
            for place in places:
                self.wrap(place, functools.partial(self._timed, stage))
        for place, argument in LAYERS:
            self.wrap(place, functools.partial(self._by_layer, argument))
        self.wrap("simulate.kernels.native:Native._run", self._kernel)
        self.wrap("pipeline:with_encoder", self._images)
        self.wrap("forecast:expected", self._foreseen)

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.stage(stage):
                return function(*arguments, **named)

        return timed

    def _by_layer(self, argument: int, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def by_layer(*arguments: Any, **named: Any) -> Any:
            with self.of_layer(arguments[argument].name):
                return function(*arguments, **named)

        return by_layer

    def _kernel(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def kernel(*arguments: Any, **named: Any) -> Any:
            *_, frames, batch, shape = arguments
            count = frames * batch * int(torch.Size(shape).numel())
            self.values[self.stack[-1], self.layer] += count
            self.bytes[self.stack[-1], self.layer] += 4 * count
            return function(*arguments, **named)

        return kernel

    def _foreseen(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def expected(*arguments: Any) -> Any:
            found = function(*arguments)
            self.expected = self.expected or found
            return found

        return expected

    def _images(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def seen(request: Request, ann: Any, images: Tensor, inputs: Any) -> Any:
            self.calibrated = images  # before it, torch.export traces modules
            nn.modules.module.register_module_forward_hook(lambda *called: self.computed(called[2]))
            return function(request, ann, images, inputs)

        return seen


def request_of(name: str, options: argparse.Namespace) -> Request:
    """The default command on a network."""
    case = CASES[name]
    asked: dict[str, Any] = {"timesteps": 32, **case.options}
    if options.timesteps:
        asked["timesteps"] = options.timesteps
    if options.calibration_samples:
        asked["calibration_samples"] = options.calibration_samples
    if options.limit:
        asked["limit"] = options.limit
    if options.schedule:
        asked["schedule"] = options.schedule
    if case.file.startswith("zoo:"):
        return Request(model=case.file, **asked)
    file = DATA / "models" / case.file
    if case.file.endswith(".th"):
        asked["arch"] = f"{DATA / 'models' / 'resnet_cifar.py'}:{file.stem.split('-')[0]}"
    data, training = f"{case.data}_test.npz", f"{case.data}_train_small.npz"
    if case.data == "imagenet":
        data, training = "imagenet_val1300", "imagenet_calibration500"
    return Request(
        model=str(file),
        data=str(DATA / data),
        calibration_data=str(DATA / training),
        preprocessing=Preprocessing.from_dict(case.preprocessing),
        **asked,
    )


def memory_of(request: Request) -> Memory | None:
    """The network, where it is no file."""
    name = Path(request.model).name
    if name == EFFICIENTNET:
        return Memory(module=efficientnet_lite0())
    if name not in WIRED:
        return None
    assert request.calibration_data is not None
    images = load_dataset(request.calibration_data, preprocessing=request.preprocessing, input_shape=(3, 224, 224))
    some = images.subset(range(0, len(images), len(images) // 16)).images()
    return Memory(module=with_live_statistics(name, some))


@torch.inference_mode()
def one_pass(graph: Any, images: Tensor) -> tuple[float, int]:
    """Processor seconds of one pass of the ANN over the images, and the values that it computes."""
    values = sum(value.numel() for node, _, value in walk(graph, images[:1]) if node.op == "call_module")
    start = time.process_time()
    for first in range(0, len(images), 64):
        for _ in walk(graph, images[first : first + 64]):
            pass
    return time.process_time() - start, values * len(images)


def profiled(name: str, options: argparse.Namespace) -> None:
    """Convert one network and print its tables."""
    meter, began = Meter(), time.perf_counter()
    meter.install()
    request = request_of(name, options)
    outcome = run(request, memory=memory_of(request))
    from snnconvert.report.from_run import document_of

    document_of(outcome, command_line="", next_commands=())
    meter.switch()
    wall, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert meter.calibrated is not None
    images = meter.calibrated
    seconds, values = one_pass(outcome.ann.graph, images)
    print(
        f"\n{name}: {outcome.snn.schedule.describe()}, {outcome.snn.neuron.model}, "
        f"T = {outcome.snn.schedule.timesteps}, "
        f"{len(images)} calibration and {outcome.evaluation.curve.samples} evaluation images; "
        f"{sum(meter.seconds.values()):.1f} processor s ({wall:.1f} wall) besides {_START:.1f} of starting Python; "
        f"at most {peak:.2f} GiB (expected: {meter.expected.seconds:.0f} s, {meter.expected.memory / 2**30:.2f} GiB); "
        f"one pass of the ANN over the calibration images {seconds:.2f} s\n"
    )
    print("| stage | processor s | share % | passes | values | GB |\n|---|--:|--:|--:|--:|--:|")
    whole = sum(meter.seconds.values())
    rows = _summed(meter, 0)
    for stage, (spent, made, size) in sorted(rows.items(), key=lambda row: -row[1][0]):
        if spent >= 0.002 * whole:
            print(
                f"| {stage} | {spent:.2f} | {100 * spent / whole:.1f} | {spent / seconds:.1f} | {made / values:.1f} "
                f"| {size / 1e9:.2f} |"
            )
    if options.keep:
        measured = {"network": name, "neuron": outcome.snn.neuron.model, "timesteps": outcome.snn.schedule.timesteps}
        measured |= {"calibration": len(images), "evaluation": outcome.evaluation.curve.samples, "gib": peak}
        measured |= {
            "one_pass": seconds,
            "stages": {row: (one[0], one[1] / values, one[2]) for row, one in rows.items()},
        }
        with RESULTS.open("a") as file:
            file.write(json.dumps(measured) + "\n")
    if options.layers:
        print("\n| layer | processor s | share % | passes | values |\n|---|--:|--:|--:|--:|")
        for layer, (spent, made, _) in sorted(_summed(meter, 1).items(), key=lambda row: -row[1][0])[:40]:
            share = 100 * spent / whole
            print(f"| {layer or '-'} | {spent:.2f} | {share:.1f} | {spent / seconds:.1f} | {made / values:.1f} |")


def _summed(meter: Meter, part: int) -> dict[str, tuple[float, int, int]]:
    """Seconds, values and bytes by the stage (0) or the layer (1)."""
    found: dict[str, tuple[float, int, int]] = {}
    for key in meter.seconds.keys() | meter.values.keys():
        spent, made, size = found.get(key[part], (0.0, 0, 0))
        found[key[part]] = (spent + meter.seconds[key], made + meter.values[key], size + meter.bytes[key])
    return found


def main() -> None:
    """Profile the networks that are named, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=tuple(CASES))
    parser.add_argument("--calibration-samples", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--timesteps", type=int)
    parser.add_argument("--schedule")
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--keep", action="store_true", help=f"add what is measured to results/{RESULTS.name}")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    for name in options.names:
        if len(options.names) == 1:
            profiled(name, options)
        else:  # a process each: what is wrapped stays wrapped
            command = [sys.executable, __file__, name, *(one for one in sys.argv[1:] if one not in CASES)]
            os.spawnv(os.P_WAIT, sys.executable, command)


if __name__ == "__main__":
    main()
