"""Coverage: what happens to every model of the data pack and to 23 named architectures. Writes docs/coverage.md.

    python benchmarks/coverage.py [NAME ...] [--onnx | --check | --longer NAME | --page]

Every row is kept in benchmarks/results/coverage.json as soon as it is known, so a run that was stopped goes on where it
was; name rows to run them again. Architectures need torchvision and timm; they get random weights, and batch-norm
statistics from a few forward passes so that activations are alive. Thresholds are plain maxima: the table shows that
logits converge to the network's own, not how few steps good thresholds need.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coverage_page import CALIBRATION, LONG, SHORT, page
from numpy.typing import NDArray
from torch import Tensor, nn

from snnconvert.allocator import keep_freed_memory
from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.compile.network import compile_network
from snnconvert.convert.approximate import candidates
from snnconvert.convert.architectures import build_architecture
from snnconvert.convert.check import check
from snnconvert.convert.doors import open_model
from snnconvert.convert.onnx_reference import compare_with_onnxruntime
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.passes.logits import keep_logits
from snnconvert.convert.pytorch import import_module, relative_difference
from snnconvert.convert.units import analog_nodes, with_units
from snnconvert.convert.weights import apply_weights, load_weights
from snnconvert.data.datasets import load_dataset
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.sampling import balanced_sample
from snnconvert.errors import SnnConvertError
from snnconvert.graph.dialect import origin_of
from snnconvert.graph.schedule import Streaming
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice
from snnconvert.simulate.layer_engine import LayerEngine

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SNNCONVERT_DATA", ROOT / ".." / "shared" / "data")).resolve()
RESULTS = ROOT / "benchmarks" / "results" / "coverage.json"
PAGE = ROOT / "docs" / "coverage.md"
OPERATIONS = 3e8  # of one image times images, which sets the number of images

# name: (library, name there, options, side of the image)
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "vgg16_bn": ("torchvision", "vgg16_bn", {}, 32),
    "resnet18": ("torchvision", "resnet18", {}, 64),
    "resnet50": ("torchvision", "resnet50", {}, 64),
    "resnext50": ("torchvision", "resnext50_32x4d", {}, 64),
    "wide_resnet50": ("torchvision", "wide_resnet50_2", {}, 48),
    "preact resnet": ("timm", "resnetv2_50", {}, 64),
    "squeezenet": ("torchvision", "squeezenet1_1", {}, 64),
    "mobilenet_v2": ("torchvision", "mobilenet_v2", {}, 64),
    "mobilenet_v3": ("torchvision", "mobilenet_v3_large", {}, 64),
    "mnasnet": ("torchvision", "mnasnet1_0", {}, 64),
    "efficientnet_b0": ("torchvision", "efficientnet_b0", {}, 64),
    "densenet121": ("torchvision", "densenet121", {}, 64),
    "googlenet": ("torchvision", "googlenet", {"aux_logits": False, "init_weights": False}, 64),
    "inception_v3": ("torchvision", "inception_v3", {"aux_logits": False, "init_weights": False}, 80),
    "shufflenet_v2": ("torchvision", "shufflenet_v2_x1_0", {}, 64),
    "regnet_y": ("torchvision", "regnet_y_400mf", {}, 64),
    "convnext_tiny": ("torchvision", "convnext_tiny", {}, 64),
    "repvgg": ("timm", "repvgg_a0", {}, 64),
    "ghostnet": ("timm", "ghostnet_100", {}, 64),
    "mlp_mixer": ("timm", "mixer_s32_224", {"img_size": 64}, 64),
    "vit_tiny": ("timm", "vit_tiny_patch16_224", {"img_size": 64}, 64),
    "deit_tiny": ("timm", "deit_tiny_patch16_224", {"img_size": 64}, 64),
    "swin_tiny": ("timm", "swin_tiny_patch4_window7_224", {"img_size": 56}, 56),
}

# the same for all architectures: random weights amplify the noise of spikes
NEURON = NeuronChoice("graded", 15)
# functions without a spiking form: exact in the mean, sent by signed neurons
WAY = "analog"


def awake(module: nn.Module, side: int) -> nn.Module:
    """Batch-norm statistics from a few forward passes, and layer scales of 1, so that no activation is dead."""
    for name, parameter in module.named_parameters():
        if name.endswith(("layer_scale", ".gamma")):
            nn.init.ones_(parameter)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None
        if isinstance(layer, nn.Linear) and not bool(layer.weight.any()):  # some heads start at zero
            nn.init.normal_(layer.weight, std=0.02)
    module.train()
    with torch.no_grad():
        for seed in range(2):
            module(noise(16, (3, side, side), seed))
    return module.eval()


def noise(count: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Smooth random images, about as large as normalised ones."""
    generator = torch.Generator().manual_seed(seed)
    if len(shape) != 3 or shape[0] > 4:
        return torch.randn(count, *shape, generator=generator)
    small = torch.randn(count, shape[0], max(shape[1] // 4, 1), max(shape[2] // 4, 1), generator=generator)
    return nn.functional.interpolate(small, size=shape[1:], mode="bilinear") * 1.5


def architecture(name: str) -> tuple[Ann, dict[str, Any], Tensor, Tensor]:
    """The imported network, what is known of it, and images to calibrate and to measure on."""
    module = random_module(name)
    side = ARCHITECTURES[name][3]
    shape = (3, side, side)
    ann = import_module(module, shape, name=name)
    images = noise(2, shape, 77)
    with torch.no_grad():
        expected, found = module(images), ann.graph(images)[0]
    difference = float((expected - found).abs().max() / expected.abs().max())
    known = {"kind": ":".join(ARCHITECTURES[name][:2]), "input": f"3x{side}x{side}", "difference": difference}
    return ann, known, noise(CALIBRATION, shape, 5), noise(64, shape, 9)


def random_module(name: str) -> nn.Module:
    """The architecture with random weights, the same every time."""
    library, model, options, side = ARCHITECTURES[name]
    build_architecture(f"{library}:{model}")  # explains a missing package
    torch.manual_seed(0)
    package = importlib.import_module("torchvision.models" if library == "torchvision" else "timm")
    make: Callable[..., nn.Module] = getattr(package, "get_model" if library == "torchvision" else "create_model")
    return awake(make(model, **options), side)


def pack_rows() -> dict[str, dict[str, Any]]:
    """Models of the data pack with their preprocessing, from benchmarks/zoo.toml; those without data get noise."""
    manifest = tomllib.loads((ROOT / "benchmarks" / "zoo.toml").read_text().replace(_PLACE, str(DATA)))
    rows: dict[str, dict[str, Any]] = {}
    for model in manifest["model"]:
        row = {**manifest["set"].get(model.get("set", ""), {}), **model}
        rows[Path(model["source"]).name] = row
    for path in sorted((DATA / "models").glob("*.onnx")):
        rows.setdefault(path.name, {"source": str(path)})
    return rows


_PLACE = "${SNNCONVERT_DATA:-../../shared/data}"


def _arch(row: dict[str, Any]) -> str | None:
    """The architecture of a file of weights, from anywhere."""
    arch = row.get("arch")
    return arch if arch is None or Path(arch).is_absolute() else str(ROOT / "benchmarks" / arch)


def _opened(row: dict[str, Any]) -> Ann:
    source = str(row["source"])
    plan = Preprocessing.from_dict(row.get("preprocessing", {}))
    shape = row.get("input_shape")
    if shape is None and "data" in row and not source.endswith(".onnx"):
        shape = load_dataset(row["data"], preprocessing=plan, input_shape=None).sample_shape
    return open_model(source, arch=_arch(row), input_shape=None if shape is None else tuple(shape))


def pack_model(row: dict[str, Any]) -> tuple[Ann, dict[str, Any], Tensor, Tensor]:
    """As `architecture`, for a model of the data pack."""
    source, ann = str(row["source"]), _opened(row)
    known: dict[str, Any] = {"kind": "ONNX" if source.endswith(".onnx") else "PyTorch", "difference": None}
    known["input"] = "x".join(map(str, ann.input_shape))
    samples, arch = torch.rand(2, *ann.input_shape, generator=torch.Generator().manual_seed(0)), _arch(row)
    if ann.source.format == "onnx":
        known["difference"] = compare_with_onnxruntime(ann, Path(source), samples, tolerance=1e-2).largest
    elif arch is not None:
        known["difference"] = _from_its_module(ann, arch, Path(source), samples)
    if "data" not in row:
        known["images"] = "noise"
        scale = 127.0 if "yolox" in source else 0.5
        drawn = [torch.rand(count, *ann.input_shape) * 2 * scale for count in (8, 8)]
        return ann, known, drawn[0], drawn[1]
    calibration, images, _ = _labelled_images(row, ann, CALIBRATION, 64)
    return ann, known, calibration, images


@torch.inference_mode()
def _from_its_module(ann: Ann, arch: str, weights: Path, samples: Tensor) -> float:
    """Largest difference of an imported network from its PyTorch module, relative."""
    module = build_architecture(arch)
    apply_weights(module, load_weights(weights), location=str(weights))
    return relative_difference(module.eval()(samples), ann.graph(samples)[0])


def labelled_model(row: dict[str, Any], calibration: int, images: int) -> tuple[Ann, Tensor, Tensor, NDArray[np.int64]]:
    """A model with labelled data: the network, calibration images, test images, and the labels of these."""
    ann = _opened(row)
    return ann, *_labelled_images(row, ann, calibration, images)


def _labelled_images(
    row: dict[str, Any], ann: Ann, calibration: int, images: int
) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    chosen, labels = [], np.zeros(0, np.int64)
    plan, offset = Preprocessing.from_dict(row.get("preprocessing", {})), int(row.get("label_offset", 0))
    for place, count in (("calibration_data", calibration), ("data", images)):
        data = load_dataset(row[place], preprocessing=plan, input_shape=ann.input_shape, label_offset=offset)
        picked = balanced_sample(data.labels, len(data), min(count, len(data)), 0)
        read = list(data.batches(32, picked))
        chosen.append(torch.cat([part for part, _ in read]))
        labels = np.concatenate([part.numpy() for _, part in read if part is not None])
    return chosen[0], chosen[1], labels


def measured(  # noqa: PLR0917
    opened: Ann, known: dict[str, Any], calibration: Tensor, images: Tensor, neuron: NeuronChoice, way: str
) -> dict[str, Any]:
    """One row of the table."""
    known |= judged(opened, way)
    images = images[: max(1, min(len(images), int(OPERATIONS / max(known["operations"], 1))))]
    start = time.perf_counter()
    canonical, calibration = keep_logits(canonicalize(opened)), in_canonical_order(calibration)
    ann, network = with_units(canonical, calibration, way=way)
    known["convert_seconds"] = time.perf_counter() - start
    analog = Counter(origin_of(node).operator for node in analog_nodes(network.graph))
    known |= {
        "neuron": neuron.model if neuron.levels == 1 else f"{neuron.model}, {neuron.levels} units",
        "analog": dict(analog),
        "images_measured": len(images),
        "notes": [note for note in ann.source.notes if not note.startswith("architecture ")],
    }
    with torch.no_grad():
        reference, written = ann.graph(images)[0].double(), network.graph(images)[0].double()
        known["written_error"] = relative(written, reference)
        if way == "analog" and candidates(canonical.graph):
            units = with_units(canonical, calibration, way="units")[1]
            known["units_error"] = relative(units.graph(images)[0].double(), reference)
    start = time.perf_counter()
    sums = simulated(network, calibration, images, neuron, LONG)
    known["simulate_seconds"] = time.perf_counter() - start
    for timesteps in (SHORT, LONG):
        mean = sums[timesteps - 1] / timesteps
        known[f"error_{timesteps}"] = relative(mean, reference)
        known[f"own_error_{timesteps}"] = relative(mean, written)
        agreed = mean.flatten(1).argmax(1) == reference.flatten(1).argmax(1)
        known[f"agreement_{timesteps}"] = float(agreed.double().mean())
    return known


def judged(opened: Ann, way: str) -> dict[str, Any]:
    """What `check` says, and how long it takes."""
    start = time.process_time()
    verdicts = check(opened, way=way)
    return {
        "check_seconds": time.process_time() - start,
        "nodes": len(verdicts.nodes),
        "site_coverage": verdicts.site_coverage,
        "operation_coverage": verdicts.operation_coverage,
        "operations": sum(verdicts.operations.values()),
    }


def simulated(network: Ann, calibration: Tensor, images: Tensor, neuron: NeuronChoice, timesteps: int) -> Tensor:
    """Sums of the first output after each step, (timesteps, images, classes), with nothing clipped."""
    schedule = Streaming(timesteps, max(site_depths(network.graph).values()))
    seen = in_canonical_order(torch.cat([calibration, images]))
    task = Task(network, seen, schedule, neuron, {"percentile": 100.0})
    engine = LayerEngine(compile_network(METHODS["percentile"](task)))
    parts = [engine.run(images[index : index + 1]).outputs[0] for index in range(len(images))]
    return torch.cat(parts, 1)


def through_onnx(name: str) -> dict[str, Any]:
    """The same architecture and weights, exported to ONNX and read back; needs onnxscript."""
    module, side = random_module(name), ARCHITECTURES[name][3]
    shape = (3, side, side)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(module, (noise(1, shape, 0),), path, dynamo=True, verbose=False)
        start = time.perf_counter()
        opened = open_model(str(path))
        seconds = time.perf_counter() - start
        known = {"import_seconds": seconds, **judged(opened, WAY)}
        known["difference"] = compare_with_onnxruntime(opened, path, noise(2, shape, 77), tolerance=1e-2).largest
    calibration, images = noise(CALIBRATION, shape, 5), noise(64, shape, 9)[:2]
    ann, network = with_units(keep_logits(canonicalize(opened)), in_canonical_order(calibration), way=WAY)
    with torch.no_grad():
        reference = module(images).double()
        known["ann_error"] = relative(ann.graph(images)[0].double(), reference)
    if known["operations"] < OPERATIONS / 2:
        mean = simulated(network, calibration, images[:1], NEURON, SHORT)[-1] / SHORT
        known[f"error_{SHORT}"] = relative(mean, reference[:1])
    return known


def refresh_checks(results: dict[str, Any], pack: dict[str, dict[str, Any]]) -> None:
    """Processor seconds of `check` on every row, reading the file included."""
    for name in [*ARCHITECTURES, *pack]:
        if "nodes" in results.get(name, {}):
            opened = architecture(name)[0] if name in ARCHITECTURES else None
            start = time.process_time()
            check(opened or _opened(pack[name]))
            results[name]["check_seconds"] = time.process_time() - start
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def relative(found: Tensor, reference: Tensor) -> float:
    """Euclidean error over the reference's norm."""
    return float((found - reference).norm() / reference.norm())


def longer(name: str, timesteps: int = 1024) -> dict[str, float]:
    """Relative error of the mean logits by T, on one image: where an architecture's error falls, and where not yet."""
    opened, _, calibration, images = architecture(name)
    network = with_units(keep_logits(canonicalize(opened)), in_canonical_order(calibration), way=WAY)[1]
    with torch.no_grad():
        reference = opened.graph(images[:1])[0].double()
    sums = simulated(network, calibration, images[:1], NEURON, timesteps)
    lengths = [2**power for power in range(3, timesteps.bit_length())]
    return {str(length): relative(sums[length - 1] / length, reference) for length in lengths}


def main() -> None:
    """Run what is missing (or named), and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="run these again")
    parser.add_argument("--onnx", action="store_true", help="the architectures through ONNX")
    parser.add_argument("--check", action="store_true", help="only time `check` again")
    parser.add_argument("--longer", metavar="NAME", help="an architecture's error up to T = 1,024")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    pack = pack_rows() if (DATA / "README.md").is_file() else {}
    if args.check:
        refresh_checks(results, pack)
    if args.longer:
        results[args.longer]["longer"] = longer(args.longer)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if not (args.check or args.longer or args.page):
        for name in [*ARCHITECTURES, *([] if args.onnx else pack)]:
            row = results.setdefault(name, {})
            if name in args.names or (not args.names and ("onnx" if args.onnx else "nodes") not in row):
                run_again(name, row, pack.get(name), doors=args.onnx)
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(results, list(ARCHITECTURES), [name for name in pack if results.get(name)]))


def run_again(name: str, row: dict[str, Any], source: dict[str, Any] | None, *, doors: bool) -> None:
    """Measure an architecture, or the model of the data pack that `source` describes, and note it in `row`."""
    try:
        if doors:
            row["onnx"] = through_onnx(name)
        else:
            opened, known, calibration, images = architecture(name) if source is None else pack_model(source)
            opened = replace(opened, source=replace(opened.source, name=name))
            chosen = (NEURON, WAY) if source is None else (NeuronChoice("ternary"), "auto")
            row |= measured(opened, known, calibration, images[:4] if source is None else images, *chosen)
            row.pop("failed", None)
    except SnnConvertError as error:
        row["failed"] = error.render().splitlines()[0]
    print(name, {key: value for key, value in row.items() if key != "notes"}, flush=True)


if __name__ == "__main__":
    main()
