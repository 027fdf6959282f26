"""The command `check`: what a conversion would do, node by node. torch is imported inside the command only."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snnconvert.errors import OptionError, UnsupportedError, listed

if TYPE_CHECKING:
    from snnconvert.convert.check import Check
    from snnconvert.convert.preprocessing_search import Fit
    from snnconvert.data.preprocessing import Preprocessing

MODEL_PANEL, SPIKING, IMAGES = "Model", "Spiking network", "Preprocessing"


class ApproximateName(StrEnum):
    """Values of --approximate."""

    auto = "auto"
    units = "units"
    analog = "analog"


Approximate = Annotated[
    ApproximateName,
    typer.Option(
        "--approximate",
        help="Sigmoid, SiLU, GELU and the like. units: write each as a few spiking units where that fits; analog: "
        "compute them in the mean and send the results as signed spikes; auto: units, unless they change the outputs "
        "by over 5 %.",
        rich_help_panel=SPIKING,
    ),
]
StrictSpiking = Annotated[
    bool,
    typer.Option("--strict-spiking", help="Refuse a model with nodes that stay analog.", rich_help_panel=SPIKING),
]


def check(  # noqa: PLR0917
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for convert.")],
    arch: Annotated[str | None, typer.Option(help="As for convert.", rich_help_panel=MODEL_PANEL)] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(help="One input, e.g. 3,32,32, where the model does not say.", rich_help_panel=MODEL_PANEL),
    ] = None,
    output_name: Annotated[
        str | None, typer.Option(help="Which output is the classifier (the first).", rich_help_panel=MODEL_PANEL)
    ] = None,
    approximate: Approximate = ApproximateName.auto,
    strict_spiking: StrictSpiking = False,
    find: Annotated[
        bool,
        typer.Option(
            "--find-preprocessing", help="Try the usual normalisations on 128 images of --data.", rich_help_panel=IMAGES
        ),
    ] = False,
    data: Annotated[str | None, typer.Option(help="Labelled images, as for convert.", rich_help_panel=IMAGES)] = None,
    resize: Annotated[str | None, typer.Option(help="Short side, or HxW.", rich_help_panel=IMAGES)] = None,
    crop: Annotated[str | None, typer.Option(help="Centre crop, one side or HxW.", rich_help_panel=IMAGES)] = None,
    layout: Annotated[str | None, typer.Option(help="NCHW or NHWC, of the model.", rich_help_panel=IMAGES)] = None,
    label_offset: Annotated[
        int, typer.Option(help="Added to labels (1 for a background class).", rich_help_panel=IMAGES)
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The result on stdout, and nothing else there.")] = False,
) -> None:
    """Say what a conversion would do with every node of MODEL, in seconds and without data."""
    if find and data is None:
        raise OptionError("--find-preprocessing needs labelled images", hint="add --data, as for convert")
    if data is not None and not find:
        raise OptionError("check needs no data", hint="leave --data out, or add --find-preprocessing")
    import logging

    from snnconvert.cli.values import shape_of
    from snnconvert.convert.check import check_model
    from snnconvert.data.preprocessing import Preprocessing

    logging.getLogger("torch").setLevel(logging.ERROR)
    shape = shape_of(input_shape)
    found = check_model(
        model,
        arch=arch,
        input_shape=shape,
        output_name=output_name,
        way=approximate.value,
        strict=strict_spiking,
    )
    given = {"resize": resize, "crop": crop, "layout": layout}
    base = Preprocessing.from_options(**{name: value for name, value in given.items() if value is not None})
    fits: list[Fit] = []
    if find and not found.refusal:
        fits = _fits(model, arch, shape, output_name, data or "", base, label_offset)
    if as_json:
        extra: dict[str, Any] = {"preprocessing": [fit.to_dict() for fit in fits]} if find else {}
        print(json.dumps({**found.to_dict(), **extra}, indent=1))
    else:
        if found.nodes:
            _print(found)
        if fits:
            _print_fits(fits)
    if found.refusal:
        causes = tuple(
            f"{node.name} ({node.operator}): {node.reason}" for node in found.nodes if node.verdict in _refused(found)
        )
        refused = found.refusal if found.hint else f"{model} would not be converted: {found.refusal}"
        raise UnsupportedError(refused, hint=found.hint or _hint(found), causes=causes)


def _refused(found: Check) -> tuple[str, ...]:
    return ("unsupported",) if found.counts()["unsupported"] else ("analog",)


def _hint(found: Check) -> str:
    refused = [node for node in found.nodes if node.remedy and node.verdict in _refused(found)]
    remedies = [node.remedy for node in refused]
    return (
        f"what would change {listed([n.name for n in refused], 3)}: {remedies[0]}"
        if remedies
        else "a network without ReLU-like activations would stay as it is"
    )


def _fits(  # noqa: PLR0917
    model: str,
    arch: str | None,
    shape: tuple[int, ...] | None,
    output_name: str | None,
    data: str,
    base: Preprocessing,
    label_offset: int,
) -> list[Fit]:
    from snnconvert.convert.doors import open_model
    from snnconvert.convert.preprocessing_search import find_preprocessing
    from snnconvert.data.bundled import data_path

    ann = open_model(model, arch=arch, input_shape=shape, output_name=output_name)
    return find_preprocessing(ann, str(data_path(data)), base=base, label_offset=label_offset)


def _print(found: Check) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{found.model}, input {'x'.join(map(str, found.input_shape))}" if found.input_shape else None)
    for title in ("node", "operator", "verdict", "reason"):
        table.add_column(title, overflow="fold")
    for node in found.nodes:
        table.add_row(node.name, node.operator, node.verdict, node.reason)
    console.print(table)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in found.counts().items() if count)
    console.print(f"{len(found.nodes)} nodes: {counts}", highlight=False)
    if found.operations:
        once, each = (found.operations[kind] / max(sum(found.operations.values()), 1) for kind in ("input", "current"))
        console.print(
            f"spiking coverage: {found.operation_coverage:.1%} of the operations add spikes ({once:.1%} read the input "
            f"once, {each:.1%} multiply in every step); {found.sites} of {found.sites + found.analog} activations",
            highlight=False,
        )
    remedies = dict.fromkeys(f"{node.operator}: {node.remedy}" for node in found.nodes if node.verdict == "analog")
    for line in (*(f"what would change an analog node: {remedy}" for remedy in remedies), *found.notes):
        console.print(line, highlight=False)


def _print_fits(fits: list[Fit]) -> None:
    from rich.console import Console
    from rich.table import Table

    from snnconvert.convert.preprocessing_search import as_good

    table = Table(title=f"the best normalisations on {fits[0].images} images")
    table.add_column("normalisation")
    table.add_column("accuracy %", justify="right")
    table.add_column("options")
    for fit in (fit for fit in fits if fit.images == fits[0].images):
        table.add_row(fit.name, f"{fit.accuracy:.1f}", fit.options())
    console = Console()
    console.print(table)
    equal = as_good(fits)
    console.print(f"best: {fits[0].options()}", highlight=False)
    if len(equal) > 1:
        console.print(f"{len(equal)} fit equally well on so few images: {', '.join(f.name for f in equal)}")
