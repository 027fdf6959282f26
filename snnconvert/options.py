"""Options: all there is to know of one stands where its field is declared.

A field of a dataclass that is declared with `option` carries its help, range and choices. Command line, manifests,
checks, messages and the table in the docs read them from there: `declared` lists the options of a class.
"""

from __future__ import annotations

import functools
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from snnconvert.errors import OptionError, did_you_mean

T = TypeVar("T")
AUTO = "auto"
_SAID = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "a table"}
_PLACES = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Option:
    """What there is to know of an option besides its name, type and default.

    Attributes:
        help: one or two sentences.
        panel: heading it is listed under.
        commands: the commands that take it, for instance "convert", "zoo run".
        flag: its spelling on the command line, where that does not follow from the field's name.
        short: a second one, for instance "-T".
        former: the field's name of earlier versions, which command line and manifests still take.
        positional: whether it stands on the command line without a name.
        least, most: of a number, or of each number of a list; `above` is a least value that is itself excluded.
        choices: the allowed names, or a function that returns them.
        usual: what the default is called, where its value does not say.
        example: a value that is often right, for hints.
        first: the commands whose short help lists it.
        auto: the commands, or "manifest", that take the word auto: for None, or as one of the choices.
        manifest: whether a manifest may set it.
        metavar: what stands for the value in the help.
        read: makes the value from a text or from what a manifest says, instead of its type.
        inside: the options of a table that the command line spells one by one.
        gather: makes the table from their values by name.
    """

    help: str
    panel: str = ""
    commands: tuple[str, ...] = ()
    flag: str = ""
    short: str = ""
    former: str = ""
    positional: bool = False
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple[str, ...] | Callable[[], Iterable[str]] = ()
    usual: str | None = None
    example: str = ""
    first: tuple[str, ...] = ()
    auto: tuple[str, ...] = ()
    manifest: bool = True
    metavar: str = ""
    read: Callable[[Any], Any] | None = None
    inside: Callable[[], Mapping[str, Declared]] | None = None
    gather: Callable[[dict[str, Any]], Any] | None = None


class Usual(int):
    """A number that is used where nobody asks for one: equal to the same number that somebody asked for, but known."""


def option(default: Any, help: str, **facts: Any) -> Any:
    """A field of a dataclass that is an option; a default that is a class or function makes the default."""
    known = {"default_factory": default} if callable(default) else {} if default is MISSING else {"default": default}
    return field(**known, metadata={"option": Option(help, **facts)})


@dataclass(frozen=True)
class Declared:
    """An option with its field.

    Attributes:
        name: of the field.
        kind: its type, without None.
        optional: whether it may be None.
        default: its value where nothing is said; MISSING where something must be.
        option: what else is known.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    option: Option

    @property
    def key(self) -> str:
        """Its name in a manifest."""
        return self.name.rstrip("_")

    @property
    def flag(self) -> str:
        """Its long spelling on the command line."""
        return self.option.flag or f"--{self.key.replace('_', '-')}"

    @property
    def shown(self) -> str:
        """What a message calls it."""
        return self.flag if self.option.commands or self.option.flag else f"options.{self.key}"

    @property
    def item(self) -> Any:
        """Its type, or that of one item of a list."""
        return typing.get_args(self.kind)[0] if self.listed else self.kind

    @property
    def listed(self) -> bool:
        return typing.get_origin(self.kind) is tuple

    @property
    def repeated(self) -> bool:
        """Whether the command line may give it again and again."""
        return self.listed and self.item in (str, Path)

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed names."""
        known = self.option.choices
        return tuple(known() if callable(known) else known)

    def of(self, command: str) -> Declared:
        """The same as this command takes it: auto is no choice where that word is for other commands."""
        if AUTO not in self.choices or not self.option.auto or command in self.option.auto:
            return self
        return replace(
            self, option=replace(self.option, choices=tuple(one for one in self.choices if one.split(",")[0] != AUTO))
        )

    @property
    def explained(self) -> str:
        """The choices in words, where their table has some."""
        known = self.option.choices() if callable(self.option.choices) else self.option.choices
        rows = known.items() if isinstance(known, Mapping) else ()
        return "; ".join(f"`{name}`: {row.help}" for name, row in rows)

    @property
    def metavar(self) -> str:
        """What stands for its value in the help."""
        if self.option.metavar or self.kind is bool:
            return self.option.metavar
        if self.choices:
            return f"[{'|'.join(self.choices)}]"
        place = _PLACES.get(self.item, "TEXT")
        return f"{place},{place},..." if self.listed and self.item is int else place

    @property
    def usual(self) -> str:
        """Its default in words; "" where there is none."""
        if self.option.usual is not None:
            return self.option.usual
        if self.option.auto and self.default is None:
            return AUTO
        if self.default is MISSING or self.default is None or self.default is False or self.default == ():
            return ""
        return str(self.default).lower() if self.kind is bool else str(self.default)

    @property
    def wanted(self) -> str:
        """What values it takes, in words."""
        said = _SAID.get(typing.get_origin(self.item) or self.item, "a text")
        if self.listed:
            said = f"a list of {said.removeprefix('a ')}s"
        if self.choices:
            said = f"one of {', '.join(self.choices)}"
        one = self.option
        if one.above is not None:
            said += f" above {one.above:g}"
        elif one.least is not None:
            said += f" from {one.least:g}"
        if one.most is not None:
            said += f" to {one.most:.12g}" if one.least is not None else f", at most {one.most:.12g}"
        return said

    def refuse(self, value: Any, *, auto: bool = False) -> NoReturn:
        """Say that a value is none of those allowed; `auto` if that word is."""
        wanted = self.wanted + (", or auto" if auto else "")
        message = f"{self.shown} {value!r} is not {wanted}"
        if self.choices and isinstance(value, str):
            message = f"{self.shown} {value!r} is not known; there are {', '.join(self.choices)}"
        near = did_you_mean(value, self.choices) if isinstance(value, str) else ""
        example = self.option.example
        offered = self.option.usual is None and (not self.choices or self.usual in self.choices)
        if self.usual and self.option.commands and offered:
            example = example or f"{self.shown} {self.usual}"
        hint = near or f"give {self.shown} {wanted}" + (f", e.g. {example}" if example else "")
        raise OptionError(message, hint=hint, options=(self.name,))

    def value(self, given: Any) -> Any:
        """`given`, as the field takes it.

        Raises:
            OptionError: a value of another type, outside the range, or none of the choices.
        """
        import msgspec

        if (given is None and self.optional) or isinstance(given, Usual):
            return given
        if self.option.read is not None:
            return self.option.read(given)
        plain = given.item() if hasattr(given, "item") else os.fspath(given) if isinstance(given, Path) else given
        try:
            found = msgspec.convert(plain, self.kind)
        except msgspec.ValidationError:
            self.refuse(given)
        for one in found if self.listed else (found,):
            if not self._inside(one):
                self.refuse(one if self.choices else given)
        return found

    def _inside(self, value: Any) -> bool:
        one = self.option
        if self.choices:
            return value in self.choices
        return (
            (one.least is None or value >= one.least)
            and (one.above is None or value > one.above)
            and (one.most is None or value <= one.most)
        )

    def typed(self, text: Any, command: str) -> Any:
        """The value of what was typed: a text, a list of them for a repeated option, True for a switch.

        The word auto is None, or stays as it is for an option that cannot be None; so does what the option gathers.

        Raises:
            OptionError: as of `value`.
        """
        if text == AUTO and command in self.option.auto:
            return None if self.optional else AUTO
        if self.option.gather is not None:
            return text
        if self.item is Path:
            return tuple(map(Path, text)) if self.repeated else Path(text)
        if self.option.read is not None or self.kind is bool or self.repeated:
            return self.value(text)
        try:
            parts = [self.item(part) for part in (re.split("[,x]", text) if self.listed else (text,))]
        except ValueError:
            self.refuse(text, auto=command in self.option.auto)
        return self.value(parts if self.listed else parts[0])


