"""Values, order, layout and size of prepared images; options and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from snnconvert.data.arrange import prepare
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import DataError, OptionError

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)


def test_the_formula_in_the_models_channel_order() -> None:
    plan = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0), scale=255.0, channels="BGR")
    found = prepare(plan, COLOUR).numpy()
    swapped = COLOUR[..., ::-1].transpose(0, 3, 1, 2).astype(np.float64)
    wanted = (swapped / 255 - np.array([0.1, 0.2, 0.3])[:, None, None]) / np.array([0.5, 1, 2])[:, None, None]
    assert found.dtype == np.float32
    assert found.shape == (5, 3, 6, 4)
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
def test_all_types_give_the_same_values(dtype: type) -> None:
    plan = Preprocessing(mean=(0.4,), std=(0.2, 0.3, 0.7), scale=17.0)
    shape = (3, 6, 4)
    assert torch.equal(prepare(plan, COLOUR.astype(dtype), shape), prepare(plan, COLOUR, shape))


def test_batch_size_does_not_change_a_value() -> None:
    plan = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize=5, crop=3)
    images = COLOUR.astype(np.float32) / 7
    whole = prepare(plan, images, (3, 3, 3))
    parts = [prepare(plan, images[index : index + 1], (3, 3, 3)) for index in range(len(images))]
    assert torch.equal(whole, torch.cat(parts))


def test_default_scale_depends_on_the_type() -> None:
    assert prepare(Preprocessing(), COLOUR).max() <= 1.0
    assert prepare(Preprocessing(scale=1.0), COLOUR).max() == COLOUR.max()
    assert prepare(Preprocessing(), COLOUR.astype(np.float32), (3, 6, 4)).max() == COLOUR.max()


def test_layouts() -> None:
    plan = Preprocessing(scale=1.0)
    channels_first = np.ascontiguousarray(COLOUR.transpose(0, 3, 1, 2))
    assert torch.equal(prepare(plan, channels_first, (3, 6, 4)), prepare(plan, COLOUR, (3, 6, 4)))
    nhwc = Preprocessing(scale=1.0, layout="NHWC")
    np.testing.assert_array_equal(prepare(nhwc, COLOUR).numpy(), COLOUR.astype(np.float32))
    np.testing.assert_array_equal(prepare(nhwc, channels_first, (6, 4, 3)).numpy(), COLOUR.astype(np.float32))
    # 32 x 32 x 3 can only be NHWC
    big = RANDOM.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(prepare(plan, big, (32, 32, 3)).numpy(), big.astype(np.float32))


def test_grey_and_features() -> None:
    grey = RANDOM.integers(0, 256, (4, 28, 28), dtype=np.uint8)
    plan = Preprocessing(scale=1.0)
    assert prepare(plan, grey).shape == (4, 1, 28, 28)
    for shape in ((1, 28, 28), (1, 784, 1), (784,), (28, 28)):
        prepared = prepare(plan, grey, shape)
        assert prepared.shape == (4, *shape)
        np.testing.assert_array_equal(prepared.flatten(1).numpy(), grey.reshape(4, -1).astype(np.float32))
    assert prepare(Preprocessing(layout="NHWC"), grey).shape == (4, 28, 28, 1)
    assert prepare(plan, RANDOM.normal(size=(4, 7))[:, :], (7,)).shape == (4, 7)


def test_colour_images_are_flattened_in_the_models_order() -> None:
    flat = prepare(Preprocessing(mean=(1.0, 2.0, 3.0), scale=1.0), COLOUR, (72,))
    wanted = COLOUR.astype(np.float32) - np.array([1, 2, 3], np.float32)
    np.testing.assert_array_equal(flat.numpy(), wanted.transpose(0, 3, 1, 2).reshape(5, 72))


def test_crop_takes_the_centre_and_resize_keeps_a_ramp() -> None:
    image = np.arange(100, dtype=np.uint8).reshape(1, 10, 10)
    cropped = prepare(Preprocessing(scale=1.0, crop=4), image).numpy()[0, 0]
    np.testing.assert_array_equal(cropped, image[0, 3:7, 3:7])
    tall = np.repeat(np.repeat(image, 2, 1), 4, 2)
    assert prepare(Preprocessing(resize=10), tall).shape == (1, 1, 10, 20)
    assert prepare(Preprocessing(resize=(12, 8)), tall).shape == (1, 1, 12, 8)
    halved = prepare(Preprocessing(resize=10, crop=10, scale=1.0), np.repeat(np.repeat(image, 2, 1), 2, 2)).numpy()
    assert np.abs(halved[0, 0] - image[0]).max() <= 3


@pytest.mark.parametrize(
    ("images", "shape", "message", "hint"),
    [
        (COLOUR[..., 0], (3, 6, 4), r"1 channel\(s\).*3x6x4 has 3", "numpy.repeat"),
        (COLOUR, (1, 6, 4), r"3 channel\(s\)", "grey"),
        (COLOUR, (3, 8, 8), "3x6x4 do not fit the model's input 3x8x8", "--resize 8x8"),
        (COLOUR, (5,), "do not fit", "check"),
        (COLOUR.reshape(5, -1), (3, 5, 5), "72 do not fit", "belong"),
        (COLOUR.astype(str), (3, 6, 4), "type <U3", "uint8"),
    ],
)
def test_images_that_do_not_fit(images: np.ndarray, shape: tuple[int, ...], message: str, hint: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepare(Preprocessing(), images, shape)
    assert hint in caught.value.hint


def test_crop_larger_than_the_image() -> None:
    with pytest.raises(DataError, match="crop of 9x9 does not fit in an image of 6x4") as caught:
        prepare(Preprocessing(crop=9), COLOUR)
    assert "--resize 9" in caught.value.hint


def test_channels_and_means_must_match_the_images() -> None:
    with pytest.raises(OptionError, match=r"mean has 2 values, the images have 3"):
        prepare(Preprocessing(mean=(0.1, 0.2)), COLOUR)
    with pytest.raises(OptionError, match="BGR needs images of 3 channels; these have 1"):
        prepare(Preprocessing(channels="BGR"), COLOUR[..., 0])


def test_means_in_units_of_255_need_a_scale() -> None:
    plan = Preprocessing(mean=(125.3, 123.0, 113.9), std=(63.0,))
    with pytest.raises(OptionError, match=r"mean 125.3 is above 1, but uint8 images are divided by 255") as caught:
        prepare(plan, COLOUR)
    assert "--scale 1" in caught.value.hint
    assert prepare(plan, COLOUR.astype(np.float32), (3, 6, 4)).abs().max() < 3


def test_options_read_the_usual_strings() -> None:
    texts = {"mean": "0.485,0.456, 0.406", "std": "0.2", "scale": "127.5", "layout": "nhwc", "channels": "bgr"}
    plan = Preprocessing.from_dict({**texts, "resize": "256", "crop": "224x200"})
    assert plan == Preprocessing((0.485, 0.456, 0.406), (0.2,), 127.5, "NHWC", "BGR", 256, (224, 200))
    assert Preprocessing.from_dict({}) == Preprocessing()
    assert Preprocessing.from_dict(plan.to_dict()) == plan
    assert Preprocessing.from_dict(Preprocessing().to_dict()) == Preprocessing()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("mean", "a,b"),
        ("mean", ""),
        ("mean", "nan"),
        ("std", "0"),
        ("std", "0.2,-1,0.2"),
        ("scale", "0"),
        ("scale", "1,2"),
        ("scale", "inf"),
        ("layout", "CHWN"),
        ("channels", "RGBA"),
        ("resize", "big"),
        ("resize", "0"),
        ("crop", "1x2x3"),
    ],
)
def test_refused_options_name_themselves(option: str, value: str) -> None:
    with pytest.raises(OptionError, match=f"^{option} is .*allowed: ") as caught:
        Preprocessing.from_dict({option: value})
    assert f"--{option}" in caught.value.hint


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('[preprocessing]\nmean = [0.5, 0.4, 0.3]\nscale = 255\nchannels = "BGR"\ncrop = [3, 4]\n')
    assert Preprocessing.from_toml(path) == Preprocessing((0.5, 0.4, 0.3), scale=255.0, channels="BGR", crop=(3, 4))
    path.write_text("average = 1\n")
    with pytest.raises(OptionError, match=r"unknown preprocessing key 'average'; allowed: mean, std"):
        Preprocessing.from_toml(path)
    path.write_text("mean = = 1\n")
    with pytest.raises(OptionError, match="not valid TOML"):
        Preprocessing.from_toml(path)
    path.write_text("preprocessing = 3\n")
    with pytest.raises(OptionError, match="is not a table"):
        Preprocessing.from_toml(path)
    with pytest.raises(OptionError, match="cannot be read"):
        Preprocessing.from_toml(tmp_path / "absent.toml")
