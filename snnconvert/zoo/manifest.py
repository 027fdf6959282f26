"""`zoo.toml`: which models to convert, with what, and what they must meet.

    [defaults]                    # for every model
    timesteps = 32
    gates = { max_drop = 1.0 }
    export = ["onnx", { to = "torch", form = "pt2", verify = true }]
    finetune = { epochs = 2 }     # on the calibration data, or on data = "..."; gates judge what comes of it
    limits = { seconds = 1800, memory = "4 GiB" }

    [set.cifar10]                 # for the models that say  set = "cifar10"
    data = "${DATA}/cifar10_test.npz"
    preprocessing = { mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }

    [[model]]
    source = "resnet20.onnx"      # or https://..., zoo:NAME, torchvision:NAME, timm:NAME
    set = "cifar10"

    [[model]]
    glob = "others/*.onnx"        # one model per file

A model takes what it does not say from its set, and that from the defaults; of `gates` and `limits` key by key, while
`preprocessing` and `options` are taken whole. Paths are relative to the manifest, and stay so in the reports: workers
run in its folder, so a report does not depend on where that folder lies. `${NAME}` and `${NAME:-value}` stand for
environment variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import OptionError, did_you_mean
from snnconvert.exporters import from_manifest
from snnconvert.files import parsed_toml, read_text
from snnconvert.gates.limits import Gates
from snnconvert.graph.schedule import owners
from snnconvert.options import declared, read_table
from snnconvert.request import Request, check_request
from snnconvert.train.options import FineTuning, check_asked
from snnconvert.zoo.limits import Limits
from snnconvert.zoo.toml_lines import line_index, line_of

PREFIXES = ("zoo:", "torchvision:", "timm:")
URLS = ("https://", "http://", "file://")
_OWN = ("name", "source", "glob", "sha256", "set")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}")
# Options that mean something to one calibration method, neuron or schedule only.
_OF = {"calibration": ("options",), "neuron": ("levels", "budget", "spike_budget"), "schedule": tuple(owners())}
# Of a name; file systems allow 255 bytes, and suffixes are added.
_LONGEST = 200
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Entry:
    """One model of a manifest, everything inherited and resolved.

    Attributes:
        name: unique; names its folder in the output.
        source: path, URL, or name with a prefix.
        sha256: what the file must have, or None.
        options: fields of `Request` but `model`.
        where: "zoo.toml, line 12", for messages.
        exports: what is exported, each as fields of `exporters.Export`.
        finetune: fields of `train.options.FineTuning`; None where the network is not trained on.
    """

    name: str
    source: str
    sha256: str | None
    options: Mapping[str, Any]
    gates: Gates
    limits: Limits
    where: str
    exports: tuple[Mapping[str, Any], ...] = ()
    finetune: Mapping[str, Any] | None = None

    @property
    def is_url(self) -> bool:
        return self.source.startswith(URLS)


@dataclass(frozen=True)
class Manifest:
    """A read manifest: its path and its models, in the order of the file."""

    path: Path
    entries: tuple[Entry, ...]

    @property
    def folder(self) -> Path:
        """What relative paths in the manifest start from."""
        return self.path.parent

    def only(self, patterns: tuple[str, ...]) -> Manifest:
        """The models whose names match one of the shell patterns; all of them without patterns.

        Raises:
            OptionError: a pattern that matches nothing.
        """
        from fnmatch import fnmatchcase

        for pattern in patterns:
            if not any(fnmatchcase(entry.name, pattern) for entry in self.entries):
                names = ", ".join(entry.name for entry in self.entries[:30])
                raise OptionError(f"no model of {self.path} is called {pattern!r}", hint=f"there are {names}")
        if not patterns:
            return self
        kept = [entry for entry in self.entries if any(fnmatchcase(entry.name, pattern) for pattern in patterns)]
        return replace(self, entries=tuple(kept))

    def changed(self, changes: Mapping[str, Any]) -> Manifest:
        """Every model with these fields of `Request` instead of its own.

        What belongs to another calibration method, neuron or schedule than the one given is dropped (`_OF`).

        Raises:
            OptionError: a value that does not fit a model, which is named.
        """
        return replace(self, entries=tuple(_changed(entry, changes) for entry in self.entries)) if changes else self


def _changed(entry: Entry, changes: Mapping[str, Any]) -> Entry:
    options = {**entry.options, **changes}
    for name, dependent in _OF.items():
        if name in changes and changes[name] != entry.options.get(name, getattr(Request, name)):
            options = {key: value for key, value in options.items() if key not in dependent}
    try:
        check_request(Request(model=entry.source, **options))
    except OptionError as error:
        raise OptionError(f"{entry.name} ({entry.where}): {error.message}", hint=error.hint) from error
    return replace(entry, options=options)


def load_manifest(path: Path) -> Manifest:
    """Read and check a manifest; no model or data set is opened.

    Raises:
        OptionError: the file cannot be read, or a key or value is wrong; with its line and key.
    """
    try:
        text = read_text(path)
        content = parsed_toml(text)
    except OSError as error:
        raise OptionError(
            f"the manifest {path} cannot be read: {error.strerror}",
            hint="name the zoo.toml in it" if path.is_dir() else "write one: snnconvert zoo init FOLDER",
        ) from error
    except ValueError as error:
        raise OptionError(
            f"the manifest {path} is not valid TOML: {error}", hint="correct it; the text has to be UTF-8"
        ) from error
    return _Reader(path, content, line_index(text)).manifest()


@dataclass
class _Reader:
    path: Path
    content: dict[str, Any]
    lines: dict[tuple[str | int, ...], int]
    named: dict[str, str] = field(default_factory=dict)

    def refuse(self, where: tuple[str | int, ...], message: str, hint: str) -> NoReturn:
        line = line_of(self.lines, where)
        shown = _shown(where)
        raise OptionError(f"{self.path}, line {line}: {shown}{': ' if shown else ''}{message}", hint=hint)

    def manifest(self) -> Manifest:
        for key in self.content:
            if key not in ("defaults", "set", "model"):
                self.refuse((key,), "unknown table; allowed: [defaults], [set.NAME], [[model]]", "correct or remove it")
        defaults = self.table(("defaults",), self.content.get("defaults", {}))
        sets = {}
        for name, given in self.table_of(("set",)).items():
            sets[name] = _inherit(defaults, self.table(("set", name), given))
        models = self.content.get("model", [])
        if not isinstance(models, list):
            self.refuse(("model",), "not a list of tables", "write [[model]], with two brackets, above each model")
        if not models:
            self.refuse(("model",), "there are no models", 'write [[model]] and below it source = "FILE.onnx"')
        entries = tuple(entry for index, row in enumerate(models) for entry in self.model(index, row, defaults, sets))
        return Manifest(self.path, entries)

    def table_of(self, where: tuple[str, ...]) -> dict[str, Any]:
        found = self.content.get(where[0], {})
        if not isinstance(found, dict):
            self.refuse(where, "not a table", "write [set.NAME] on a line of its own")
        return found

    def table(self, where: tuple[str | int, ...], given: Any) -> dict[str, Any]:
        """The keys of a table, checked one by one, as a flat dict; nested tables are checked as a whole."""
        if not isinstance(given, dict):
            self.refuse(where, "not a table", "write it as [name] with key = value below")
        own = _OWN if where[0] == "model" else ()
        rows = {row.key: row for row in declared(Request).values() if row.option.manifest}
        allowed = (*own, *rows, *(key for key in _TABLES if key not in rows))
        former = {row.option.former: key for key, row in rows.items() if row.option.former}
        read: dict[str, Any] = {}
        for named, raw in given.items():
            key, here = former.get(named) or named, (*where, named)
            value = self.expanded(here, raw)
            if key not in allowed:
                hint = did_you_mean(key, allowed) or "correct or remove it"
                self.refuse(here, f"unknown key; allowed: {', '.join(allowed)}", hint)
            if key in own and (not isinstance(value, str) or not value):
                self.refuse(here, f"{value!r} is no text", f'write {key} = "..."')
            try:
                if key in _TABLES:
                    file = isinstance(value, str) and key == "preprocessing"
                    value = _TABLES[key](self.beside(value) if file else value)
                elif key in rows:
                    value = read_table(Request, {key: value}, "key")[rows[key].name]
            except OptionError as error:
                self.refuse((*here, *error.options) if key in _TABLES else here, error.message, error.hint)
            read[rows[key].name if key in rows else key] = value
        return read

    def expanded(self, where: tuple[str | int, ...], value: Any) -> Any:
        """`value` with environment variables put in, at any depth."""
        if isinstance(value, dict):
            return {key: self.expanded((*where, key), item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expanded(where, item) for item in value]
        if not isinstance(value, str):
            return value
        if "\0" in value:
            self.refuse(where, f"{value!r} has a character that no name may have", "remove \\u0000")

        def put(found: re.Match[str]) -> str:
            name, default = found.group(1), found.group(2)
            known = os.environ.get(name, default)
            if known is None:
                self.refuse(where, f"the environment variable {name} is not set", f"set it: export {name}=...")
            return known

        return _VARIABLE.sub(put, value)

    def beside(self, path: str) -> Path:
        return self.path.parent / path

    def model(
        self, index: int, row: Any, defaults: Mapping[str, Any], sets: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[Entry]:
        where = ("model", index)
        given = self.table(where, row)
        group = given.get("set")
        if group is not None and group not in sets:
            self.refuse((*where, "set"), f"there is no [set.{group}]", f"there are {', '.join(sets) or 'none'}")
        if ("source" in given) == ("glob" in given):
            self.refuse(where, "exactly one of source and glob is needed", 'write source = "FILE.onnx"')
        merged = _inherit(sets[group] if group is not None else defaults, given)
        for source, name in self.sources(where, merged):
            yield self.entry(where, merged, source, name)

    def culprit(self, where: tuple[str | int, ...], error: OptionError, group: str | None) -> tuple[str | int, ...]:
        """Where the first of the options stands that an error is about; `where` if none is in this file."""
        names = error.options
        for count, name in enumerate(names, start=1):
            for place in (where, ("set", group or ""), ("defaults",)):
                for found in ((*place, name, *names[count:]), (*place, name)):
                    if found in self.lines:
                        return found
        return where

    def sources(self, where: tuple[str | int, ...], given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """(source, name) of one table: one, or one per file of its glob."""
        if "glob" in given:
            if "name" in given or "sha256" in given:
                self.refuse(where, "name and sha256 belong to one file, not to a glob", "remove them")
            pattern = Path(given["glob"])
            root = Path(pattern.anchor) if pattern.is_absolute() else self.path.parent
            try:
                found = sorted(
                    path for path in root.glob(str(pattern.relative_to(pattern.anchor))) if not path.is_dir()
                )
            except (ValueError, NotImplementedError) as error:
                self.refuse((*where, "glob"), f"{given['glob']!r} is no pattern: {error}", "correct the pattern")
            if not found:
                self.refuse((*where, "glob"), f"no file matches {given['glob']}", "correct the pattern")
            for path in found:
                yield str(path if pattern.is_absolute() else path.relative_to(root)), safe_name(path.stem)
            return
        source = given["source"]
        if source.startswith(URLS[1]):
            self.refuse((*where, "source"), "http:// can be tampered with on its way", "use https://")
        if _SCHEME.match(source) and not source.startswith(URLS):
            self.refuse((*where, "source"), f"{source} cannot be downloaded", "use a URL with https:// or file://")
        name = given.get("name") or safe_name(Path(source.rsplit(":", maxsplit=1)[-1]).stem)
        yield source, name

    def entry(self, where: tuple[str | int, ...], given: Mapping[str, Any], source: str, name: str) -> Entry:
        at = f"{self.path.name}, line {line_of(self.lines, where)}"
        if safe_name(name) != name:
            self.refuse((*where, "name"), f"{name!r} is no file name", f"for instance name = {safe_name(name)!r}")
        if len(name) > _LONGEST:
            self.refuse(where, f"{name!r} is longer than {_LONGEST} characters", 'give it a shorter one: name = "..."')
        if name.casefold() in self.named:
            hint = 'give each a name: name = "..."'
            if "glob" in given:
                hint = 'list one of the two by itself, with source = "FILE" and name = "..."'
            self.refuse(where, f"{name!r} ({source}) is also the name of {self.named[name.casefold()]}", hint)
        self.named[name.casefold()] = f"{source} in {at}"
        sha256 = given.get("sha256")
        if sha256 is not None and not _SHA256.match(sha256):
            self.refuse((*where, "sha256"), f"{sha256!r} is no SHA-256", "give 64 hexadecimal digits, in lower case")
        if source.startswith(URLS) and sha256 is None:
            self.refuse((*where, "source"), "a download needs its sha256", 'add sha256 = "..." (sha256sum FILE)')
        options = {key: value for key, value in given.items() if key in declared(Request)}
        try:
            gates = Gates.from_dict(given.get("gates", {}))
            check_request(Request(model=source, **options))
            check_step(gates, options)
        except OptionError as error:
            self.refuse(self.culprit(where, error, given.get("set")), error.message, error.hint)
        exports = given.get("export", ())
        if any(one.get("verify") for one in exports) and not (options.get("data") or source.startswith("zoo:")):
            self.refuse((*where, "export"), "verify needs images", "give the model data")
        finetune = given.get("finetune")
        if finetune is not None:
            finetune = {"data": options.get("calibration_data"), **finetune}
            if finetune["data"] is None and not source.startswith("zoo:"):
                self.refuse((*where, "finetune"), "there is nothing to train on", "give it data, or calibration_data")
        return Entry(name, source, sha256, options, gates, Limits(**given.get("limits", {})), at, exports, finetune)


def check_step(gates: Gates, options: Mapping[str, Any]) -> None:
    """Gates can only judge at a step that there is.

    Raises:
        OptionError: they judge at a later one.
    """
    steps = options.get("timesteps", Request.timesteps)
    if gates.at is not None and gates.at > steps:
        raise OptionError(
            f"the gates judge at step {gates.at}, but there are only {steps} (--timesteps)",
            hint=f"choose at = {steps} or less, leave it out, or raise timesteps",
            options=("gates", "timesteps"),
        )


def _preprocessing(given: Any) -> Preprocessing:
    if isinstance(given, Path):
        return Preprocessing.from_toml(given)
    return Preprocessing.from_dict(given)


def _gates(given: Any) -> Mapping[str, Any]:
    """As it is, checked: gates are inherited key by key."""
    Gates.from_dict(given)
    return dict(given)


def _limits(given: Any) -> dict[str, Any]:
    return read_table(Limits, given, "limit")


def _finetune(given: Any) -> dict[str, Any]:
    read = read_table(FineTuning, given, "finetune")
    check_asked(FineTuning(**read))
    return read


_TABLES: dict[str, Callable[[Any], Any]] = {
    "preprocessing": _preprocessing,
    "gates": _gates,
    "limits": _limits,
    "export": from_manifest,
    "finetune": _finetune,
}


def _inherit(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**base, **own}
    for key in ("gates", "limits"):
        if key in base and key in own:
            merged[key] = {**base[key], **own[key]}
    return merged


def safe_name(name: str) -> str:
    """`name` as a file name without surprises."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._") or "model"


def _shown(where: tuple[str | int, ...]) -> str:
    return ".".join(f"{part}" for part in where if not isinstance(part, int))
