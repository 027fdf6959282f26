"""Folders of images, with class folders, with a table, and without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snnconvert.data.arrange import prepare
from snnconvert.data.datasets import Dataset, load_dataset
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import DataError

RAW = Preprocessing(scale=1.0)


def load(path: Path, shape: tuple[int, ...] | None = None, plan: Preprocessing = RAW) -> Dataset:
    return load_dataset(path, preprocessing=plan, input_shape=shape)


def picture(path: Path, value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> np.ndarray:
    """An image of noise around `value`; `size` is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if mode == "L" else (*size, 3)
    pixels = (np.random.default_rng(value).integers(0, 20, shape) + value).astype(np.uint8)
    Image.fromarray(pixels, mode).save(path)
    return pixels


def test_class_folders(tmp_path: Path) -> None:
    wanted = [
        picture(tmp_path / name / f"{index}.png", 40 * label + index)
        for label, name in enumerate(("bird", "cat", "dog"))
        for index in range(2)
    ]
    (tmp_path / ".cache").mkdir()
    (tmp_path / "empty").mkdir()
    dataset = load(tmp_path, (3, 8, 8))
    assert dataset.classes == ("bird", "cat", "dog", "empty")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(dataset.images().numpy().transpose(0, 2, 3, 1), np.stack(wanted))
    assert any("4 class folders" in note for note in dataset.notes)
    assert any("without images: empty" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("names", "labels", "said"),
    [
        (("0", "1", "2", "10"), [0, 1, 2, 10], "no folder for class 3, class 4"),
        (("00", "01", "03"), [0, 1, 3], "no folder for class 2"),
        ([str(number) for number in range(12)], list(range(12)), "12 class folders, named by the numbers"),
        (("1", "2", "10"), [0, 1, 2], "'1' is class 0"),
        (("0", "7000", "20000"), [0, 1, 2], "'0' is class 0"),
        (("class_1", "class_10", "class_2"), [0, 1, 2], "by letters, 'class_10' before 'class_2'"),
    ],
)
def test_numbered_class_folders(tmp_path: Path, names: list[str], labels: list[int], said: str) -> None:
    for name in names:
        picture(tmp_path / name / "a.png", 10)
    dataset = load(tmp_path)
    assert dataset.labels is not None
    assert dataset.labels.tolist() == labels
    assert dataset.classes is not None
    assert [dataset.classes[label] for label in labels] == list(names)
    assert any(said in note for note in dataset.notes)


