"""Raw images that are read when they are asked for. A source knows nothing about models."""

from __future__ import annotations

import hashlib
import struct
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snnconvert.budget import BYTES_PER_PIXEL, check_claim
from snnconvert.data.arrange import resize_crop
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import DataError
from snnconvert.files import opened

# class numbers (n,) int64; real numbers (n,); or an array for each image, (n, *shape)
Labels = NDArray[Any]
# no data set has so many classes; sums and offsets of labels stay inside 64 bits
MOST_LABEL = 2**31
# What is opened as an image: others that Pillow knows start programs (Ghostscript) or read further files.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# What decoders raise on damaged files.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError, MemoryError),
    *(RuntimeError, struct.error, zlib.error),
)


class Source(ABC):
    """Where the images of a data set come from.

    Attributes:
        shape: of one raw sample.
        dtype: of its values.
        at_hand: whether reading all of them once more costs little beside converting a network.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    at_hand: bool = True

    def __init__(self) -> None:
        self._digests: dict[int, bytes] = {}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, indices: Sequence[int]) -> NDArray[Any]:
        """(len(indices), *shape)."""

    @abstractmethod
    def stored(self, index: int) -> bytes:
        """One raw image as it is stored."""

    def digest(self, index: int) -> bytes:
        """sha256 of one raw image; remembered, for the same images are asked for more than once."""
        if index not in self._digests:
            self._digests[index] = hashlib.sha256(self.stored(index)).digest()
        return self._digests[index]


class ArraySource(Source):
    """Images in an array (N, *shape), in memory or mapped from a file."""

    def __init__(self, images: NDArray[Any]) -> None:
        super().__init__()
        self._images, self.shape, self.dtype = images, images.shape[1:], images.dtype

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Sequence[int]) -> NDArray[Any]:
        return np.asarray(self._images[np.asarray(indices, np.int64)])

    def stored(self, index: int) -> bytes:
        return np.ascontiguousarray(self._images[index]).tobytes()


class FileSource(Source):
    """Image files, decoded to (H, W, C) uint8 batch by batch, resized and cropped to one size.

    Args:
        channels: 1 (grey) or 3 (RGB); files of another kind are converted.
        geometry: resize and crop for every file.
        size: (height, width) each image must have then.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: Sequence[Path], channels: int, geometry: Preprocessing, size: tuple[int, int]) -> None:
        super().__init__()
        self._paths = list(paths)
        self._geometry = geometry
        self._mode = "L" if channels == 1 else "RGB"
        self.shape = (*size, channels)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, indices: Sequence[int]) -> NDArray[Any]:
        return np.stack([self._one(self._paths[index]) for index in indices])

    def stored(self, index: int) -> bytes:
        try:
            with opened(self._paths[index]) as file:
                return file.read()
        except OSError as error:
            raise unreadable(self._paths[index], error) from error

    def _one(self, path: Path) -> NDArray[Any]:
        try:
            with _opened(path) as image:
                pixels = np.asarray(resize_crop(image.convert(self._mode), self._geometry))
        except _DAMAGE as error:
            raise unreadable(path, error) from error
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if pixels.shape != self.shape:
            raise DataError(
                f"{path} has {pixels.shape[0]}x{pixels.shape[1]} pixels where the others have "
                f"{self.shape[0]}x{self.shape[1]}",
                hint=f"give all images one size: --resize {min(self.shape[:2])} --crop {min(self.shape[:2])}",
            )
        return pixels


def numbers_of(labels: NDArray[Any], where: str) -> Labels:
    """Labels as data sets hold them: one whole number for each image as int64, real numbers as float64.

    Raises:
        DataError: NaN, infinite or huge labels.
    """
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        index = int(np.flatnonzero(~np.isfinite(labels.reshape(len(labels), -1)).all(axis=1))[0])
        raise DataError(f"the label of image {index} in {where} is NaN or infinite", hint="repair or remove the image")
    if labels.ndim > 1:
        return labels.astype(np.uint8) if labels.dtype.kind == "b" else labels
    if not (np.abs(labels.astype(np.float64)) < MOST_LABEL).all():
        raise DataError(f"the labels in {where} are not below {MOST_LABEL:,}", hint="store smaller numbers")
    whole = labels.astype(np.int64)
    return whole if (whole == labels).all() else labels.astype(np.float64)


