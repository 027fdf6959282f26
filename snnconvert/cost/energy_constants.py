"""The constants that energies are made of: those of `energy.toml`, and a user's own in their place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from snnconvert.errors import OptionError
from snnconvert.files import parsed_toml, read_toml

OPTION = "--energy-constants"
_HINT = (
    'write a table for each: [[constant]] with name, value, unit and source, for instance name = "int32_add", '
    'value = 0.05, unit = "pJ", source = "data sheet of my chip, table 4"'
)


@dataclass(frozen=True)
class Constants:
    """A complete set of constants.

    Attributes:
        name: what the set is called.
        values, sets: each constant's value, and the name of the set that it comes from.
        rows: what the set brings of its own, as tables of name, set, value, unit, source and provenance.
    """

    name: str
    values: Mapping[str, float]
    sets: Mapping[str, str]
    rows: tuple[Mapping[str, Any], ...]


@cache
def _bundled() -> dict[str, Any]:
    text = resources.files("snnconvert.cost").joinpath("energy.toml").read_text("utf-8")
    return parsed_toml(text)


def break_even_points() -> list[dict[str, Any]]:
    """Published spikes per synapse below which an SNN is expected to win, each with its source."""
    found: list[dict[str, Any]] = _bundled()["break_even"]
    return found


def default_constants() -> Constants:
    """45 nm, and 22 nm for the network on chip."""
    rows = _bundled()["constant"]
    return complete("45 nm", rows, rows)


def complete(name: str, every: Sequence[Mapping[str, Any]], brought: Sequence[Mapping[str, Any]]) -> Constants:
    """A set made of the rows `every`, of which it brings those of `brought`."""
    values = {row["name"]: float(row["value"]) for row in every}
    return Constants(name, values, {row["name"]: row["set"] for row in every}, tuple(brought))


def load_constants(path: str | Path) -> Constants:
    """A user's own constants; what the file leaves out stays as it is by default.

    Raises:
        OptionError: the file cannot be read, or a row has an unknown name, another unit, no source, or an impossible
            value.
    """
    where = f"{OPTION} {path}"
    given = tables_of(path, where)
    rows = given.pop("constant", None)
    called = given.pop("name", Path(path).stem)
    if given:
        raise OptionError(f"{where}: unknown key {sorted(given)[0]!r}; allowed: name, constant", hint=_HINT)
    return overridden(default_constants(), rows, called, where)


def tables_of(path: str | Path, where: str) -> dict[str, Any]:
    """The tables of a TOML file.

    Args:
        where: what messages call it.

    Raises:
        OptionError: it cannot be read.
    """
    try:
        return read_toml(path)
    except (OSError, ValueError) as error:
        raise OptionError(f"{where} cannot be read: {error}", hint=_HINT) from error


def overridden(base: Constants, rows: Any, called: Any, where: str) -> Constants:
    """`base` with the constants of `rows` in the place of its own; its rows are then those alone.

    Raises:
        OptionError: see `load_constants`.
    """
    if not isinstance(called, str) or not isinstance(rows, list) or not rows:
        raise OptionError(f"{where} holds no [[constant]], or its name is no text", hint=_HINT)
    known = {row["name"]: row for row in base.rows}
    own: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        _check(row, known, where)
        if row["name"] in own:
            raise OptionError(f"{where}: {row['name']} is given twice", hint="keep one of the two")
        own[row["name"]] = {"provenance": "the user's own", **row, "value": float(row["value"]), "set": called}
    return complete(called, [own.get(name, row) for name, row in known.items()], list(own.values()))


def _check(row: Any, known: Mapping[str, Mapping[str, Any]], where: str) -> None:
    if not isinstance(row, dict):
        raise OptionError(f"{where}: constant is no table", hint=_HINT)
    name = str(row.get("name"))
    if name not in known:
        raise OptionError(f"{where}: the constant {name!r} is not known; allowed: {', '.join(known)}", hint=_HINT)
    keys = ("name", "value", "unit", "source", "provenance")
    if unknown := sorted(set(row) - set(keys)):
        raise OptionError(f"{where}: {name} has the unknown key {unknown[0]!r}; allowed: {', '.join(keys)}", hint=_HINT)
    value, unit = row.get("value"), known[name]["unit"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise OptionError(
            f"{where}: {name} = {value!r} is not possible; allowed: a number from 0, in {unit}", hint=_HINT
        )
    if row.get("unit") != unit:
        raise OptionError(f"{where}: {name} has the unit {row.get('unit')!r}; allowed: {unit!r}", hint=_HINT)
    source = row.get("source")
    if not isinstance(source, str) or not source.strip():
        raise OptionError(f"{where}: {name} has no source", hint='say where it comes from: source = "..."')
