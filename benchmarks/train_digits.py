"""Train the bundled digit networks and write their ONNX files: `python benchmarks/train_digits.py`.

Seeded, under a minute on one CPU core. The data files are written only where they are missing, which needs
scikit-learn. The test images choose nothing: the recipe is fixed, and the last epoch is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from digits_networks import DigitsCnn, DigitsResNet
from torch import Tensor
from torch.nn import functional as F

from snnconvert.data.bundled import FOLDER, MODELS, BundledModel, dataset_for
from snnconvert.data.datasets import load_dataset
from snnconvert.data.sampling import balanced_sample

TEST_IMAGES = 597
SEED = 0
BATCH = 64

NETWORKS: dict[str, type[DigitsResNet] | type[DigitsCnn]] = {"digits-resnet": DigitsResNet, "digits-cnn": DigitsCnn}


def write_data(folder: Path) -> None:
    """Split scikit-learn's digits once, evenly over the classes, into digits_train.npz and digits_test.npz."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    test = balanced_sample(labels, len(labels), TEST_IMAGES, SEED)
    train = np.setdiff1d(np.arange(len(labels)), test)
    classes = np.array([str(digit) for digit in range(10)])
    for name, part in (("train", train), ("test", test)):
        np.savez_compressed(folder / f"digits_{name}.npz", x=images[part], y=labels[part], classes=classes)


def train(network: torch.nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """AdamW with a one-cycle rate, on images shifted by up to one pixel and with a little noise."""
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=1e-2)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images) - BATCH + 1, BATCH):
            part = order[start : start + BATCH]
            loss = F.cross_entropy(network(_augmented(images[part], generator)), labels[part], label_smoothing=0.05)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    network.eval()


def accuracy(model: onnx.ModelProto, images: Tensor, labels: Tensor) -> float:
    """Top-1 of an ONNX model in onnxruntime, as a fraction."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": images.numpy()})[0]
    return float((logits.argmax(1) == labels.numpy()).mean())


def build(row: BundledModel, folder: Path, epochs: int) -> float:
    """Train one model, write its ONNX file into `folder`, and return its test accuracy."""
    train_file, test_file, preprocessing = dataset_for(row.name)
    training = load_dataset(train_file, preprocessing=preprocessing, input_shape=row.input_shape)
    testing = load_dataset(test_file, preprocessing=preprocessing, input_shape=row.input_shape)
    assert training.labels is not None
    assert testing.labels is not None
    # More threads would sum in another order, and such small layers gain nothing from them.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    network = NETWORKS[row.name]()
    train(network, training.images(), torch.from_numpy(training.labels), epochs)
    torch.set_num_threads(threads)
    model = network.onnx()
    onnx.save(model, folder / row.file)
    return accuracy(model, testing.images(), torch.from_numpy(testing.labels))


def _augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    padded = F.pad(images, (1, 1, 1, 1))
    rows, columns = torch.randint(0, 3, (2, len(images)), generator=generator)
    span = torch.arange(8)
    at = torch.arange(len(images))[:, None, None]
    shifted = padded[:, 0][at, (rows[:, None] + span)[:, :, None], (columns[:, None] + span)[:, None, :]][:, None]
    return shifted + 0.05 * torch.randn(images.shape, generator=generator)


def main() -> None:
    """Write what is missing of the data, then both models, and print their accuracies."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write the ONNX files")
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not (FOLDER / "digits_train.npz").exists():
        FOLDER.mkdir(exist_ok=True)
        write_data(FOLDER)
    for row in (MODELS[name] for name in NETWORKS):
        print(f"{row.name}: test accuracy {build(row, options.folder, options.epochs):.4f}")


if __name__ == "__main__":
    main()
