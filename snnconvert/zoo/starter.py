"""A first manifest for a folder of models, with what can be guessed guessed, and every guess said.

Data sets are told by their names (test, val: to measure on; train, calib: to calibrate on) and matched to models by the
shape of their images. Of the usual normalisations, the one is taken with which the network itself is most often right
on some labelled images, calibration images where there are any (see `convert.preprocessing_search`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snnconvert.convert.doors import open_model
from snnconvert.convert.preprocessing_search import Fit, find_preprocessing
from snnconvert.convert.weights import SUFFIXES
from snnconvert.data.bundled import PREFIX, data_path
from snnconvert.data.datasets import load_dataset
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import DataError, SnnConvertError
from snnconvert.graph.dialect import class_count
from snnconvert.graph.types import Ann
from snnconvert.report.statistics import near_chance
from snnconvert.zoo.manifest import safe_name

_SETS = ("data", "calibration_data")
_IMAGES = 200
_MEASURE, _CALIBRATE = ("test", "val", "eval"), ("train", "calib")


@dataclass(frozen=True)
class _Guess:
    lines: tuple[str, ...]
    remarks: tuple[str, ...]


def starter_manifest(folder: Path, base: Path, given: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The text of a manifest, with paths relative to `base`, and a line for everything guessed.

    Args:
        given: data, calibration_data, label_offset and preprocessing as fields of `Request`, as far as the user knows
            them: they become the defaults of all models, and nothing is guessed in their place.

    Raises:
        DataError: there are no models in the folder, or the data that are given cannot be read.
    """
    for name in _SETS:
        if name in given:
            load_dataset(data_path(given[name]), preprocessing=Preprocessing(), input_shape=None)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", hint="name the folder that holds the models")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder))
    models = [path for path in files if path.suffix.lower() in (".onnx", ".pt2")]
    weights = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not models and not weights:
        raise DataError(
            f"there are no models in {folder}", hint=f"it should hold .onnx, .pt2, or {', '.join(SUFFIXES)} files"
        )
    data = [*(path for path in files if path.suffix == ".npz"), *_image_folders(folder)]
    defaults = ["[defaults]", "timesteps = 32", *_given_lines(given, base)]
    chunks = ["# Written by `snnconvert zoo init`. Check what is marked as guessed.\n", "\n".join(defaults) + "\n"]
    remarks = []
    names: set[str] = set()
    for path in models:
        guess = _guess(path, data, base, given)
        remarks += [f"{path.name}: {remark}" for remark in guess.remarks]
        comments = [f"# {' '.join(remark.split())}" for remark in guess.remarks]
        rows = [*comments, "[[model]]", *_own_name(path, folder, names), f"source = {_quoted(_from(path, base))}"]
        rows += guess.lines
        chunks.append("\n".join(rows) + "\n")
    for path in weights:
        remarks.append(f"{path.name}: weights without architecture: left as a comment, add arch")
        rows = ["[[model]]", f"source = {_quoted(_from(path, base))}", 'arch = "FILE.py:FACTORY"']
        chunks.append("\n".join(f"# {row}" for row in rows) + "\n")
    if not models:
        remarks.append("no model can be used as it is: the manifest has comments only")
    return "\n".join(chunks), remarks


def _own_name(path: Path, folder: Path, taken: set[str]) -> tuple[str, ...]:
    """A line that names a model whose file name alone is that of an earlier one; `taken` grows by its name."""
    usual = safe_name(path.stem)
    name, count = usual, 1
    while name.casefold() in taken:
        name = safe_name(path.relative_to(folder).as_posix()) + (f"-{count}" if count > 1 else "")
        count += 1
    taken.add(name.casefold())
    return () if name == usual else (f"name = {_quoted(name)}",)


def _given_lines(given: Mapping[str, Any], base: Path) -> list[str]:
    """What the user knows, as lines of the defaults."""
    lines = [f"{name} = {_quoted(_named_set(given[name], base))}" for name in _SETS if name in given]
    lines += [f"label_offset = {given['label_offset']}"] if "label_offset" in given else []
    return lines + ([f"preprocessing = {_table(given['preprocessing'])}"] if "preprocessing" in given else [])


def _named_set(text: str, base: Path) -> str:
    """A data set as the manifest names it."""
    return text if text.startswith(PREFIX) else _from(Path(text), base)


def _misfits(ann: Ann, given: Mapping[str, Any]) -> Iterator[str]:
    """What is said of data that are given and do not fit a model."""
    plan = given.get("preprocessing", Preprocessing())
    for name in _SETS:
        if name in given:
            try:
                load_dataset(data_path(given[name]), preprocessing=plan, input_shape=ann.input_shape)
            except SnnConvertError as error:
                yield f"{name} does not fit it: {error.message}"


