"""Commands whose parameters follow from classes of options (`snnconvert.options`)."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from snnconvert.cli.help import ALL, HELP_NAMES, Command, help_all
from snnconvert.options import AUTO, Declared, declared, option

_REPORTING = ("convert", "report", "finetune")


@dataclass(frozen=True)
class Files:
    """What is written, besides the report's .json."""

    output: Path | None = option(
        None,
        "Checkpoint to write; of `run`, the network that ran.",
        commands=("convert", "run", "finetune"),
        panel="Output",
        short="-o",
        usual="convert: STEM.snn, finetune: STEM-tuned.snn",
        first=("convert", "finetune"),
    )
    without_original: bool = option(
        False, "Leave the original network out of the checkpoint.", commands=("convert",), panel="Output"
    )
    report: Path | None = option(
        None,
        "Report page; .json beside it.",
        commands=_REPORTING,
        panel="Output",
        usual="STEM.html, beside the checkpoint",
    )
    static: bool = option(
        False,
        "A page a fifth as large, without scripts: its charts are pictures.",
        commands=_REPORTING,
        panel="Output",
    )
    csv: bool = option(
        False,
        "Also STEM.csv, the curve, and STEM-layers.csv.",
        commands=_REPORTING,
        panel="Output",
    )
    markdown: bool = option(False, "Also STEM.md, for a pull request.", commands=_REPORTING, panel="Output")
    figures: str | None = option(
        None,
        "Also every figure, in STEM-figures/.",
        commands=_REPORTING,
        panel="Output",
        metavar="svg|png|svg,png",
    )


@dataclass(frozen=True)
class Costing:
    """What a checkpoint's cost is modelled on."""

    machine: str = option(
        "h2learn",
        "What it runs on; a file varies one of them: machine = NAME, and [[constant]] tables with name, value, unit "
        "and source.",
        commands=("cost",),
        panel="Machine",
        metavar="h2learn|v100|loihi-like|FILE.toml",
    )
    training: bool = option(
        False, "A step of BPTT: forward, backward and weight update.", commands=("cost",), panel="Machine"
    )
    batch: int = option(
        64, "Samples that share one version of the weights.", commands=("cost",), panel="Machine", least=1
    )


@dataclass(frozen=True)
class Chip:
    """What a checkpoint is held against."""

    sweep: bool = option(
        False, "Accuracy over T, weight bits and membrane bits (slow).", commands=("report",), panel="Checkpoint"
    )


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a command.

    A parameter annotated with a class of options stands for those of them that take the command: the function is given
    an instance, or for `Annotated[dict[str, Any], Class]` what was typed, by field. Others are typer's own.

    Args:
        app: where the command belongs.
        name: as `Option.commands` calls it, for instance "zoo run".
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        hints = typing.get_type_hints(function, include_extras=True)
        parameters: list[inspect.Parameter] = []
        groups: dict[str, _Group] = {}
        for parameter in inspect.signature(function).parameters.values():
            group = _Group.of(hints[parameter.name], name)
            if group is None:
                parameters.append(parameter.replace(annotation=hints[parameter.name], kind=parameter.KEYWORD_ONLY))
            else:
                groups[parameter.name] = group
                parameters += group.parameters()

        @functools.wraps(function)
        def call(**typed: Any) -> Any:
            typed.pop("help_all", None)
            gathered = {key: group.gather(typed) for key, group in groups.items()}
            return function(**gathered, **typed)

        first = tuple(one for group in groups.values() for one in group.first())
        if first:
            parameters.append(_HELP_ALL)
        # typer reads both to find the options
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in parameters}
        kind = type("Command", (Command,), {"first": first})
        app.command(name.rpartition(" ")[2], cls=kind, context_settings=HELP_NAMES)(call)
        return function

    return register


@dataclass(frozen=True)
class _Group:
    """The options of a class that a command takes.

    Attributes:
        holder: the class.
        plain: whether they are wanted by name instead of as an instance.
        command: the command.
        usual: what their defaults are called in this command, all of them or some.
    """

    holder: type
    plain: bool
    command: str
    usual: str | Mapping[str, str]

    @classmethod
    def of(cls, hint: Any, command: str) -> _Group | None:
        plain = typing.get_origin(hint) is Annotated
        _, holder, *usual = typing.get_args(hint) if plain else (None, hint)
        return (
            cls(holder, plain, command, usual[0] if usual else {})
            if isinstance(holder, type) and is_dataclass(holder)
            else None
        )

    def rows(self) -> Iterator[tuple[Declared, dict[str, Declared]]]:
        """Each option, with those that are typed for it: itself, or what is inside."""
        for row in declared(self.holder).values():
            inside = row.option.inside() if row.option.inside else {}
            typed = {row.name: row, **inside}
            yield (
                row,
                {key: one.of(self.command) for key, one in typed.items() if self.command in one.option.commands},
            )

    def first(self) -> Iterator[str]:
        """The options that the short help lists."""
        return (one.name for _, typed in self.rows() for one in typed.values() if self.command in one.option.first)

    def parameters(self) -> Iterator[inspect.Parameter]:
        return (_parameter(one, self.command, self.usual) for _, typed in self.rows() for one in typed.values())

    def gather(self, typed: dict[str, Any]) -> Any:
        """Take this group's options out of all that were typed."""
        given: dict[str, Any] = {}
        for row, taken in self.rows():
            texts = {key: text for key in taken if (text := typed.pop(key)) not in (None, False, [], ())}
            values = {key: taken[key].typed(text, self.command) for key, text in texts.items()}
            if row.option.gather is not None and values:
                values = {row.name: row.option.gather(values)}
            given |= values
        return given if self.plain else self.holder(**given)


def spelled(field: str) -> str:
    """A field as an option of the command line; "" where there is none."""
    return f"--{field.replace('_', '-')}" if field else ""


def _completions(row: Declared) -> Callable[[str], list[str]]:
    """What a shell offers for an option with choices."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in row.choices if name.startswith(incomplete)]

    return complete


_HELP_ALL = inspect.Parameter(
    "help_all",
    inspect.Parameter.KEYWORD_ONLY,
    annotation=Annotated[bool, typer.Option(ALL, help="Show all options.", is_eager=True, callback=help_all)],
    default=False,
)


def _parameter(row: Declared, command: str, usual: str | Mapping[str, str]) -> inspect.Parameter:
    known, metavar = row.option, row.metavar
    kind: Any = bool if row.kind is bool else list[str] if row.repeated else str
    if known.positional:
        info: Any = typer.Argument(metavar=known.metavar or row.name.upper(), help=known.help)
        default: Any = inspect.Parameter.empty if row.default is MISSING else None
    else:
        if command in known.auto and AUTO not in metavar:
            metavar = f"[{metavar}|{AUTO}]"
        shown = usual if isinstance(usual, str) else usual.get(row.name, row.usual)
        info = typer.Option(
            *(name for name in (row.flag, known.short, spelled(known.former)) if name),
            metavar=metavar or None,
            help=known.help + (f" [{shown}]" if shown else ""),
            rich_help_panel=known.panel or None,
            autocompletion=_completions(row) if row.choices else None,
        )
        kind, default = (kind, False) if kind is bool else (kind | None, None)
    return inspect.Parameter(
        row.name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, info], default=default
    )
