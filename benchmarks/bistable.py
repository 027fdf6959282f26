"""Bistable and synchronous neurons: accuracy against time, the ablation, plain phase coding, and the cost.

    python benchmarks/bistable.py sweep    resnet20 --images 1000
    python benchmarks/bistable.py budget   resnet20 --images 1000
    python benchmarks/bistable.py windows  resnet20 --images 10000 --window 5
    python benchmarks/bistable.py ablation resnet20 --images 10000 --window 5 --state ablation.json
    python benchmarks/bistable.py inactivated resnet20 --images 17 --window 5
    python benchmarks/bistable.py phase    resnet20 --images 200  --window 8 --timesteps 512
    python benchmarks/bistable.py auto     resnet20 --totals 32 100 --images 500
    python benchmarks/bistable.py cost     resnet20 --images 256  --window 8

Every table is printed as Markdown. Images are the first of the CIFAR-10 test set of the data folder; thresholds come
from the first 256 images of its training set, without labels. The data folder is SNNCONVERT_DATA or ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.allocator import keep_freed_memory
from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order, observed
from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.convert.doors import open_model
from snnconvert.convert.passes import canonicalize
from snnconvert.graph.dialect import calls
from snnconvert.graph.kinds import Identity, Synchronous
from snnconvert.graph.schedule import Bistable, Schedule, Streaming
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice, Snn
from snnconvert.search import candidates, choose
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.study.ablation import Plan, Subject
from snnconvert.study.ablation import ablation as ablation_of
from snnconvert.study.phase_coding import PhaseCoding
from snnconvert.study.streaming_twin import streaming_twin

DATA = Path(os.environ.get("SNNCONVERT_DATA", Path(__file__).parents[2] / "shared" / "data"))
CALIBRATION_IMAGES = 256
WINDOWS = (2, 3, 4, 5, 6, 8)
BATCH = 50
# all steps of an edge are held at once
PHASE_BATCH = 10
# bistable, synchronous, gated (still until their own first window)
CURES = ((True, True, True), (True, False, False), (True, False, True), (False, True, True), (False, False, True))
SHARES = {"neurons": "of neurons", "units": "of units sent", "unprovoked": "against own input"}

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KERAS = ((125.307 / 255, 122.95 / 255, 113.865 / 255), (62.993 / 255, 62.089 / 255, 66.705 / 255))
SRI = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
PIXELS = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))


@dataclass(frozen=True)
class Model:
    """A file of the data folder; its input is (x / 255 - mean) / std."""

    file: str
    norm: tuple[tuple[float, ...], tuple[float, ...]]
    factory: str | None = None


MODELS = {
    "resnet20": Model("resnet20-12fca82f.th", IMAGENET, "resnet20"),
    "resnet32": Model("resnet32-d509ac18.th", IMAGENET, "resnet32"),
    "resnet44": Model("resnet44-014dd654.th", IMAGENET, "resnet44"),
    "mlperf_tiny_resnet": Model("mlperf_tiny_pretrainedResnet.onnx", PIXELS),
    "sri_resnet_a": Model("sri_resnet_a.onnx", SRI),
    "onepixel_resnet32": Model("onepixel_resnet32.onnx", KERAS),
}


@dataclass
class Setting:
    """An opened network with its images; `target` is the ANN's accuracy minus half a point."""

    name: str
    ann: Ann
    calibration: Tensor
    images: Tensor
    labels: NDArray[np.int64]
    accuracy: float

    @property
    def depth(self) -> int:
        return max(site_depths(self.ann.graph).values())

    @property
    def target(self) -> float:
        return self.accuracy - 0.5

    def snn(self, schedule: Schedule, method: str = "mse", **options: Any) -> Snn:
        ann = with_identity_sites(self.ann, schedule)
        task = Task(ann, in_canonical_order(self.calibration), schedule, NeuronChoice(), options=options)
        return compile_network(METHODS[method](task))

    def bistable(self, window: int, frames: int = 1, **options: str) -> Snn:
        steps = (self.depth + 1 + 2 * (frames - 1)) * window
        return self.snn(Bistable(steps, self.depth, window=window, **options))


