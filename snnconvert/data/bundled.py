"""The bundled models and their data: `zoo:NAME` works with nothing to download.

The data are scikit-learn's copy of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, UCI Machine
Learning Repository, 1998, doi:10.24432/C50P49, CC BY 4.0): 1,797 images of 8 x 8 pixels with values 0..16, split here
once into training and test images (`benchmarks/train_digits.py`). Calibrate on the training file, measure on the test
file. nmnist-cnn watches recordings of N-MNIST, which are not in the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import OptionError

FOLDER = Path(__file__).parent / "models"
PREFIX = "zoo:"


_DIGITS = Preprocessing(scale=16.0, layout="NCHW")


@dataclass(frozen=True)
class BundledModel:
    """A trained network that comes with the package.

    Attributes:
        name: what follows "zoo:".
        description: architecture and size, for listings.
        dataset: FOLDER holds DATASET_train.npz and DATASET_test.npz; empty for a model that comes without data.
        preprocessing: what the model was trained with.
        input_shape: one sample, batch excluded.
        classes: number of outputs.
        accuracy: top-1, a fraction, measured with onnxruntime by the script that trained it: on the test file
            (`benchmarks/train_digits.py`), or on the 100 test recordings of `benchmarks/nmnist_cnn.py`.
        licence: of the weights and of the data.
    """

    name: str
    description: str
    accuracy: float
    dataset: str = "digits"
    preprocessing: Preprocessing = _DIGITS
    input_shape: tuple[int, ...] = (1, 8, 8)
    classes: int = 10
    licence: str = "weights: Apache-2.0; data: CC BY 4.0 (Alpaydin and Kaynak, UCI, doi:10.24432/C50P49)"

    @property
    def file(self) -> str:
        """Its ONNX file in FOLDER."""
        return f"{self.name.replace('-', '_')}.onnx"


MODELS: dict[str, BundledModel] = {
    model.name: model
    for model in (
        BundledModel(
            "digits-resnet",
            "residual network, CIFAR style: stem and two blocks with batch norm, one shortcut convolution",
            accuracy=0.9933,
        ),
        BundledModel(
            "digits-cnn",
            "plain network: three convolutions with average pooling, two dense layers",
            accuracy=0.9966,
        ),
        BundledModel(
            "nmnist-cnn",
            "watches an event camera: three strided convolutions with batch norm, two dense layers; trained on N-MNIST",
            accuracy=0.93,
            dataset="",
            preprocessing=Preprocessing(scale=4.0, layout="NCHW", events="window:1"),
            input_shape=(2, 34, 34),
            licence="weights: Apache-2.0, trained on N-MNIST (G. Orchard et al., 2015, CC BY-SA 4.0)",
        ),
    )
}


def bundled(name: str) -> BundledModel:
    """The row for `name`, with or without "zoo:".

    Raises:
        OptionError: unknown name; lists the known ones.
    """
    found = MODELS.get(name.removeprefix(PREFIX))
    if found is None:
        raise OptionError(
            f"there is no bundled model {name!r}; there are {', '.join(PREFIX + known for known in MODELS)}",
            hint="use one of these names, or give the path of a model file",
        )
    return found


def model_path(name: str) -> Path:
    """The ONNX file of a bundled model.

    Raises:
        OptionError: unknown name.
    """
    return FOLDER / bundled(name).file


def dataset_for(name: str) -> tuple[Path, Path, Preprocessing]:
    """Training file (to calibrate on), test file (to measure on) and preprocessing of a bundled model.

    Raises:
        OptionError: unknown name, or a model that comes without data.
    """
    model = bundled(name)
    if not model.dataset:
        raise OptionError(
            f"{PREFIX}{model.name} comes without data",
            hint="give data of your own with --data, and others to calibrate on with --calibration-data",
        )
    return FOLDER / f"{model.dataset}_train.npz", FOLDER / f"{model.dataset}_test.npz", model.preprocessing


def data_path(text: str) -> Path:
    """A data set as options name it: a path, zoo:NAME (the model's test images) or zoo:NAME/train.

    Raises:
        OptionError: no such bundled model.
    """
    if not text.startswith(PREFIX):
        return Path(text)
    name, _, split = text.partition("/")
    train, test, _ = dataset_for(name)
    if split not in ("", "train", "test"):
        raise OptionError(f"{text!r} is no bundled data set", hint=f"use {name} (test images) or {name}/train")
    return train if split == "train" else test
