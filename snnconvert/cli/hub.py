"""The commands of `hub`: their parameters. Nothing else of the program touches the network but `zoo pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

hub_app = typer.Typer(
    help="Share checkpoints on the Hugging Face hub (needs snnconvert[hub]).",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Argument(metavar="USER/NAME", help="Of the repository on the hub.")]


@hub_app.command("push")
def push(
    folder: Annotated[Path, typer.Argument(help="What `export --to huggingface` wrote.")],
    name: Name,
    private: Annotated[bool, typer.Option("--private", help="Only for you and your organisation.")] = False,
) -> None:
    """Upload a folder; the repository is made if there is none."""
    from snnconvert.exporters import hub

    print(f"on the hub: {hub.push(folder, name, private=private)}")


@hub_app.command("pull")
def pull(
    name: Name,
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit; main without it.")] = None,
) -> None:
    """Download a checkpoint into the hub's cache; snnconvert.load("hf:USER/NAME") reads it from there."""
    from snnconvert.exporters import hub

    print(hub.pull(name, revision))