def opened(name: str, count: int) -> Setting:
    model = MODELS[name]
    arch = f"{DATA / 'models' / 'resnet_cifar.py'}:{model.factory}" if model.factory else None
    shape = (3, 32, 32) if model.factory else None
    ann = canonicalize(open_model(str(DATA / "models" / model.file), arch=arch, input_shape=shape))

    def images(file: str, number: int) -> tuple[Tensor, NDArray[np.int64]]:
        with np.load(DATA / file) as data:
            x, y = data["x"][:number], data["y"][:number].astype(np.int64)
        mean, std = (torch.tensor(part).view(3, 1, 1) for part in model.norm)
        prepared = ((torch.from_numpy(x).permute(0, 3, 1, 2) / 255.0 - mean) / std).float()
        return prepared.reshape(-1, *ann.input_shape), y

    calibration, _ = images("cifar10_train_small.npz", CALIBRATION_IMAGES)
    test, labels = images("cifar10_test.npz", count)
    decided = torch.cat([first.flatten(1) for first, *_ in observed(ann.graph, test, "")]).argmax(1).numpy()
    return Setting(name, ann, calibration, test, labels, 100 * float((decided == labels).mean()))


def measured(
    setting: Setting, run: Callable[[Tensor], Any], size: int = BATCH
) -> tuple[NDArray[np.float64], dict[str, Tensor]]:
    """Accuracy after every answer, and spikes of every site by step, summed over all images."""
    right: NDArray[np.int64] | int = 0
    spikes: dict[str, Tensor] = {}
    for start in range(0, len(setting.images), size):
        seen = run(setting.images[start : start + size])
        decided = seen.outputs[0].flatten(2).argmax(2).numpy()
        right = right + (decided == setting.labels[start : start + size]).sum(1)
        for name, counts in seen.spikes.items():
            spikes[name] = spikes.get(name, torch.zeros_like(counts)) + counts
    return 100 * np.asarray(right) / len(setting.images), spikes


def per_image(setting: Setting, spikes: dict[str, Tensor]) -> float:
    return float(sum(float(counts.sum()) for counts in spikes.values())) / len(setting.images)


def row(*cells: object) -> None:
    print(
        "| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True
    )


def heading(*cells: str) -> None:
    row(*cells)
    row(*("---" for _ in cells))


def introduce(setting: Setting) -> None:
    example = setting.bistable(2)
    delays = sum(isinstance(op, Synchronous) for _, op in calls(example.graph))
    signed = with_identity_sites(setting.ann, example.schedule)
    sums = sum(isinstance(op, Identity) for _, op in calls(signed.graph))
    print(
        f"\n{setting.name}, first {len(setting.images)} test images: ANN {setting.accuracy:.2f} %, depth "
        f"{setting.depth}, {delays} synchronous layers, {sums} signed sites on sums\n",
        flush=True,
    )


def sweep(setting: Setting, args: argparse.Namespace) -> None:
    """One window of every length, and integrate-and-fire."""
    introduce(setting)
    heading("schedule", "total T", "accuracy %", "spikes per image")
    for window in args.windows:
        snn = setting.bistable(window)
        accuracy, spikes = measured(setting, LayerEngine(snn).run)
        row(
            f"bistable, window {window}", snn.schedule.timesteps, float(accuracy[-1]), round(per_image(setting, spikes))
        )
    for name, method, options in [kind for kind in streaming_kinds() if kind[1] in args.kinds]:
        for steps in args.streaming:
            snn = setting.snn(Streaming(steps, setting.depth), method, **options)
            accuracy, spikes = measured(setting, LayerEngine(snn).run, min(BATCH, chunk_size(snn)))
            row(name, steps, float(accuracy[-1]), round(per_image(setting, spikes)))


def streaming_kinds() -> Iterator[tuple[str, str, dict[str, Any]]]:
    yield "streaming IF, MSE thresholds, v(0) = 1/2", "mse", {}
    yield "streaming IF, 99.9 % per layer, v(0) = 0", "percentile", {"granularity": "layer", "initial": 0.0}


def budget(setting: Setting, args: argparse.Namespace) -> None:
    """Several windows: what can be had within a total of T steps."""
    introduce(setting)
    heading("window", "windows", "total T", "accuracy % after each window", "spikes per image")
    for total in args.totals:
        for window in args.windows:
            frames = 1 + (total - (setting.depth + 1) * window) // (2 * window)
            if frames >= 1:
                snn = setting.bistable(window, frames)
                accuracy, spikes = measured(setting, LayerEngine(snn).run, min(BATCH, chunk_size(snn)))
                answers = " ".join(f"{value:.1f}" for value in accuracy)
                row(window, frames, snn.schedule.timesteps, answers, round(per_image(setting, spikes)))


