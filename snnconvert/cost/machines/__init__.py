"""Machines that a network's cost is modelled on: constants, each with its source, in one TOML file a machine.

A user's own file names the machine that it varies, and gives constants in the place of that machine's:

    machine = "h2learn"
    name = "with groups of eight"
    [[constant]]
    name = "group"
    value = 8
    unit = "bit"
    source = "a choice of mine"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from snnconvert.cost.energy_constants import Constants, complete, overridden, tables_of
from snnconvert.errors import OptionError, did_you_mean
from snnconvert.files import parsed_toml

REFERENCE = "v100"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Machine:
    """A machine of the model.

    Attributes:
        name: as `--machine` calls it, or as the user's file calls itself.
        kind: "processor", "look-up engines" or "event-driven"; see `snnconvert.cost.engines`.
        title: what it is.
        constants: all of its constants, in units of their rows.
        rows: the same with name, value, unit, source and provenance.
        published: figures that its paper states, to be held against the model's.
    """

    name: str
    kind: str
    title: str
    constants: Constants
    rows: tuple[Mapping[str, Any], ...]
    published: tuple[Mapping[str, Any], ...] = ()

    def __getitem__(self, name: str) -> float:
        """The value of a constant."""
        return self.constants.values[name]

    def with_values(self, **values: float) -> Machine:
        """The same machine with other constants, to see what depends on them."""
        rows = tuple(row if row["name"] not in values else {**row, "value": values[row["name"]]} for row in self.rows)
        return Machine(self.name, self.kind, self.title, complete(self.name, rows, rows), rows, self.published)


def names() -> list[str]:
    """The machines that come with the package."""
    files = resources.files("snnconvert.cost.machines").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_machine(name: str) -> Machine:
    """A machine by name, or the path of a user's own TOML file.

    Raises:
        OptionError: no such machine, or a file that cannot be read or holds what it must not.
    """
    if name in names():
        given = parsed_toml(resources.files("snnconvert.cost.machines").joinpath(f"{name}.toml").read_text("utf-8"))
        rows = tuple({"set": name, **row} for row in given["constant"])
        published = tuple(given.get("published", ()))
        return Machine(name, given["kind"], given["title"], complete(name, rows, rows), rows, published)
    if not name.endswith(".toml"):
        raise OptionError(
            f"--machine {name!r} is not known; allowed: {', '.join(names())}, or a TOML file",
            hint=did_you_mean(name, names()) or "a file of your own varies one of them: see `snnconvert cost --help`",
        )
    where = f"--machine {name}"
    given = tables_of(name, where)
    base_name = given.pop("machine", None)
    if base_name not in names():
        raise OptionError(
            f"{where}: machine = {base_name!r} is not known; allowed: {', '.join(names())}",
            hint='say which machine the file varies: machine = "h2learn"',
        )
    base = load_machine(base_name)
    rows = given.pop("constant", None)
    called = given.pop("name", Path(name).stem)
    if given:
        raise OptionError(
            f"{where}: unknown key {sorted(given)[0]!r}; allowed: machine, name, constant",
            hint="constants are tables: [[constant]]",
        )
    constants = overridden(base.constants, rows, called, where)
    own = {row["name"]: row for row in constants.rows}
    every = tuple(own.get(row["name"], row) for row in base.rows)
    return Machine(called, base.kind, base.title, constants, every, base.published)