def test_folders_that_are_no_classes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / name / "x.png", 10)
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "read.txt").write_text("x")
    assert load(tmp_path).classes == ("a", "b")


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("header", ["file,label\n", ""])
def test_table_of_labels(tmp_path: Path, inside: bool, header: str) -> None:
    folder = tmp_path / "photos"
    for index in range(3):
        picture(folder / f"{index}.png", index)
    table = folder / "labels.csv" if inside else tmp_path / "photos_labels.csv"
    table.write_text(header + "2.png,7\n0.png,900\n")
    dataset = load(folder, (3, 8, 8))
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [900, 7]
    assert dataset.classes is None
    assert any("1 image(s) without a row" in note for note in dataset.notes)
    table.write_text(header + "2.png,owl\n0.png,fox\n1.png,owl\n")
    named = load(folder)
    assert named.labels is not None
    assert (named.labels.tolist(), named.classes) == ([0, 1, 1], ("fox", "owl"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nabsent.png,1\n", r"names 1 file\(s\) that .* does not hold"),
        ("file,label\n0.png\n", "line 2 is not file,label"),
        ("file,label\n0.png,1\n0.png,2\n", "line 3: 0.png has two labels"),
        ("file,label\n../0.png,1\n", "is not inside"),
        ("", "has no rows"),
        ("\xff\xfe", "cannot be read"),
    ],
)
def test_broken_tables(tmp_path: Path, text: str, message: str) -> None:
    folder = tmp_path / "photos"
    picture(folder / "0.png", 0)
    picture(tmp_path / "0.png", 0)
    (folder / "labels.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        load(folder)


def test_images_alone_are_unlabelled(tmp_path: Path) -> None:
    picture(tmp_path / "b.png", 9)
    picture(tmp_path / "a.bmp", 5)
    (tmp_path / "readme.txt").write_text("no image")
    dataset = load(tmp_path)
    assert (len(dataset), dataset.labels) == (2, None)
    assert any("no labels" in note for note in dataset.notes)


def test_other_sizes_are_resized_to_the_model(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 100, (20, 40))
    picture(tmp_path / "b.png", 100, (16, 9))
    dataset = load(tmp_path, (3, 8, 8))
    assert dataset.images().shape == (2, 3, 8, 8)
    assert any("resized to 8 on the shorter side (bilinear) and centre-cropped" in note for note in dataset.notes)
    assert (dataset.preprocessing.resize, dataset.preprocessing.crop) == (8, (8, 8))
    # what was recorded does the same again when it is asked for
    assert load(tmp_path, (3, 8, 8), dataset.preprocessing).images().equal(dataset.images())
    wide = load(tmp_path, (3, 6, 8))
    assert wide.images().shape == (2, 3, 6, 8)


def test_crop_alone_does_not_resize(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "a.png", 100, (10, 10))
    found = load(tmp_path, (3, 8, 8), Preprocessing(scale=1.0, crop=8)).images().numpy()[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(found, pixels[1:9, 1:9])


def test_resize_and_crop_agree_with_arrays(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "a.png", 100, (30, 50))
    plan = Preprocessing(resize=12, crop=10)
    assert load(tmp_path, (3, 10, 10), plan).images().equal(prepare(plan, pixels[None], (3, 10, 10)))


def test_different_sizes_without_a_model(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1, (8, 8))
    picture(tmp_path / "b.png", 1, (8, 9))
    with pytest.raises(DataError, match=r"a.png 8x8, b.png 8x9") as caught:
        load(tmp_path)
    assert "--crop 8" in caught.value.hint


def test_grey_and_colour(tmp_path: Path) -> None:
    grey = picture(tmp_path / "grey" / "a.png", 50, mode="L")
    colour = picture(tmp_path / "colour" / "a.png", 50)
    as_grey, as_colour = load(tmp_path / "grey", (1, 8, 8)), load(tmp_path / "grey", (3, 8, 8))
    np.testing.assert_array_equal(as_grey.images().numpy()[0, 0], grey)
    np.testing.assert_array_equal(as_colour.images().numpy()[0], np.stack([grey] * 3))
    assert any("read as RGB" in note for note in as_colour.notes)
    converted = load(tmp_path / "colour", (1, 8, 8))
    assert any("read as grey" in note for note in converted.notes)
    assert np.abs(converted.images().numpy()[0, 0] - colour @ [0.299, 0.587, 0.114]).max() <= 1
    assert load(tmp_path / "grey", (64,)).images().shape == (1, 64)


def test_sixteen_bit_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png has more than 8 bits"):
        load(tmp_path)


def test_unreadable_images_are_named_before_any_work(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_text("<html>")
    with pytest.raises(DataError, match=r"b.png cannot be read: it is not an image"):
        load(tmp_path)
    picture(tmp_path / "b.png", 1)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:-40])
    with pytest.raises(DataError, match=r"b.png cannot be read"):
        load(tmp_path).images()


def test_truncated_jpeg_is_named_when_read(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", 1, (64, 64))
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-300])
    with pytest.raises(DataError, match=r"a.jpg cannot be read: .*truncated"):
        load(tmp_path).images()


def test_folders_without_a_clear_meaning(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        load(tmp_path)
    picture(tmp_path / "set" / "train" / "cat" / "a.png", 1)
    picture(tmp_path / "set" / "val" / "cat" / "a.png", 1)
    with pytest.raises(DataError, match="holds no images") as caught:
        load(tmp_path / "set")
    assert "train, val" in caught.value.hint
    picture(tmp_path / "set" / "train" / "stray.png", 1)
    with pytest.raises(DataError, match="both images and class folders"):
        load(tmp_path / "set" / "train")


def test_files_are_read_only_when_asked_for(tmp_path: Path) -> None:
    for index in range(6):
        picture(tmp_path / f"{index}.png", index)
    dataset = load(tmp_path)
    (tmp_path / "5.png").unlink()
    batches = dataset.batches(2)
    assert len(next(batches)[0]) == 2
    assert len(next(batches)[0]) == 2
    with pytest.raises(DataError, match=r"5.png cannot be read"):
        next(batches)