def windows(setting: Setting, args: argparse.Namespace) -> None:
    """One window length on many images."""
    introduce(setting)
    heading("window", "total T", "accuracy %", "ANN %", "spikes per image")
    snn = setting.bistable(args.window)
    accuracy, spikes = measured(setting, LayerEngine(snn).run)
    row(args.window, snn.schedule.timesteps, float(accuracy[-1]), setting.accuracy, round(per_image(setting, spikes)))


def ablation(setting: Setting, args: argparse.Namespace) -> None:
    """Each cure switched off, at equal thresholds; by default in one window, so at equal T.

    The images go through in blocks, all variants one after the other; with --state FILE what is done stays done.
    """
    introduce(setting)
    snn = setting.bistable(args.window, args.frames)
    state = Path(args.state) if args.state else None
    done: dict[str, Any] = json.loads(state.read_text()) if state is not None and state.exists() else {}
    for start in range(0, len(setting.images), args.block):
        end = min(start + args.block, len(setting.images))
        block = replace(setting, images=setting.images[start:end], labels=setting.labels[start:end])
        for cures in CURES:
            found = done.setdefault(str(cures), {"images": 0, "right": 0, "spikes": 0.0})
            if found["images"] >= end:
                continue
            accuracy, spikes = one_ablation(block, snn, *cures)
            found["right"] = (np.asarray(found["right"]) + accuracy * (end - start) / 100).tolist()
            found["spikes"] += per_image(block, spikes) * (end - start)
            found["images"] = end
            if state is not None:
                state.write_text(json.dumps(done))
        heading("neurons", "synchronous", "total T", "images", "accuracy % after each answer", "spikes per image")
        for bistable, synchronous, gated in CURES:
            found = done[str((bistable, synchronous, gated))]
            name = (
                "plain phase coding" if not bistable else "bistable" if gated else "bistable, alternating from step 0"
            )
            answers = np.asarray(found["right"]) * 100 / found["images"]
            shown = " ".join(f"{value:.2f}" for value in (answers if bistable else answers[-1:]))
            spent = round(found["spikes"] / found["images"])
            row(name, "yes" if synchronous else "no", snn.schedule.timesteps, found["images"], shown, spent)


def one_ablation(
    setting: Setting, snn: Snn, bistable: bool, synchronous: bool, gated: bool
) -> tuple[NDArray[np.float64], dict[str, Tensor]]:
    """Accuracy and spikes of one variant; spikes of synchronous neurons count where these are used."""
    if bistable and synchronous:
        return measured(setting, LayerEngine(snn).run)
    engine = PhaseCoding(snn, bistable=bistable, synchronous=synchronous, gated=gated)
    accuracy, spikes = measured(setting, engine.run)
    if not synchronous:
        spikes = {name: counts for name, counts in spikes.items() if "synchronous" not in name}
    return accuracy, spikes


def inactivated(setting: Setting, args: argparse.Namespace) -> None:
    """Spikes of inactivated neurons in streaming integrate-and-fire and in the bistable network, percent."""
    introduce(setting)
    snn, count = setting.bistable(args.window), len(setting.images)
    subject = Subject(snn, setting.ann, streaming_twin(setting.ann, snn, setting.calibration), "")
    reference = setting.ann.graph(setting.images)[0].flatten(1).argmax(1).numpy()
    found = ablation_of(subject, setting.images, reference, setting.labels, plan=Plan(count, (), None))
    heading("layer", *(f"{text}, {when}" for text in SHARES.values() for when in ("before", "after")))
    for layer in found["layers"]:
        row(layer["origin"], *(100 * (layer[when][what] or 0.0) for what in SHARES for when in ("before", "after")))


