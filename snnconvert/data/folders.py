"""Folders of images: class folders, a table of labels, or images alone."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from snnconvert.data.arrange import layout_of, resized, sides
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.sources import MOST_LABEL, FileSource, Labels, RawData, check_pixels, numbers_of, open_image
from snnconvert.errors import DataError, listed
from snnconvert.files import is_regular, read_text

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# what the columns of a table of labels may be called, in this order
FILE_COLUMNS = ("file", "filename", "file_name", "image", "path", "name")
LABEL_COLUMNS = ("label", "class", "target", "category")
_SHOWN = 5
# numbers of classes that have no folder, over those that have: beyond it, numbers are mere names
_SPARSEST = 4
# of the label of a class
_DIGITS = 20
_WHOLE = re.compile(r"[-+]?\d+$", re.ASCII)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?$", re.ASCII)


@dataclass(frozen=True)
class Listing:
    """The image files of a folder in a fixed order, with what is known about them."""

    paths: list[Path]
    labels: Labels | None
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]


def read_folder(
    folder: Path, preprocessing: Preprocessing, input_shape: tuple[int, ...] | None
) -> tuple[RawData, Preprocessing]:
    """List a folder, look at the header of every image, and plan one size for all; decode nothing yet.

    Returns:
        the data, and `preprocessing` with the resize and crop that the source does.

    Raises:
        DataError: no images, an ambiguous folder, a bad table of labels, an unreadable image, or different sizes.
    """
    listing = _list(folder)
    headers = [open_image(path) for path in listing.paths]
    wanted = _wanted(preprocessing, input_shape)
    grey = all(mode in ("1", "L") for _, _, mode in headers)
    channels = wanted[2] if wanted is not None else (1 if grey else 3)
    notes = listing.notes
    if (channels == 1) != grey:
        notes += (f"images are read as {'grey' if channels == 1 else 'RGB'}",)
    geometry = preprocessing
    if wanted is not None and preprocessing.crop is None:
        geometry, added = _cover(preprocessing, [header[:2] for header in headers], wanted[:2])
        notes += added
    first = headers[0]
    size = resized(first[0], first[1], geometry)
    for path, (height, width, _) in zip(listing.paths, headers, strict=True):
        check_pixels(*resized(height, width, replace(geometry, crop=None)), path)
        if resized(height, width, geometry) != size:
            raise DataError(
                f"the images in {folder} have different sizes: {listing.paths[0].name} {first[0]}x{first[1]}, "
                f"{path.name} {height}x{width}",
                hint=f"bring them to one size with --resize {min(size)} --crop {min(size)}",
            )
    source = FileSource(listing.paths, channels, geometry, size)
    return RawData(source, listing.labels, listing.classes, notes), geometry


def _wanted(preprocessing: Preprocessing, input_shape: tuple[int, ...] | None) -> tuple[int, int, int] | None:
    """(height, width, channels) of the model's input, where it is an image."""
    if input_shape is None or len(input_shape) != 3:
        return None
    height, width, channels = sides(input_shape, preprocessing.layout or layout_of(input_shape))
    if channels not in (1, 3):
        return None
    # 1x784x1 and the like are vectors in disguise: keep the images' own size and let them be reshaped.
    return None if 1 in (height, width) else (height, width, channels)


def _cover(
    preprocessing: Preprocessing, sizes: list[tuple[int, int]], wanted: tuple[int, int]
) -> tuple[Preprocessing, tuple[str, ...]]:
    """The resize and crop that bring every image to `wanted`, and a note where that changes an image."""
    resize = preprocessing.resize if preprocessing.resize is not None else max(wanted)
    if preprocessing.resize is None and all(size == wanted for size in sizes):
        return preprocessing, ()
    plan = replace(preprocessing, resize=resize, crop=wanted)
    if all(resized(*size, replace(plan, crop=None)) == wanted for size in sizes) and preprocessing.resize is not None:
        return replace(plan, crop=None), ()
    how = f"to {resize} on the shorter side" if isinstance(resize, int) else f"to {resize[0]}x{resize[1]}"
    return plan, (
        f"images were resized {how} (bilinear) and centre-cropped to the model's input {wanted[0]}x{wanted[1]}",
    )


# --- what lies where ------------------------------------------------------------------------------


def _list(folder: Path) -> Listing:
    files = _images(folder)
    below = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    classes = [entry for entry in below if _images(entry) or _is_empty(entry)]
    classes = classes if any(_images(entry) for entry in classes) else []
    tables = [folder / "labels.csv", folder.parent / f"{folder.resolve().name}_labels.csv"]
    table = next((path for path in tables if path.exists()), None)
    if table is not None:
        return _from_table(folder, table)
    if files and classes:
        raise DataError(
            f"{folder} holds both images and class folders ({', '.join(entry.name for entry in classes[:_SHOWN])})",
            hint="keep one of the two, or add a labels.csv with the columns file and label",
        )
    if files:
        return Listing(files, None, None, (f"no labels: {folder.name} has neither class folders nor a labels.csv",))
    if classes:
        return _from_classes(classes)
    deeper = [entry.name for entry in below if any(_images(inner) for inner in entry.iterdir() if inner.is_dir())]
    hint = "give a folder of images, of class folders, or an .npz file"
    if deeper:
        hint = f"point at one of its folders: {', '.join(deeper[:_SHOWN])}"
    raise DataError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))})", hint=hint)


def _images(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and is_regular(entry)
    )


def _is_empty(folder: Path) -> bool:
    """Whether it is the folder of a class without images; `__MACOSX` and its like are no classes."""
    return not folder.name.startswith("__") and all(entry.name.startswith(".") for entry in folder.iterdir())


