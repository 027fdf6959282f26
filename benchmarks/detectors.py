"""Detectors as spiking networks: their boxes against those of the original network, since there are no labels.

    python benchmarks/detectors.py yolox_nano --neuron ternary --timesteps 8 16 32 --images 300

Images are those of imagenet_val1300, letterboxed to the network's input (as YOLOX does: at the top left, the rest 114);
calibrated is on training images of imagenet_calibration500. True is what the original network finds with a score of at
least 0.3 after non-maximum suppression at an intersection over union of 0.45. Average precision at 0.5 is taken per
class over all images, from every box of the spiking network with a score of at least 0.01, and averaged over the
classes that occur; `box` is the mean intersection over union of the boxes that are found. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from conversion_profile import DATA
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import snnconvert
from snnconvert.allocator import keep_freed_memory

Floats = NDArray[np.float64]
TRUE_SCORE, LEAST_SCORE, SUPPRESSED, MATCHED = 0.3, 0.01, 0.45, 0.5
BATCH = 4
FAR = 1e5  # pixels; more than any box


@dataclass(frozen=True)
class Found:
    """Boxes of one image: corners (n, 4) in pixels, scores (n), classes (n)."""

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]

    def above(self, score: float) -> Found:
        """Those with at least this score."""
        kept = self.scores >= score
        return Found(self.boxes[kept], self.scores[kept], self.classes[kept])


def yolox(outputs: Sequence[Tensor], height: int, width: int) -> Iterator[Found]:
    """Boxes of YOLOX: offsets in cells and logarithms of sizes, objectness, a score per class (Ge et al. 2021)."""
    cells: list[Floats] = []
    for stride in (8, 16, 32):
        y, x = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([x, y, np.full_like(x, stride)], -1).reshape(-1, 3).astype(float))
    grid = np.concatenate(cells)
    for one in outputs[0].double().numpy():
        centre = (one[:, :2] + grid[:, :2]) * grid[:, 2:]
        size = np.exp(one[:, 2:4].clip(max=10)) * grid[:, 2:]
        scores = one[:, 4] * one[:, 5:].max(1)
        yield Found(np.hstack([centre - size / 2, centre + size / 2]), scores, one[:, 5:].argmax(1))


def ultraface(outputs: Sequence[Tensor], height: int, width: int) -> Iterator[Found]:
    """Faces as a single-shot detector regresses them from boxes that lie ready (Linzaer's; variances 0.1 and 0.2)."""
    ready: list[Floats] = []
    for stride, sizes in ((8, (10, 16, 24)), (16, (32, 48)), (32, (64, 96)), (64, (128, 192, 256))):
        y, x = np.mgrid[: -(-height // stride), : -(-width // stride)]
        centres = (np.stack([x, y], -1).reshape(-1, 1, 2) + 0.5) * stride
        sides = np.array(sizes, dtype=float).reshape(1, -1, 1)
        ready.append(np.concatenate(np.broadcast_arrays(centres, sides * np.ones(2)), -1).reshape(-1, 4))
    prior = np.concatenate(ready)
    for scores, moved in zip(*(one.double().numpy() for one in outputs), strict=True):
        centre = prior[:, :2] + 0.1 * moved[:, :2] * prior[:, 2:]
        size = prior[:, 2:] * np.exp(0.2 * moved[:, 2:].clip(max=10))
        face: Floats = scores[:, 1]
        yield Found(np.hstack([centre - size / 2, centre + size / 2]), face, np.zeros(len(face), dtype=np.int64))


@dataclass(frozen=True)
class Detector:
    """A network of the data folder, its input, and how its outputs are read."""

    file: str
    height: int
    width: int
    read: Callable[[Sequence[Tensor], int, int], Iterator[Found]]
    preprocessing: dict[str, Any] = field(default_factory=dict)


DETECTORS = {
    "yolox_nano": Detector("yolox_nano.onnx", 416, 416, yolox, {"scale": 1.0, "channels": "bgr"}),
    "ultraface": Detector(
        "ultraface_RFB-320_simplified.onnx", 240, 320, ultraface, {"mean": "127", "std": "128", "scale": 1.0}
    ),
}


def letterboxed(folder: str, count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Images of all classes in turn, (n, 3, height, width)."""
    files = sorted(path for path in (DATA / folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = files[:: max(1, len(files) // count)][:count]
    made = np.full((len(chosen), height, width, 3), 114, dtype=np.uint8)
    for place, path in enumerate(chosen):
        with Image.open(path) as image:
            picture = image.convert("RGB")
        share = min(height / picture.height, width / picture.width)
        size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
        made[place, : size[1], : size[0]] = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
    return np.ascontiguousarray(made.transpose(0, 3, 1, 2))


def overlaps(one: Floats, others: Floats) -> Floats:
    """Intersection over union of a box (4) with others (4, n): left, top, right and bottom."""
    left, top, right, bottom = others
    width = np.minimum(right, one[2]) - np.maximum(left, one[0])
    height = np.minimum(bottom, one[3]) - np.maximum(top, one[1])
    common = width.clip(min=0) * height.clip(min=0)
    areas = [(box[2] - box[0]).clip(min=0) * (box[3] - box[1]).clip(min=0) for box in (one, others)]
    whole: Floats = common / np.maximum(areas[0] + areas[1] - common, 1e-9)
    return whole


def suppressed(found: Found) -> Found:
    """Without boxes that overlap a better one of their class."""
    order = np.argsort(-found.scores, kind="stable")
    boxes = found.boxes[order] + FAR * found.classes[order][:, None]  # those of other classes lie elsewhere
    columns, kept = np.ascontiguousarray(boxes.T), np.ones(len(order), dtype=bool)
    for best in range(len(order)):
        if kept[best]:
            kept[best + 1 :] &= overlaps(boxes[best], columns[:, best + 1 :]) <= SUPPRESSED
    chosen = order[kept]
    return Found(found.boxes[chosen], found.scores[chosen], found.classes[chosen])


def judged(found: Sequence[Found], true: Sequence[Found]) -> tuple[float, float, int]:
    """Mean average precision at 0.5, mean overlap of the boxes that are found, and the number of true boxes."""
    precisions, shared = [], []
    for kind in sorted({int(one) for image in true for one in image.classes}):
        rows, number = [], 0
        for image, (there, wanted) in enumerate(zip(found, true, strict=True)):
            number += int((wanted.classes == kind).sum())
            rows += [(score, image, box) for box, score in zip(*_of(there, kind), strict=True)]
        taken: set[tuple[int, int]] = set()
        hits = []
        for _, image, box in sorted(rows, key=lambda row: -row[0]):
            targets = _of(true[image], kind)[0]
            overlap = overlaps(box, targets.T) if len(targets) else np.zeros(1)
            best = int(overlap.argmax())
            hit = overlap[best] >= MATCHED and (image, best) not in taken
            hits.append(hit)
            if hit:
                taken.add((image, best))
                shared.append(float(overlap[best]))
        right = np.cumsum(hits)
        precision = right / np.arange(1, len(hits) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        precisions.append(float(envelope[np.array(hits, dtype=bool)].sum()) / number if hits else 0.0)
    return float(np.mean(precisions)), float(np.mean(shared)), sum(len(one.classes) for one in true)


def _of(found: Found, kind: int) -> tuple[Floats, Floats]:
    own = found.classes == kind
    return found.boxes[own], found.scores[own]


def main() -> None:
    """Convert, run both networks, compare their boxes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=tuple(DETECTORS))
    parser.add_argument("--neuron", default="ternary")
    parser.add_argument("--levels", type=int, default=1, help="units per step (burst, graded)")
    parser.add_argument("--timesteps", nargs="+", type=int, default=[32])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--calibration-images", type=int, default=128)
    args = parser.parse_args()
    keep_freed_memory()
    print("| network | neuron | T | images | true boxes | mAP@0.5 | box | spikes an image | processor s |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in args.networks:
        one = DETECTORS[name]
        pictures = letterboxed("imagenet_val1300", args.images, one.height, one.width)
        training = letterboxed("imagenet_calibration500", args.calibration_images, one.height, one.width)
        for steps in args.timesteps:
            begun = time.process_time()
            made = snnconvert.convert_model(
                DATA / "models" / one.file,
                data=pictures[:8],
                calibration_data=training,
                timesteps=steps,
                neuron=args.neuron,
                levels=str(args.levels),
                schedule="streaming",
                calibration_samples=len(training),
                **one.preprocessing,
            ).snn
            assert made.calibrated is not None and made.calibrated.original is not None
            original = made.calibrated.original.graph
            found: list[Found] = []
            true: list[Found] = []
            spikes = 0.0
            for start in range(0, len(pictures), BATCH):
                given = made.prepare(pictures[start : start + BATCH])
                seen = made.simulate(given)
                ends = [part[-1] for part in (seen.outputs, *seen.further)]
                spikes += len(given) * float(sum(float(by_step.sum()) for by_step in seen.spikes.values()))
                with torch.inference_mode():
                    known = original(given)
                for outputs, kept in ((ends, found), (known, true)):
                    kept += [suppressed(image.above(LEAST_SCORE)) for image in one.read(outputs, one.height, one.width)]
            figures = judged(found, [image.above(TRUE_SCORE) for image in true])
            print(
                f"| {name} | {args.neuron} | {steps} | {len(pictures)} | {figures[2]} | {figures[0]:.3f} | "
                f"{figures[1]:.3f} | {spikes / len(pictures):,.0f} | {time.process_time() - begun:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
