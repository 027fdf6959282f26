"""What --help shows: the options that matter first, all of them under their headings with --help-all."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import typer
import typer.core

HELP_NAMES = {"help_option_names": ["-h", "--help"]}
ALL = "--help-all"


class Command(typer.core.TyperCommand):
    """A command whose options stand under the headings of their panels.

    Attributes:
        first: names of the options that --help lists, in its order; without any it lists all.
    """

    first: tuple[str, ...] = ()

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options."""
        rows: dict[str, list[tuple[str, str]]] = {}
        by_name: dict[str, tuple[str, str]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            argument = param.param_type_name == "argument"
            panel = "Arguments" if argument else getattr(param, "rich_help_panel", None) or "Options"
            rows.setdefault(panel, []).append(record)
            by_name[str(param.name)] = record
        everything = not self.first or ctx.meta.get(ALL)
        arguments, others = rows.pop("Arguments", []), rows.pop("Options", [])
        if not everything:
            rows = {"The options that matter most": [by_name[name] for name in self.first]}
        for title, records in (
            ("Arguments", arguments),
            *rows.items(),
            ("Other options" if rows else "Options", others),
        ):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        if not everything:
            hidden = len(by_name) - len(arguments) - len(self.first) - len(others)
            formatter.write_paragraph()
            formatter.write_text(f"{hidden} more options: {ctx.command_path} {ALL}")


def help_all(ctx: typer.Context, value: bool) -> None:
    """The callback of --help-all."""
    if value and not ctx.resilient_parsing:
        ctx.meta[ALL] = True
        print(ctx.get_help())
        raise typer.Exit


def version(value: bool) -> None:
    """The callback of --version."""
    if value:
        from importlib.metadata import version

        print(f"snnconvert {version('snnconvert')}")
        raise typer.Exit


def complete_as_convert(environment: MutableMapping[str, str], commands: set[str]) -> None:
    """Let a shell that completes `snnconvert MODEL ...` complete `snnconvert convert MODEL ...`.

    Args:
        environment: what the shell's script has set; changed.
        commands: what may stand first instead of a model.
    """
    for name in ("COMP_WORDS", "_TYPER_COMPLETE_ARGS"):
        words = environment.get(name, "").split()
        if len(words) < 2 or words[1] in commands or words[1].startswith("-"):
            continue
        first = environment.get("COMP_CWORD") == "1" if name == "COMP_WORDS" else len(words) == 2
        if first and not environment[name].endswith(" "):  # that word itself is being completed
            continue
        program, _, rest = environment[name].lstrip().partition(words[0])
        environment[name] = f"{program}{words[0]} convert{rest}"
        if name == "COMP_WORDS":
            environment["COMP_CWORD"] = str(int(environment.get("COMP_CWORD", "1")) + 1)
