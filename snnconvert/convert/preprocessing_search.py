"""Find out how a model wants its images: try the usual normalisations on labelled ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from snnconvert.data.arrange import normalised
from snnconvert.data.datasets import check_labels, load_dataset
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.sampling import balanced_sample
from snnconvert.errors import DataError
from snnconvert.graph.dialect import class_count
from snnconvert.graph.types import Ann

IMAGES = 128
# images seen so far, and how many normalisations go on from there
ROUNDS = ((12, 10), (40, 4), (IMAGES, 4))
BATCH = 32

# name: (largest value before mean and std, mean, std); one channel or three. Each is what a wide-spread source trains
# with; the statistics of a data set are those of its training images.
NORMALISATIONS: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "0..1": (1.0, (0.0,), (1.0,)),  # torchvision.transforms.ToTensor
    "0..255": (255.0, (0.0,), (1.0,)),  # keras.applications.efficientnet
    "-1..1": (1.0, (0.5,), (0.5,)),  # keras.applications.imagenet_utils, mode "tf"
    "(x - 127) / 128": (255.0, (127.0,), (128.0,)),  # single-shot detectors: SSD, MTCNN
    "-128..127": (255.0, (128.0,), (1.0,)),  # signed 8-bit inputs of TensorFlow Lite
    "MNIST mean and std": (1.0, (0.1307,), (0.3081,)),  # pytorch/examples
    "Fashion-MNIST mean and std": (1.0, (0.286,), (0.353,)),
    "ImageNet mean and std": (1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision.models
    "CIFAR-10 mean and std": (1.0, (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "CIFAR-10 mean, std 0.2": (1.0, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)),  # kuangliu/pytorch-cifar
    "CIFAR-100 mean and std": (1.0, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "Caffe means": (255.0, (123.0, 117.0, 104.0), (1.0,)),  # keras.applications.imagenet_utils, mode "caffe"
    "Caffe means, scale 0.017": (255.0, (123.68, 116.78, 103.94), (58.8,)),  # MobileNet and DenseNet in Caffe
}


@dataclass(frozen=True)
class Fit:
    """How well a model does with one normalisation.

    Attributes:
        name: which one.
        preprocessing: the same as options of the command line.
        correct: images classified rightly.
        images: images tried.
    """

    name: str
    preprocessing: Preprocessing
    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100.0 * self.correct / self.images

    def options(self) -> str:
        """As it is typed."""
        made = self.preprocessing
        parts = [f"--scale {made.scale:g}"]
        for name in ("mean", "std"):
            values = getattr(made, name)
            if set(values) != {0.0 if name == "mean" else 1.0}:
                parts.append(f"--{name} " + ",".join(f"{value:g}" for value in values))
        return " ".join(parts + (["--channels BGR"] if made.channels == "BGR" else []))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "name": self.name,
            "accuracy": self.accuracy,
            "correct": self.correct,
            "images": self.images,
            "options": self.options(),
            "preprocessing": self.preprocessing.to_dict(),
        }


def find_preprocessing(
    ann: Ann,
    data: str,
    *,
    base: Preprocessing | None = None,
    label_offset: int = 0,
    images: int = IMAGES,
    seed: int = 0,
) -> list[Fit]:
    """Try every usual normalisation, in RGB and BGR, and return them by falling accuracy.

    All are tried on a few images, the best of them on more (ROUNDS); those that dropped out follow in the result.

    Args:
        ann: the network.
        data: labelled images, as for --data.
        base: resize, crop and layout to use; its scale, mean, std and channels are what is searched.
        label_offset: added to labels.
        images: how many images to try, evenly over the classes.

    Raises:
        DataError: the data have no labels, or do not fit the model.
    """
    plain = replace(base or Preprocessing(), scale=1.0, mean=(0.0,), std=(1.0,), channels="RGB")
    dataset = load_dataset(data, preprocessing=plain, input_shape=ann.input_shape, label_offset=label_offset)
    if dataset.labels is None:
        raise DataError(
            f"{data} has no labels, so normalisations cannot be compared",
            hint="give labelled images: .npz with x and y, class folders, or a folder with labels.csv",
        )
    classes = class_count(ann.graph)
    check_labels(dataset, classes)
    chosen = balanced_sample(dataset.labels, len(dataset), images, seed)
    batches = list(dataset.batches(BATCH, chosen))
    raw = torch.cat([batch for batch, _ in batches])
    labels = torch.cat([batch for _, batch in batches if batch is not None])
    coloured = _coloured(raw, dataset.preprocessing.layout)
    largest = 255.0 if float(raw.max()) > 1.5 else 1.0
    trials: list[tuple[str, Preprocessing]] = []
    for name, (top, mean, std) in NORMALISATIONS.items():
        if not coloured and len(mean) > 1:
            continue
        for channels in ("RGB", "BGR") if coloured else ("RGB",):
            order = slice(None) if channels == "RGB" else slice(None, None, -1)
            made = replace(
                dataset.preprocessing, scale=largest / top, mean=mean[order], std=std[order], channels=channels
            )
            trials.append((name if channels == "RGB" else f"{name}, BGR", made))
    shuffled = torch.randperm(len(raw), generator=torch.Generator().manual_seed(seed))  # they come class by class
    raw, labels = raw[shuffled], labels[shuffled]
    found = [Fit(name, made, 0, 0) for name, made in trials]
    dropped: list[Fit] = []
    for count, best in ROUNDS:
        found = sorted((_tried_on(ann, fit, raw, labels, min(count, len(raw))) for fit in found), key=_errors)
        found, dropped = found[:best], found[best:] + dropped
    return found + dropped


def _errors(fit: Fit) -> int:
    return fit.images - fit.correct


def _tried_on(ann: Ann, fit: Fit, raw: Tensor, labels: Tensor, count: int) -> Fit:
    """`fit` with the images up to `count` that it has not seen."""
    if count == fit.images:
        return fit
    new = slice(fit.images, count)
    images = torch.from_numpy(normalised(raw[new].numpy(), fit.preprocessing))
    correct = _correct(ann, images, labels[new])
    return replace(fit, correct=fit.correct + correct, images=count)


def as_good(found: list[Fit]) -> list[Fit]:
    """Those that a sample of this size cannot tell from the best (within one standard error)."""
    best = found[0]
    share = best.correct / best.images
    error = (share * (1 - share) * best.images) ** 0.5
    return [fit for fit in found if fit.images == best.images and fit.correct >= best.correct - error]


def _coloured(raw: Tensor, layout: str | None) -> bool:
    return raw.ndim == 4 and raw.shape[3 if layout == "NHWC" else 1] == 3


@torch.inference_mode()
def _correct(ann: Ann, images: Tensor, labels: Tensor) -> int:
    decided = [
        ann.graph(images[start : start + BATCH])[0].flatten(1).argmax(1) for start in range(0, len(images), BATCH)
    ]
    return int((torch.cat(decided) == labels).sum())