def _guess(path: Path, data: list[Path], base: Path, given: Mapping[str, Any]) -> _Guess:
    try:
        ann = open_model(str(path))
    except SnnConvertError as error:
        return _Guess((), (f"it cannot be opened: {error.message}",))
    fitting = [found for found in data if _fits(found, ann)]
    if misfits := tuple(_misfits(ann, given)):
        return _Guess((), misfits)
    known = {name: data_path(given[name]) for name in _SETS if name in given}
    measure = known.get("data") or _first(fitting, _MEASURE)
    measure = measure or next((found for found in fitting if not _named(found, _CALIBRATE)), None)
    if measure is None:
        return _Guess((), (f"no data set with images for its input {ann.input_shape} was found: add data",))
    calibrate = known.get("calibration_data") or _first([found for found in fitting if found != measure], _CALIBRATE)
    guessed = {"data": measure, "calibration_data": calibrate}
    lines, remarks = list[str](), list[str]()
    for name, found in guessed.items():
        if found is not None and name not in known:
            lines.append(f"{name} = {_quoted(_from(found, base))}")
            remarks.append(f"guessed: {name} {found.name}")
    if "preprocessing" in given:
        return _Guess(tuple(lines), tuple(remarks))
    offset, best = _preprocessing(ann, calibrate or measure, given.get("label_offset"))
    if best is None:
        remarks.append("preprocessing is not known: none of those tried makes the network right; add preprocessing")
        return _Guess(tuple(lines), tuple(remarks))
    if offset and "label_offset" not in given:
        lines.append(f"label_offset = {offset}")
        remarks.append(f"guessed: label_offset {offset}, for it has one output more than there are labels")
    lines.append(f"preprocessing = {_table(best.preprocessing)}")
    remarks.append(
        f"guessed: preprocessing {best.name}, with which it is right on {best.accuracy:.1f} % of {best.images} images"
    )
    return _Guess(tuple(lines), tuple(remarks))


def _preprocessing(ann: Ann, path: Path, offset: int | None) -> tuple[int, Fit | None]:
    """(label offset, the best normalisation, or None if the best is hardly better than guessing)."""
    labels = load_dataset(path, preprocessing=Preprocessing(), input_shape=ann.input_shape).labels
    if labels is None:
        return 0, None
    classes = class_count(ann.graph)
    offset = int(int(labels.max()) + 2 == classes and classes > 2) if offset is None else offset
    try:
        best = find_preprocessing(ann, str(path), label_offset=offset, images=_IMAGES)[0]
    except SnnConvertError:
        return 0, None  # labels that are no classes of the network
    return offset, None if near_chance(best.accuracy, classes) else best


def _fits(path: Path, ann: Ann) -> bool:
    try:
        load_dataset(path, preprocessing=Preprocessing(), input_shape=ann.input_shape)
    except SnnConvertError:
        return False
    return True


def _first(paths: Iterable[Path], words: tuple[str, ...]) -> Path | None:
    return next((path for path in paths if _named(path, words)), None)


def _named(path: Path, words: tuple[str, ...]) -> bool:
    return any(word in path.stem.lower() for word in words)


def _image_folders(folder: Path) -> list[Path]:
    """Folders with class folders of images, or with images and labels."""
    kinds = (".png", ".jpg", ".jpeg")
    found = []
    for path in sorted(part for part in folder.iterdir() if part.is_dir() and not part.name.startswith(".")):
        labelled = (path / "labels.csv").is_file() or path.with_name(path.name + "_labels.csv").is_file()
        classes = [part for part in path.iterdir() if part.is_dir()]
        if labelled or any(image.suffix.lower() in kinds for part in classes[:3] for image in part.iterdir()):
            found.append(path)
    return found


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _from(path: Path, base: Path) -> str:
    try:
        # Links keep their own names: they are what lies in the folder.
        return path.absolute().relative_to(base.absolute()).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def _quoted(text: str) -> str:
    # The escapes of JSON are among those of TOML.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _table(preprocessing: Preprocessing) -> str:
    """What differs from the defaults, as an inline table."""
    plain, default = replace(preprocessing).to_dict(), Preprocessing().to_dict()
    rows = [f"{key} = {_value(value)}" for key, value in plain.items() if value != default[key]]
    return "{ " + ", ".join(rows) + " }" if rows else "{}"


def _value(value: object) -> str:
    return _quoted(value) if isinstance(value, str) else str(value)