def phase(setting: Setting, args: argparse.Namespace) -> None:
    """Steps to within half a point of the ANN: bistable, plain phase coding, integrate-and-fire."""
    introduce(setting)
    heading("method", f"first T with {setting.target:.2f} %", "accuracy % at some T")
    best: list[tuple[int, float, str]] = []
    for window in args.windows:
        snn = setting.bistable(window, frames=4)
        accuracy, _ = measured(setting, LayerEngine(snn).run)
        steps = snn.schedule.answer_steps
        reached(f"bistable, window {window}", steps, accuracy, setting.target)
        best += [(t, float(a), f"window {window}") for t, a in zip(steps, accuracy, strict=True) if a >= setting.target]
    if best:
        row("**bistable, best window**", *min(best)[:2])
    for window in args.phase_windows:
        snn = setting.snn(Bistable(args.timesteps, setting.depth, window=window), "mse")
        engine = PhaseCoding(snn, bistable=False, synchronous=False)
        accuracy, _ = measured(setting, engine.run, PHASE_BATCH)
        reached(f"plain phase coding, period {window}", engine.answer_steps(), accuracy, setting.target)
    for name, method, options in streaming_kinds():
        snn = setting.snn(Streaming(args.timesteps, setting.depth), method, **options)
        accuracy, _ = measured(setting, LayerEngine(snn).run, min(BATCH, chunk_size(snn)))
        reached(
            f"{name}, calibrated for {args.timesteps}", list(range(1, args.timesteps + 1)), accuracy, setting.target
        )


def reached(name: str, steps: list[int], accuracy: NDArray[np.float64], target: float) -> None:
    there = [t for t, value in zip(steps, accuracy, strict=True) if value >= target]
    chosen = np.unique(np.linspace(0, len(steps) - 1, 6).round().astype(int))
    shown = ", ".join(f"{steps[i]}: {accuracy[i]:.1f}" for i in chosen)
    row(name, there[0] if there else f"not within {steps[-1]}", shown)


def auto(setting: Setting, args: argparse.Namespace) -> None:
    """What the choice among all schedules makes of a budget, ranked on calibration images."""
    introduce(setting)
    heading(
        "budget T", "candidate", "first output", "total", "interval", "agreement % (calibration)", "spikes", "chosen"
    )

    def make(ann: Ann, schedule: Schedule, neuron: NeuronChoice) -> Snn:
        task = Task(ann, in_canonical_order(setting.calibration), schedule, neuron)
        return compile_network(METHODS["mse"](task))

    for total in args.totals:
        for trial in choose(setting.ann, candidates(setting.ann, total), make, setting.calibration):
            found = trial.record()
            if found["eligible"]:
                numbers = [found[key] for key in ("first_output", "total", "interval", "agreement")]
                row(total, found["name"], *numbers, round(found["spikes"]), "yes" if found["chosen"] else "")
            else:
                row(total, found["name"], found["reason"], "", "", "", "", "")


def cost(setting: Setting, args: argparse.Namespace) -> None:
    """Seconds of processor time of one window against one ANN pass, one thread, least of several runs."""
    introduce(setting)
    snn = setting.bistable(args.window)
    engine = LayerEngine(snn)
    plain = LayerEngine(snn)
    if plain.windows is not None:
        plain.windows, plain.lazy = None, set()
    heading("batch", "ANN pass s", "native s", "torch s", "native / ANN", "torch / ANN")
    runs: dict[str, Callable[[Tensor], Any]] = {"ann": setting.ann.graph, "native": engine.run, "torch": plain.run}
    for size in (32, 64, 128):
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        with torch.inference_mode():
            for _ in range(7):
                for name, run in runs.items():
                    start = time.process_time()
                    for at in range(0, len(setting.images), size):
                        run(setting.images[at : at + size])
                    seconds[name].append(time.process_time() - start)
        ann, native, other = (min(seconds[name]) for name in runs)
        row(size, ann, native, other, native / ann, other / ann)


def main() -> None:
    keep_freed_memory()
    tables = {f.__name__: f for f in (sweep, budget, windows, ablation, inactivated, phase, auto, cost)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=tables)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--window", type=int, default=5)
    parser.add_argument("--windows", type=int, nargs="+", default=WINDOWS)
    parser.add_argument("--phase-windows", type=int, nargs="*", default=[8])
    parser.add_argument("--streaming", type=int, nargs="*", default=[32, 64, 128])
    parser.add_argument("--kinds", nargs="*", default=["mse", "percentile"], help="thresholds of streaming networks")
    parser.add_argument("--totals", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--timesteps", type=int, default=256)
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--block", type=int, default=500)
    parser.add_argument("--state", help="file that keeps what an ablation has measured so far")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tables[args.table](opened(args.model, args.images), args)


if __name__ == "__main__":
    main()
