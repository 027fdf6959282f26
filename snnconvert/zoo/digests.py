"""What a result depends on, as one hash: model, data, options and code. Equal hashes mean equal results."""

from __future__ import annotations

import hashlib
import json
import platform
import stat
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import snnconvert
from snnconvert.files import sha256_of, write_atomically
from snnconvert.zoo.fetch import cached_path
from snnconvert.zoo.manifest import PREFIXES, Entry

# Fields of a request that say how to work, not what to compute.
WITHOUT_EFFECT = ("batch_size",)
_CODE = (".py", ".toml", ".json", ".html", ".c", ".cc", ".cpp", ".h", ".onnx", ".npz")
_LIBRARIES = ("torch", "numpy", "onnx", "onnxruntime", "safetensors", "altair", "vl-convert-python")


class Digests:
    """Hashes of files, remembered by size and time of change.

    Args:
        store: JSON file that keeps them between runs; a damaged one is ignored.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._known: dict[str, list[Any]] = {}
        self._used: dict[str, list[Any]] = {}
        try:
            content = json.loads(store.read_text("utf-8"))
            self._known = {path: row for path, row in content.items() if len(row) == 4}
        except (OSError, ValueError, AttributeError, TypeError):
            pass

    def save(self) -> None:
        """Keep what this run has used."""
        if self._used != self._known:
            write_atomically({self._store: json.dumps(self._used)})

    def file(self, path: Path) -> str:
        """SHA-256 of a file; "missing" where there is none, so that its appearance changes the hash.

        Devices and pipes count as missing: they may never end, and here no limit of time or memory applies.
        """
        path = path.resolve()
        try:
            state = path.stat()
            if not stat.S_ISREG(state.st_mode):
                return "missing"
            mark = [state.st_size, state.st_mtime_ns, state.st_ino]
            row = self._used.get(str(path)) or self._known.get(str(path))
            if row is None or row[:3] != mark:
                row = [*mark, sha256_of(path)]
        except OSError:
            return "missing"
        self._used[str(path)] = row
        return str(row[3])

    def tree(self, path: Path) -> str:
        """Hash of a file, or of every file below a folder with its relative path."""
        if not path.is_dir():
            return self.file(path)
        rows = [f"{part.relative_to(path)}\0{self.file(part)}" for part in sorted(path.rglob("*")) if part.is_file()]
        return _hash(rows)

    def data(self, path: Path) -> str:
        """Hash of a data set: the file or folder, and the labels beside a folder."""
        beside = path.with_name(path.name + "_labels.csv")
        return _hash([self.tree(path), self.file(beside) if beside.is_file() else ""])

    def model(self, path: Path) -> str:
        """Hash of a model file and, for ONNX, of the files that hold its tensors."""
        return _hash([self.file(path), *(self.file(part) for part in external_files(path))])


def key_of(entry: Entry, folder: Path, digests: Digests) -> str:
    """The hash that decides whether a finished result is still good."""
    options = {name: value for name, value in entry.options.items() if name not in WITHOUT_EFFECT}
    arch = options.get("arch") or ""
    data = [options.get(name) for name in ("data", "calibration_data", "energy_constants")]
    content = {
        "name": entry.name,
        "source": entry.source,
        "sha256": entry.sha256,
        "model": _source_digest(entry, folder, digests),
        "arch": _named_digest(arch, folder, digests),
        "data": [digests.data(folder / path) if path else None for path in data],
        "options": json.dumps(options, sort_keys=True, default=_plain),
        "code": code_digest(),
    }
    if entry.exports:
        content["exports"] = json.dumps([dict(one) for one in entry.exports], sort_keys=True, default=_plain)
    if entry.finetune is not None:
        sets = [entry.finetune.get(name) for name in ("data", "evaluation_data")]
        content["finetune"] = json.dumps(dict(entry.finetune), sort_keys=True)
        content["training data"] = [digests.data(folder / path) if path else None for path in sets]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _source_digest(entry: Entry, folder: Path, digests: Digests) -> str:
    if entry.is_url:
        assert entry.sha256 is not None
        return digests.model(cached_path(entry.source, entry.sha256))
    if entry.source.startswith(PREFIXES) or ".py:" in entry.source:
        return _named_digest(entry.source, folder, digests)
    return digests.model(folder / entry.source)


def _named_digest(name: str, folder: Path, digests: Digests) -> str:
    """Of FILE.py:FACTORY the file; of a library's model the library's version."""
    place = name.rpartition(":")[0]
    if place.endswith(".py"):
        return digests.file(folder / place)
    return _version(place) if place in ("torchvision", "timm") else ""


@cache
def code_digest() -> str:
    """Hash of this package's files and of the versions of the libraries that compute."""
    root = Path(snnconvert.__file__).parent
    files = sorted(path for path in root.rglob("*") if path.suffix in _CODE and "__pycache__" not in path.parts)
    rows = [f"{path.relative_to(root)}\0{sha256_of(path)}" for path in files if path.is_file()]
    rows += [f"{name}\0{_version(name)}" for name in _LIBRARIES]
    return _hash([*rows, platform.python_version(), platform.machine()])


def external_files(path: Path) -> list[Path]:
    """Files beside an ONNX model that hold its tensors."""
    if path.suffix.lower() != ".onnx" or not path.is_file() or b"location" not in path.read_bytes():
        return []
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError):
        return []
    names = {row.value for tensor in model.graph.initializer for row in tensor.external_data if row.key == "location"}
    return [path.parent / name for name in sorted(names)]


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "absent"


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else str(value)
