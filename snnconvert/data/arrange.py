"""Bring an array of raw images into the order, size and values of a model's input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from snnconvert.data.preprocessing import Preprocessing, Size
from snnconvert.errors import DataError, OptionError

_IMAGE_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Arrangement:
    """A plan from one raw sample shape to one model input shape.

    Attributes:
        order: axes of a raw sample: "HWC", "CHW", "HW", or "" for values taken as they stand.
        preprocessing: with `scale` and `layout` filled in.
        sample_shape: shape of one prepared sample.
        notes: what the report must say about the plan.
    """

    order: str
    preprocessing: Preprocessing
    sample_shape: tuple[int, ...]
    notes: tuple[str, ...]

    def run(self, images: NDArray[Any]) -> Tensor:
        """Prepare a batch (N, *raw sample); returns float32 (N, *sample_shape)."""
        count = len(images)
        if self.order:
            images = images[..., None] if self.order == "HW" else images
            images = np.moveaxis(images, 1, -1) if self.order == "CHW" else images
            images = _resize_crop_arrays(images, self.preprocessing)
            if self.preprocessing.layout == "NCHW":
                images = np.moveaxis(images, -1, 1)
        else:
            images = images.reshape(count, *self.sample_shape)
        values = normalised(images, self.preprocessing)
        return torch.from_numpy(np.ascontiguousarray(values).reshape(count, *self.sample_shape))


def arrange(
    raw: tuple[int, ...], dtype: np.dtype[Any], preprocessing: Preprocessing, input_shape: tuple[int, ...] | None
) -> Arrangement:
    """Plan how samples of shape `raw` become samples of shape `input_shape` (None: whatever the images give).

    Raises:
        DataError: they do not fit, with the option that would help.
        OptionError: mean, std or channels do not fit the number of channels.
    """
    if dtype.kind not in "buif":
        raise DataError(f"images have the type {dtype}", hint="store images as uint8 or float32")
    layout = preprocessing.layout or layout_of(input_shape)
    plan = preprocessing.resolved(dtype, layout)
    if preprocessing.scale is None and dtype == np.uint8 and max(plan.mean) > 1.0:
        raise OptionError(
            f"mean {max(plan.mean):g} is above 1, but uint8 images are divided by 255 where no scale is given",
            hint="add --scale 1 if mean and std are in units of 0..255",
        )
    notes = _value_notes(preprocessing, dtype)
    if preprocessing.layout is None and layout == "NHWC":
        notes += (f"layout NHWC was read off the model's input shape {show_shape(input_shape)}",)
    order = _order(raw, dtype, plan, input_shape)
    if not order:
        if input_shape is not None and math.prod(raw) != math.prod(input_shape):
            raise _misfit(raw, input_shape)
        final = raw if input_shape is None else input_shape
        if final != raw:
            notes += (f"samples of shape {show_shape(raw)} were reshaped to {show_shape(final)}",)
        _check_channels(plan, final[0 if layout == "NCHW" else -1] if final else 1)
        return Arrangement("", plan, final, notes)
    height, width, channels = sides(raw, order)
    height, width = resized(height, width, plan)
    _check_channels(plan, channels)
    natural = (channels, height, width) if layout == "NCHW" else (height, width, channels)
    final = natural if input_shape is None else input_shape
    if final != natural:
        _check_reshape(natural, channels, final, plan)
        shown = layout[1:].replace("", " ").split()
        notes += (
            f"images of shape {show_shape(natural)} ({' '.join(shown)}) were reshaped to the model's input "
            f"{show_shape(final)}",
        )
    return Arrangement(order, plan, final, notes)


def prepare(preprocessing: Preprocessing, images: NDArray[Any], input_shape: tuple[int, ...] | None = None) -> Tensor:
    """Raw images as a model's input, float32 of shape (N, *sample) in the model's layout.

    Args:
        images: (N, H, W, C), (N, C, H, W), (N, H, W) or (N, features), of any integer or float type.
        input_shape: shape of one sample of the model's input; without it the layout is guessed from `images`.

    Raises:
        DataError, OptionError: as `arrange` does.
    """
    return arrange(images.shape[1:], images.dtype, preprocessing, input_shape).run(images)


def resized(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width after resize and crop.

    Raises:
        DataError: the crop is larger than the image.
    """
    if preprocessing.resize is not None:
        height, width = _target(height, width, preprocessing.resize)
    if preprocessing.crop is not None:
        crop_height, crop_width = _pair(preprocessing.crop)
        if crop_height > height or crop_width > width:
            raise DataError(
                f"a crop of {crop_height}x{crop_width} does not fit in an image of {height}x{width}",
                hint=f"add --resize {max(crop_height, crop_width)}, or choose a smaller --crop",
            )
        height, width = crop_height, crop_width
    return height, width


