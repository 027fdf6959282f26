"""The doors: which files are mutated, how, and the command line that reads them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fuzz_mutations import (
    NAMES,
    NUMBERS,
    Mutation,
    of_array,
    of_bytes,
    of_json,
    of_onnx,
    of_picture,
    of_safetensors,
    of_text,
    of_zip,
)

_QUICK = ["-T", "2", "--calibration", "percentile", "--calibration-samples", "4", "--limit", "4", "--quiet"]
Command = Callable[[Path, Path, Random], list[str]]


@dataclass(frozen=True)
class Door:
    """A way into the program.

    Attributes:
        seeds: the files or folders that are mutated, each with how.
        command: the arguments, given the mutated file, the folder of good files, and chance.
        share: how many of 10,000 mutations go here.
    """

    seeds: dict[str, Mutation]
    command: Command
    share: int


def _onnx(file: Path, good: Path, rng: Random) -> list[str]:
    if rng.random() < 0.7:
        return ["check", str(file)]
    return ["convert", str(file), "--data", str(good / "data.npz"), *_QUICK, "-o", "out.snn"]


def _weights(file: Path, good: Path, rng: Random) -> list[str]:
    del rng
    return ["check", str(file), "--arch", f"{good / 'arch.py'}:net", "--input-shape", "1,8,8"]


def _check(file: Path, good: Path, rng: Random) -> list[str]:
    del good, rng
    return ["check", str(file)]


def _checkpoint(file: Path, good: Path, rng: Random) -> list[str]:
    kind = rng.randrange(4)
    if kind == 0:
        return ["info", str(file)]
    if kind == 1:
        return ["run", str(file), "--data", str(good / "data.npz"), "--limit", "4", "-T", rng.choice(("2", "6", "8"))]
    return ["run", str(file), "--data", str(good / "data.npz"), "--limit", "4"]


def _data(file: Path, good: Path, rng: Random) -> list[str]:
    if rng.random() < 0.8:
        return ["run", str(good / "model.snn"), "--data", str(file)]
    model, data = str(good / "net.onnx"), rng.choice(("--data", "--calibration-data"))
    return ["convert", model, data, str(file), *_QUICK, "-o", "out.snn"]


def _several(file: Path, good: Path, rng: Random) -> list[str]:
    chance = rng.random()
    if file.suffix == ".npz":
        labels = ["--label-key", "t"] if chance < 0.3 else []
        return ["run", str(good / "two.snn"), "--data", str(file), *labels]
    if chance < 0.7:
        return ["check", str(file)]
    return ["convert", str(file), "--data", str(good / "two.npz"), *_QUICK, "-o", "out.snn"]


def _report(file: Path, good: Path, rng: Random) -> list[str]:
    kind = rng.randrange(4)
    if kind == 0:
        return ["report", str(file), "--report", "again.html", "--quiet"]
    if kind == 1:
        return ["report", str(file), str(good / "model.json"), "--report", "both.html", "--quiet"]
    asked = rng.choice((["--max-drop", "1"], ["--fail-if", "spikes > 3"], ["--min-agreement", "3", "--at", "4"]))
    beside = [] if kind == 2 else ["--baseline", str(good / "model.json")]
    return ["gate", str(file), *asked, *beside, "--junit", "junit.xml", "--summary", "summary.md"]


def _manifest(file: Path, good: Path, rng: Random) -> list[str]:
    for name in ("net.onnx", "folded.onnx", "data.npz"):
        shutil.copyfile(good / name, file.parent / name)
    return ["zoo", rng.choice(("check", "list")), str(file)]


def _zoo_run(file: Path, good: Path, rng: Random) -> list[str]:
    return ["zoo", "run", *_manifest(file, good, rng)[2:], "--out", "out", "--jobs", "1", "--quiet"]


def _condition(file: Path, good: Path, rng: Random) -> list[str]:
    text = file.read_bytes().decode("utf-8", "surrogateescape").replace("\0", "")
    lines = text.split("\n")
    return ["gate", str(good / "model.json"), "--fail-if", rng.choice(lines)[:100_000]]


def _constants(file: Path, good: Path, rng: Random) -> list[str]:
    if rng.random() < 0.7:
        return ["run", str(good / "model.snn"), "--data", str(good / "data.npz"), "--energy-constants", str(file)]
    return ["convert", str(good / "net.onnx"), *_QUICK, "--energy-constants", str(file), "-o", "out.snn"]


def _chip(file: Path, good: Path, rng: Random) -> list[str]:
    del rng
    data = ["--data", str(good / "data.npz"), "--limit", "4"]
    return ["report", str(good / "model.snn"), *data, "--target", str(file), "--report", "chip.html", "--quiet"]


def _preprocessing(file: Path, good: Path, rng: Random) -> list[str]:
    del rng
    data = ["--data", str(good / "data.npz")]
    return ["convert", str(good / "net.onnx"), *data, *_QUICK, "--preprocessing", str(file), "-o", "out.snn"]


def _options(file: Path, good: Path, rng: Random) -> list[str]:
    del file
    names = ("--mean", "--std", "--scale", "--resize", "--crop", "--input-shape", "--output-name", "-T", "--levels",
             "--percentile", "--early-exit", "--limit", "--seed", "--wait", "--read-from", "--label-offset", "--arch",
             "--data", "--batch-size", "--frontier")  # fmt: skip
    value = rng.choice((*NUMBERS, *NAMES, "1,2", "3x3", "0x0", "99999999x99999999", "1,,2"))
    value = value.replace("\0", "").replace("\ud800", "\udcff")
    small = _QUICK if rng.random() < 0.5 else ["--calibration", "percentile", "--quiet"]
    name = rng.choice(names)
    if name in ("-T", "--frontier") and value == "65536":
        value = "65537"  # as many steps as can be asked for are no fault if they take long; one more is refused
    return ["convert", str(good / "net.onnx"), *small, "-o", "out.snn", name, value]


DOORS = {
    "onnx": Door(dict.fromkeys(("net.onnx", "folded.onnx", "quantised.onnx"), of_onnx), _onnx, 2000),
    "external data": Door({"apart.onnx": of_onnx}, _check, 300),
    "weights": Door(
        {"weights.pt": of_zip, "legacy.pth": of_bytes, "weights.safetensors": of_safetensors}, _weights, 1200
    ),
    "exported programs": Door({"dynamic.pt2": of_zip, "fixed.pt2": of_zip}, _check, 1500),
    "checkpoints": Door({"model.snn": of_safetensors, "windows.snn": of_safetensors}, _checkpoint, 1300),
    "arrays": Door(
        {"data.npz": of_zip, "floats.npz": of_zip, "data.npy": of_array, "t10k-images-idx3-ubyte.gz": of_bytes},
        _data,
        1000,
    ),
    "folders": Door({"classes": of_picture, "listed": of_picture}, _data, 500),
    "tables": Door({"table.csv": of_text}, _data, 300),
    "several inputs": Door({"two.onnx": of_onnx, "two.npz": of_zip}, _several, 300),
    "labels.csv": Door({"listed/labels.csv": of_text}, _data, 400),
    "reports": Door({"model.json": of_json, "windows.json": of_json}, _report, 1000),
    "manifests": Door({"zoo.toml": of_text}, _manifest, 600),
    "zoo run": Door({"zoo.toml": of_text, "net.onnx": of_onnx}, _zoo_run, 20),
    "conditions": Door({"conditions.txt": of_text}, _condition, 500),
    "energy": Door({"energy.toml": of_text}, _constants, 300),
    "chips": Door({"chip.toml": of_text}, _chip, 200),
    "preprocessing": Door({"preprocessing.toml": of_text}, _preprocessing, 200),
    "options": Door({"conditions.txt": of_bytes}, _options, 300),
}


def mutated(door: str, number: int, folder: Path, good: Path) -> list[str]:
    """Write mutation `number` of a door into `folder`, and give the command line for it."""
    rng = Random(f"{door} {number}")
    row = DOORS[door]
    name = rng.choice(list(row.seeds))
    change = row.seeds[name]
    source, target = good / name, folder / Path(name).name
    if door == "zoo run":
        target = folder / "zoo.toml"
        shutil.copyfile(good / "zoo.toml", target)
        command = row.command(target, good, rng)
        (folder / name).write_bytes(change(source.read_bytes(), rng))
        return command
    if door == "external data":
        shutil.copyfile(good / "apart.data", folder / "apart.data")
        if rng.random() < 0.3:
            (folder / "apart.data").write_bytes(of_bytes((good / "apart.data").read_bytes(), rng))
    if source.is_dir() or door == "labels.csv":
        whole = source if source.is_dir() else source.parent
        target = folder / whole.name
        shutil.copytree(whole, target)
        victim = target / source.name if source.is_file() else rng.choice(sorted(p for p in target.rglob("*.*g*")))
        victim.write_bytes(change(victim.read_bytes(), rng))
    else:
        target.write_bytes(change(source.read_bytes(), rng))
        if door == "arrays" and name.startswith("t10k"):
            labels = "t10k-labels-idx1-ubyte.gz"
            shutil.copyfile(good / labels, folder / labels)
    return row.command(target, good, rng)