def _declared(holder: Any) -> Mapping[str, Declared]:
    """The options of a dataclass by the names of their fields, in their order."""
    hints = typing.get_type_hints(holder)
    found = {}
    for one in fields(holder):
        if "option" not in one.metadata:
            continue
        kind, optional = hints[one.name], False
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
            kinds = [part for part in typing.get_args(kind) if part is not type(None)]
            kind, optional = kinds[0], len(kinds) < len(typing.get_args(kind))
        default = one.default if one.default_factory is MISSING else one.default_factory()
        found[one.name] = Declared(one.name, kind, optional, default, one.metadata["option"])
    return types.MappingProxyType(found)


declared: Callable[[Any], Mapping[str, Declared]] = functools.cache(_declared)


def check(holder: Any) -> None:
    """Refuse values of a dataclass's options that they do not take.

    Raises:
        OptionError: naming the option, its value and what is allowed.
    """
    for row in declared(type(holder)).values():
        value = getattr(holder, row.name)
        if isinstance(row.kind, type) and is_dataclass(row.kind):
            if not isinstance(value, row.kind):
                kind = row.kind.__name__
                raise OptionError(f"{row.key} {value!r} is no {kind}", hint=f"give {kind}(...)", options=(row.name,))
        elif row.option.read is None:
            row.value(value)


def read_table(holder: type, given: Any, called: str) -> dict[str, Any]:
    """A table of a manifest as values by field.

    Args:
        holder: the class that declares the options.
        given: keys and values.
        called: the table's name.

    Raises:
        OptionError: no table, an unknown key, or a value that its option does not take.
    """
    if not isinstance(given, Mapping):
        raise OptionError(f"{given!r} is no table", hint=f"write {called} = {{ name = value }}")
    rows = {row.key: row for row in declared(holder).values() if row.option.manifest}
    former = {row.option.former: row.key for row in rows.values() if row.option.former}
    read = {}
    for named, value in given.items():
        key = former.get(named) or named
        if key not in rows:
            raise unknown_key(key, tuple(rows), called)
        read[rows[key].name] = None if value == AUTO and "manifest" in rows[key].option.auto else rows[key].value(value)
    return read


def unknown_key(key: str, known: tuple[str, ...], called: str) -> OptionError:
    """That a table has no such key."""
    hint = did_you_mean(key, known) or "correct or remove it"
    return OptionError(f"unknown {called} {key!r}; allowed: {', '.join(known)}", hint=hint, options=(key,))


def made(holder: type[T], given: Mapping[str, Any]) -> T:
    """An instance of a class of options from values by key; what it does not know is left out."""
    return holder(**{row.name: row.value(given[row.key]) for row in declared(holder).values() if row.key in given})