def resize_crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Bilinear, antialiased resize and centre crop of one image."""
    if preprocessing.resize is not None:
        height, width = _target(image.height, image.width, preprocessing.resize)
        if (height, width) != (image.height, image.width):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
    if preprocessing.crop is not None:
        height, width = resized(image.height, image.width, preprocessing)
        if (height, width) != (image.height, image.width):
            top, left = round((image.height - height) / 2), round((image.width - width) / 2)
            image = image.crop((left, top, left + width, top + height))
    return image


def show_shape(shape: tuple[int, ...] | None) -> str:
    """(3, 32, 32) as 3x32x32."""
    return "x".join(str(side) for side in shape) if shape else "()"


def layout_of(input_shape: tuple[int, ...] | None) -> str:
    """NHWC where the shape can only mean that, otherwise NCHW."""
    if input_shape is None or len(input_shape) != 3:
        return "NCHW"
    last_is_colour = input_shape[2] in _IMAGE_CHANNELS and input_shape[0] not in _IMAGE_CHANNELS
    # 1x784x1 and the like stay NCHW; only an image with a real height and width tells its layout.
    return "NHWC" if last_is_colour and input_shape[1] not in _IMAGE_CHANNELS else "NCHW"


def sides(raw: tuple[int, ...], order: str) -> tuple[int, int, int]:
    """Height, width and channels of a sample whose axes are HW, HWC (or NHWC) or CHW (or NCHW)."""
    if order == "HW":
        return raw[0], raw[1], 1
    return (raw[0], raw[1], raw[2]) if order.endswith("HWC") else (raw[1], raw[2], raw[0])


def _order(raw: tuple[int, ...], dtype: np.dtype[Any], plan: Preprocessing, input_shape: tuple[int, ...] | None) -> str:
    if len(raw) == 2:
        return "" if raw == input_shape else "HW"
    if len(raw) != 3:
        return ""
    usual = "CHW" if plan.layout == "NCHW" and dtype != np.uint8 else "HWC"
    if input_shape is not None and len(input_shape) == 3:
        wanted = sides(input_shape, plan.layout or "NCHW")
        geometry = plan.resize is not None or plan.crop is not None
        fits = [
            order
            for order in ("HWC", "CHW")
            if (sides(raw, order)[2] == wanted[2] if geometry else sides(raw, order) == wanted)
        ]
        if fits:
            return usual if usual in fits else fits[0]
    first_is_colour, last_is_colour = raw[0] in _IMAGE_CHANNELS, raw[2] in _IMAGE_CHANNELS
    if first_is_colour != last_is_colour:
        return "CHW" if first_is_colour else "HWC"
    return usual


def _check_reshape(natural: tuple[int, ...], channels: int, final: tuple[int, ...], plan: Preprocessing) -> None:
    """A reshape is safe where it only flattens or unfolds a vector or a grey image."""
    wanted = 0
    if len(final) == 3:
        wanted = final[0] if plan.layout == "NCHW" else final[2]
    same_size = math.prod(natural) == math.prod(final)
    flat = sum(side > 1 for side in final) <= 1
    if same_size and (channels == 1 or flat):
        return
    if wanted and channels != wanted and {channels, wanted} <= set(_IMAGE_CHANNELS):
        hint = "use a model for such images, or convert the images first"
        if (channels, wanted) == (1, 3):
            hint = "store the images with three equal channels (numpy.repeat), or use a model for grey images"
        if (channels, wanted) == (3, 1):
            hint = "convert the images to grey first, or use a model for colour images"
        raise DataError(
            f"the images have {channels} channel(s), the model's input {show_shape(final)} has {wanted}", hint=hint
        )
    raise _misfit(natural, final, plan)


def _misfit(raw: tuple[int, ...], final: tuple[int, ...], plan: Preprocessing | None = None) -> DataError:
    hint = "check that the data belong to this model"
    if len(raw) == len(final) + 1 > 2 and math.prod(raw[1:]) == math.prod(final):
        hint = f"if the first of their axes is time ({raw[0]} frames), sum or average over it: x.sum(1)"
    if plan is not None and len(final) == 3:
        height, width, _ = sides(final, plan.layout or "NCHW")
        hint = (
            f"check that the data belong to this model and that their layout is {plan.layout} (--layout); a conversion "
            f"makes them fit with --resize {height}x{width}"
        )
    return DataError(f"images of shape {show_shape(raw)} do not fit the model's input {show_shape(final)}", hint=hint)


def _check_channels(plan: Preprocessing, channels: int) -> None:
    for name in ("mean", "std"):
        given = len(getattr(plan, name))
        if given not in (1, channels):
            raise OptionError(
                f"{name} has {given} values, the images have {channels} channel(s)",
                hint=f"give --{name} one value, or one per channel; check --layout (now {plan.layout})",
            )
    if plan.channels == "BGR" and channels != 3:
        raise OptionError(
            f"channels BGR needs images of 3 channels; these have {channels}", hint="leave out --channels BGR"
        )


def _value_notes(asked: Preprocessing, dtype: np.dtype[Any]) -> tuple[str, ...]:
    if asked.scale is not None:
        return ()
    if dtype == np.uint8:
        return ("uint8 images were divided by 255 (no scale was given)",)
    if dtype.kind in "iu":
        return (f"{dtype} images were used as they are, not divided by 255 (no scale was given)",)
    return ()


def _pair(size: Size) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _target(height: int, width: int, size: Size) -> tuple[int, int]:
    if isinstance(size, tuple):
        return size
    if height <= width:
        return size, max(1, int(size * width / height))
    return max(1, int(size * height / width)), size


def _resize_crop_arrays(images: NDArray[Any], plan: Preprocessing) -> NDArray[Any]:
    """(N, H, W, C) resized and cropped channel by channel."""
    if plan.resize is None and plan.crop is None:
        return images
    height, width = resized(images.shape[1], images.shape[2], plan)
    dtype = images.dtype if images.dtype == np.uint8 else np.dtype(np.float32)
    out = np.empty((len(images), height, width, images.shape[3]), dtype)
    for index, image in enumerate(images):
        for channel in range(images.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(image[..., channel], dtype))
            out[index, ..., channel] = np.asarray(resize_crop(plane, plan))
    return out


def normalised(images: NDArray[Any], plan: Preprocessing) -> NDArray[np.float32]:
    """(x / scale - mean) / std for images already in the model's layout, channels still in RGB order."""
    axis = 1 if plan.layout == "NCHW" else images.ndim - 1
    if plan.channels == "BGR":
        images = np.flip(images, axis)
    if images.dtype == np.uint8:
        # All 256 values once: exact, and much faster than arithmetic on every pixel.
        table = _formula(np.arange(256, dtype=np.float64)[:, None], plan)
        if table.shape[1] == 1:
            same: NDArray[np.float32] = table[images, 0]
            return same
        out = np.empty(images.shape, np.float32)
        source, target = np.moveaxis(images, axis, 0), np.moveaxis(out, axis, 0)
        for channel in range(table.shape[1]):
            target[channel] = table[source[channel], channel]
        return out
    return np.moveaxis(_formula(np.moveaxis(images, axis, -1).astype(np.float64), plan), -1, axis)


def _formula(values: NDArray[np.float64], plan: Preprocessing) -> NDArray[np.float32]:
    scale = 1.0 if plan.scale is None else plan.scale
    result: NDArray[np.float32] = ((values / scale - np.array(plan.mean)) / np.array(plan.std)).astype(np.float32)
    return result