def open_image(path: Path) -> tuple[int, int, str]:
    """(height, width, PIL mode) from the header of an image file.

    Raises:
        DataError: naming the file, when it is no image, is damaged, or has more than 8 bits per channel.
    """
    try:
        with _opened(path) as image:
            found = image.height, image.width, image.mode
            image.verify()
    except _DAMAGE as error:
        raise unreadable(path, error) from error
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image whose header has been read; its pixels may be decoded.

    Raises:
        ClaimError: it has more pixels than the file may ask for.
    """
    with opened(path) as file, _alone(), Image.open(file, formats=FORMATS) as image:
        if min(image.size) < 1:
            raise ValueError("it has no pixels")
        check_pixels(image.height, image.width, path)
        _check_mode(image, path)
        yield image


@contextmanager
def _alone() -> Iterator[None]:
    """Without Pillow's own limit of pixels, which nobody can raise (ours comes first), and without its remarks."""
    own, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = own


def check_pixels(height: int, width: int, path: Path) -> None:
    """Make sure that an image file may ask for an image of this size.

    Raises:
        ClaimError: it may not.
    """
    check_claim(height * width * BYTES_PER_PIXEL, f"an image of {height:,} x {width:,} pixels", path)


def _check_mode(image: Image.Image, path: Path) -> None:
    """Refuse images that PIL would clip to 8 bits."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise DataError(
            f"{path} has more than 8 bits per pixel (mode {image.mode})",
            hint="convert the images to 8 bits, or store them as float32 in a .npz file with keys x and y",
        )


def unreadable(path: Path, error: Exception) -> DataError:
    """The DataError for an image file that cannot be decoded."""
    reason = "it is not an image" if type(error).__name__ == "UnidentifiedImageError" else str(error)
    return DataError(f"the image {path} cannot be read: {reason}", hint="replace the file, or remove it from the set")


# --- raw data -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RawData:
    """Images as they are stored, with what the reader found out about them."""

    source: Source
    labels: Labels | None
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]


def labelled(
    path: Path | str,
    images: NDArray[Any],
    labels: NDArray[Any] | None,
    classes: tuple[str, ...] | None,
    notes: tuple[str, ...],
) -> RawData:
    """Samples in an array, and their labels, checked.

    Raises:
        DataError: numbers of another kind, not finite, or labels that do not fit.
    """
    if images.ndim < 2:
        raise DataError(
            f"the images in {path} have the shape {images.shape}, which has no axes beside the images",
            hint="store images as N x H x W x C",
        )
    if images.dtype.kind not in "buif":
        raise DataError(f"the images in {path} have the type {images.dtype}", hint="store them as uint8 or float32")
    notes += check_finite(path, images)
    found = None
    if labels is not None:
        found, label_notes = read_labels(path, labels, len(images))
        notes += label_notes
    return RawData(ArraySource(images), found, classes, notes)


def read_labels(path: Path | str, labels: NDArray[Any], count: int) -> tuple[Labels, tuple[str, ...]]:
    """Class numbers as int64, however they are stored; other numbers and arrays of numbers as they are."""
    notes: tuple[str, ...] = ()
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    numeric = labels.dtype.kind in "buif"
    if labels.ndim == 2 and numeric and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all():
        labels = labels.argmax(axis=1)
        notes = ("one-hot labels were read as class numbers",)
    if labels.ndim < 1 or not numeric:
        raise DataError(
            f"the labels in {path} have the shape {labels.shape} and type {labels.dtype}",
            hint="store one class number per image, numbers for each output, or a mask",
        )
    if len(labels) != count:
        raise DataError(
            f"{path} has {count} images but {len(labels)} labels", hint="store one label per image, in the same order"
        )
    return numbers_of(labels, str(path)), notes


def check_finite(path: Path | str, images: NDArray[Any], what: str = "image") -> tuple[str, ...]:
    """NaN and infinity are errors; float images far outside 0..1 are worth a note."""
    if images.dtype.kind != "f":
        return ()
    highest = 0.0
    for start in range(0, len(images), 256):
        part = np.asarray(images[start : start + 256])
        finite = np.isfinite(part)
        if not finite.all():
            index = start + int(np.flatnonzero(~finite.reshape(len(part), -1).all(axis=1))[0])
            raise DataError(f"{what} {index} in {path} holds NaN or infinite values", hint="repair or remove the image")
        highest = max(highest, float(part.max(initial=0.0)))
    if highest > 16.0:
        return (f"the images are floats that reach {highest:g}; they are divided only if a scale is given",)
    return ()