def _counts_down(one: str, other: str) -> bool:
    """Whether two names are alike but for numbers, and the first has the larger ones."""
    alike = re.sub(r"[0-9]+", "0", one) == re.sub(r"[0-9]+", "0", other)
    numbers = [[int(digits[:_DIGITS]) for digits in re.findall(r"[0-9]+", name)] for name in (one, other)]
    return alike and numbers[0] > numbers[1]


def _from_classes(folders: list[Path]) -> Listing:
    """Folders named by numbers are sorted by number; where 0 is among them, the numbers are those of the classes."""
    numbered = all(entry.name.isdecimal() and len(entry.name) <= _DIGITS for entry in folders)
    if numbered:
        folders = sorted(folders, key=lambda entry: (int(entry.name), entry.name))
    numbers = [int(entry.name) for entry in folders] if numbered else []
    names, places = tuple(entry.name for entry in folders), list(range(len(folders)))
    notes: tuple[str, ...] = (f"{len(names)} class folders, numbered in the order of their sorted names",)
    if numbers[:1] == [0] and len(set(numbers)) == len(numbers) and numbers[-1] < _SPARSEST * len(numbers):
        places, notes = numbers, (f"{len(names)} class folders, named by the numbers of their classes",)
        missing = sorted(set(range(numbers[-1])) - set(numbers))
        if missing:
            notes += (f"no folder for {listed([f'class {number}' for number in missing], _SHOWN)}",)
        named = dict(zip(numbers, names, strict=True))
        names = tuple(named.get(number, str(number)) for number in range(numbers[-1] + 1))
    elif numbered:
        notes += (f"class folder {names[0]!r} is class 0 in that order; use a labels.csv for another one",)
    else:
        early = next((f"{one!r} before {other!r}" for one, other in pairwise(names) if _counts_down(one, other)), "")
        if early:
            notes += (f"that order is by letters, {early}; use a labels.csv for that of the numbers",)
    paths: list[Path] = []
    labels: list[int] = []
    empty = []
    for label, entry in zip(places, folders, strict=True):
        found = _images(entry)
        paths += found
        labels += [label] * len(found)
        empty += [] if found else [entry.name]
    if empty:
        notes += (f"class folders without images: {listed(empty, _SHOWN)}",)
    return Listing(paths, np.array(labels, np.int64), names, notes)


def _from_table(folder: Path, table: Path) -> Listing:
    """Rows of (file, label); the label is a class number or another number or, throughout, a class name."""
    rows = _rows(table)
    seen: dict[str, str] = {}
    for number, name, label in rows:
        if seen.setdefault(name, label) != label:
            raise DataError(f"{table} line {number}: {name} has two labels", hint="keep one row per image")
    for name in seen:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"{table}: {name} is not inside {folder}", hint="name files relative to the folder")
    missing = [name for name in seen if not is_regular(folder / name)]
    if missing:
        raise DataError(
            f"{table} names {len(missing)} file(s) that {folder} does not hold",
            hint="correct the table, or add the files",
            causes=tuple(missing[:_SHOWN]),
        )
    names = sorted(seen)
    notes: tuple[str, ...] = (f"labels were read from {table.name}",)
    unlisted = len({path.name for path in _images(folder)} - {Path(name).name for name in names})
    if unlisted:
        notes += (f"{unlisted} image(s) without a row in {table.name} were left out",)
    values = [seen[name] for name in names]
    paths = [folder / name for name in names]
    if all(_is_number(value) for value in values):
        beyond = next((name for name in names if _WHOLE.match(seen[name]) and _too_large(seen[name])), None)
        if beyond is not None:
            raise DataError(
                f"{table}: the label of {beyond} is {seen[beyond][:40]}, which is no number of a class",
                hint=f"write a class number below {MOST_LABEL:,}",
            )
        return Listing(paths, numbers_of(np.array([float(value) for value in values]), str(table)), None, notes)
    classes = tuple(sorted(set(values)))
    number_of = {name: position for position, name in enumerate(classes)}
    notes += (f"{len(classes)} class names, numbered in their sorted order",)
    return Listing(paths, np.array([number_of[value] for value in values], np.int64), classes, notes)


def _rows(table: Path) -> list[tuple[int, str, str]]:
    try:
        rows_read = csv.reader(io.StringIO(read_text(table).removeprefix("\ufeff"), newline=""))
        lines = [(number, row) for number, row in enumerate(rows_read, 1) if any(row)]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{table} cannot be read: {error}", hint="write it as UTF-8 with columns file,label") from error
    if lines and len(lines[0][1]) >= 2 and not _is_number(lines[0][1][1]) and Path(lines[0][1][0]).suffix == "":
        head = tuple(cell.strip().lower() for cell in lines[0][1][:2])
        if head[0] not in FILE_COLUMNS or head[1] not in LABEL_COLUMNS:
            raise DataError(
                f"{table} line {lines[0][0]}: the columns are called {','.join(lines[0][1])}, not file,label",
                hint="the first column holds the file's name with its suffix, the second its label; head them "
                "file,label or leave the head out",
            )
        lines = lines[1:]
    rows = []
    for number, row in lines:
        if len(row) < 2 or not row[0].strip() or not row[1].strip():
            raise DataError(
                f"{table} line {number} is not file,label", hint="write one file name and one label per line"
            )
        rows.append((number, row[0].strip(), row[1].strip()))
    if not rows:
        raise DataError(f"{table} has no rows", hint="write one line file,label per image")
    return rows


def _is_number(text: str) -> bool:
    return _NUMBER.match(text) is not None


def _too_large(text: str) -> bool:
    return len(text) > _DIGITS or abs(int(text)) >= MOST_LABEL
