"""The command line: parse, call one library function, print. torch is imported inside commands only.

`snnconvert MODEL [options]` is short for `snnconvert convert MODEL [options]`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from snnconvert.allocator import keep_freed_memory
from snnconvert.cli.check import Approximate, ApproximateName, StrictSpiking, check
from snnconvert.cli.options import CalibrationName, NeuronName, PhasesName, PrecisionName, ScheduleName, gates_of
from snnconvert.cli.output import Patient
from snnconvert.cli.report import Csv, EnergyConstants, Figures, Markdown, debug
from snnconvert.cli.report import report as report_command
from snnconvert.cli.values import preprocessing_of, shape_of, steps_of, steps_or_auto
from snnconvert.cli.zoo import gate, zoo_app
from snnconvert.errors import SnnConvertError
from snnconvert.threads import wait_quietly

app = typer.Typer(
    name="snnconvert",
    help="Convert a trained neural network (ONNX, PyTorch) into a spiking neural network, and report what it costs.\n\n"
    "`snnconvert MODEL [options]` is short for `snnconvert convert MODEL [options]`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


DATA, MODEL_PANEL, CALIBRATION, SNN, OUTPUT, GATE = "Data", "Model", "Calibration", "Spiking network", "Output", "Gates"
AGAIN = "Compiled again from its calibration"

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An .onnx file, weights (.pt, .pth, .th, .safetensors) with --arch, a .pt2 program, torchvision:NAME, "
        "timm:NAME, or zoo:NAME (zoo:digits-resnet and zoo:digits-cnn come with the package).",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Evaluation data: .npz (x, y), .npy, a folder of class folders, a folder plus labels.csv, idx or CIFAR "
        "binary files.",
        rich_help_panel=DATA,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", help="Evaluate on a class-balanced sample of N images.", rich_help_panel=DATA),
]
BatchOption = Annotated[int, typer.Option("--batch-size", help="Images read at once.", rich_help_panel=OUTPUT)]
Device = Annotated[str, typer.Option(help="cpu, or cuda where there is one.", rich_help_panel=OUTPUT)]
Precision = Annotated[
    PrecisionName,
    typer.Option(help="Of the weights: int8 (per output channel) and bfloat16 are shown beside float32."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=OUTPUT)]
Json = Annotated[
    bool, typer.Option("--json", help="The report on stdout, and nothing else there.", rich_help_panel=OUTPUT)
]


@app.command()
def convert(  # noqa: PLR0917
    model: Model,
    timesteps: Annotated[
        str,
        typer.Option(
            "--timesteps",
            "-T",
            help="Total steps, from input to answer; auto finds the smallest that meets --max-drop or --min-accuracy.",
            rich_help_panel=SNN,
        ),
    ] = "32",
    data: DataOption = None,
    calibration_data: Annotated[
        str | None,
        typer.Option(
            help="Images to calibrate on; without it they are drawn from --data and left out of the evaluation.",
            rich_help_panel=DATA,
        ),
    ] = None,
    calibration_samples: Annotated[
        int, typer.Option(help="Images to calibrate on.", rich_help_panel=CALIBRATION)
    ] = 512,
    calibration: Annotated[
        CalibrationName, typer.Option(help="How thresholds are found.", rich_help_panel=CALIBRATION)
    ] = CalibrationName.reconstruct,
    percentile: Annotated[
        float | None, typer.Option(help="For --calibration percentile (99.9).", rich_help_panel=CALIBRATION)
    ] = None,
    granularity: Annotated[
        str | None, typer.Option(help="One threshold per channel or per layer.", rich_help_panel=CALIBRATION)
    ] = None,
    headroom: Annotated[
        float | None,
        typer.Option(
            help="Thresholds follow at least this many times the largest calibration activation (reconstruct, mse; 0).",
            rich_help_panel=CALIBRATION,
        ),
    ] = None,
    neuron: Annotated[
        NeuronName,
        typer.Option(help="Neuron model; auto tries them, cheapest first, until one is enough.", rich_help_panel=SNN),
    ] = NeuronName.binary,
    levels: Annotated[
        int | None,
        typer.Option(help="Units per step of burst (5) and graded (15 = 4 bits) neurons.", rich_help_panel=SNN),
    ] = None,
    schedule: Annotated[
        ScheduleName,
        typer.Option(help="When neurons integrate and emit; auto tries all that fit into T.", rich_help_panel=SNN),
    ] = ScheduleName.auto,
    wait: Annotated[int | None, typer.Option(help="Steps of --schedule wait (1).", rich_help_panel=SNN)] = None,
    window: Annotated[
        int | None, typer.Option(help="Steps per window of --schedule bistable (tries 2 to 8).", rich_help_panel=SNN)
    ] = None,
    phases: Annotated[
        PhasesName, typer.Option(help="Weights of the spikes in a bistable window.", rich_help_panel=SNN)
    ] = PhasesName.power2,
    residual: Annotated[
        str, typer.Option(help="Membrane after a bistable window: keep, clear or clamp.", rich_help_panel=SNN)
    ] = "keep",
    rounding: Annotated[
        str, typer.Option(help="nearest (v(0) = half a spike) or floor (v(0) = 0).", rich_help_panel=SNN)
    ] = "nearest",
    read_from: Annotated[
        str,
        typer.Option(
            help="First steps that the read-out leaves out; auto chooses on calibration images (reconstruct; 0 with "
            "--early-exit).",
            rich_help_panel=SNN,
        ),
    ] = "auto",
    calibrate_for: Annotated[
        str | None,
        typer.Option(
            help="Earlier steps after which the network is to be right as well, e.g. 8,16 with -T 32; compares at them "
            "as --compare-at does.",
            rich_help_panel=CALIBRATION,
        ),
    ] = None,
    compare_at: Annotated[
        str | None,
        typer.Option(
            help="Compare this network, read at these steps, with networks calibrated for each of them alone, e.g. "
            "4,8,16 with -T 32: a table and a second curve in the report (streaming).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    study: Annotated[
        list[str] | None,
        typer.Option(
            "--study",
            metavar="NAME",
            help="Find out more, at more time; may be given several times. ablation: what bistable and synchronous "
            "neurons are worth (bistable networks).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    early_exit: Annotated[
        float | None,
        typer.Option(
            help="Let clear images stop early so that this share keeps the last step's answer, e.g. 0.99.",
            rich_help_panel=SNN,
        ),
    ] = None,
    input_encoder: Annotated[
        str,
        typer.Option(
            help="analog (the input is a constant current) or spiking (an encoder neuron sends it as signed spikes).",
            rich_help_panel=SNN,
        ),
    ] = "analog",
    approximate: Approximate = ApproximateName.auto,
    strict_spiking: StrictSpiking = False,
    arch: Annotated[
        str | None,
        typer.Option(
            help="Architecture of a weights file: FILE.py:FACTORY (this runs that file), torchvision:NAME, timm:NAME.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(help="One input, e.g. 3,32,32, where the model does not say.", rich_help_panel=MODEL_PANEL),
    ] = None,
    output_name: Annotated[
        str | None, typer.Option(help="Which output is the classifier (the first).", rich_help_panel=MODEL_PANEL)
    ] = None,
    mean: Annotated[str | None, typer.Option(help="Per channel, e.g. 0.485,0.456,0.406.", rich_help_panel=DATA)] = None,
    std: Annotated[str | None, typer.Option(help="Per channel, e.g. 0.229,0.224,0.225.", rich_help_panel=DATA)] = None,
    scale: Annotated[
        str | None, typer.Option(help="value = (x / scale - mean) / std; 255 for 8-bit images.", rich_help_panel=DATA)
    ] = None,
    layout: Annotated[str | None, typer.Option(help="NCHW or NHWC, of the model.", rich_help_panel=DATA)] = None,
    channels: Annotated[str | None, typer.Option(help="RGB or BGR, of the model.", rich_help_panel=DATA)] = None,
    resize: Annotated[str | None, typer.Option(help="Short side, or HxW.", rich_help_panel=DATA)] = None,
    crop: Annotated[str | None, typer.Option(help="Centre crop, one side or HxW.", rich_help_panel=DATA)] = None,
    preprocessing: Annotated[
        str | None, typer.Option(help="A TOML file with these seven keys instead.", rich_help_panel=DATA)
    ] = None,
    label_offset: Annotated[
        int, typer.Option(help="Added to labels (1 for a background class).", rich_help_panel=DATA)
    ] = 0,
    limit: LimitOption = None,
    batch_size: BatchOption = 64,
    seed: Annotated[int, typer.Option(help="Choice of images.", rich_help_panel=DATA)] = 0,
    device: Device = "cpu",
    precision: Precision = PrecisionName.float32,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Checkpoint (STEM.snn).", rich_help_panel=OUTPUT)
    ] = None,
    without_original: Annotated[
        bool, typer.Option(help="Leave the original network out of the checkpoint.", rich_help_panel=OUTPUT)
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Report page (beside the checkpoint; .json too).", rich_help_panel=OUTPUT)
    ] = None,
    energy_constants: EnergyConstants = None,
    csv: Csv = False,
    markdown: Markdown = False,
    figures: Figures = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Gate: largest drop in points against the ANN (exit 3).", rich_help_panel=GATE)
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="Gate: least accuracy in percent (exit 3).", rich_help_panel=GATE)
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="A gate that the sample cannot decide fails.", rich_help_panel=GATE)
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Convert MODEL, measure it, and write the checkpoint and the report."""
    from snnconvert.cli import commands

    given = {"percentile": percentile, "granularity": granularity, "headroom": headroom}
    chosen = preprocessing_of(
        preprocessing, mean=mean, std=std, scale=scale, layout=layout, channels=channels, resize=resize, crop=crop
    )
    commands.convert(
        {
            "model": model,
            "arch": arch,
            "input_shape": shape_of(input_shape),
            "output_name": output_name,
            "timesteps": steps_or_auto("--timesteps", timesteps),
            "data": data,
            "calibration_data": calibration_data,
            "calibration_samples": calibration_samples,
            "calibration": calibration.value,
            "options": {name: value for name, value in given.items() if value is not None},
            "neuron": neuron.value,
            "levels": levels,
            "schedule": schedule.value,
            "wait": wait,
            "window": window,
            "phases": phases.value,
            "residual": residual,
            "rounding": rounding,
            "read_from": steps_or_auto("--read-from", read_from),
            "early_exit": early_exit,
            "calibrate_for": steps_of("--calibrate-for", calibrate_for),
            "compare_at": steps_of("--compare-at", compare_at),
            "studies": tuple(study or ()),
            "limit": limit,
            "batch_size": batch_size,
            "seed": seed,
            "preprocessing": chosen,
            "label_offset": label_offset,
            "device": device,
            "precision": precision.value,
            "input_encoder": input_encoder,
            "approximate": approximate.value,
            "strict_spiking": strict_spiking,
            "energy_constants": energy_constants,
        },
        output=output,
        report=report,
        beside={"csv": csv, "markdown": markdown, "figures": figures},
        gates=gates_of(max_drop, min_accuracy, at=None, strict=strict),
        original=not without_original,
        talk=commands.Talk(quiet=quiet, as_json=as_json, command_line=command_line()),
    )


@app.command()
def run(  # noqa: PLR0917
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE.snn", help="A converted network.")],
    data: Annotated[str, typer.Option(help="Data to run it on, as for convert.")],
    limit: LimitOption = None,
    batch_size: BatchOption = 64,
    energy_constants: EnergyConstants = None,
    device: Device = "cpu",
    schedule: Annotated[
        ScheduleName | None, typer.Option(help="Another than it was calibrated for.", rich_help_panel=AGAIN)
    ] = None,
    timesteps: Annotated[
        int | None, typer.Option("--timesteps", "-T", help="Another total number of steps.", rich_help_panel=AGAIN)
    ] = None,
    window: Annotated[int | None, typer.Option(help="Steps per window (bistable).", rich_help_panel=AGAIN)] = None,
    wait: Annotated[int | None, typer.Option(help="Steps a layer waits (wait).", rich_help_panel=AGAIN)] = None,
    precision: Annotated[
        PrecisionName | None, typer.Option(help="Weights in another precision.", rich_help_panel=AGAIN)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Keep the network that ran.", rich_help_panel=AGAIN)
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a converted network on data; on its own evaluation data the figures come out bit for bit.

    Its calibration can be compiled again for another schedule, number of steps or precision.
    """
    from snnconvert.cli import commands
    from snnconvert.recompile import Change

    talk = commands.Talk(quiet=quiet, as_json=as_json, command_line=command_line())
    commands.rerun(
        checkpoint,
        data,
        limit=limit,
        batch_size=batch_size,
        energy_constants=energy_constants,
        device=device,
        change=Change(
            schedule=schedule and schedule.value,
            timesteps=timesteps,
            window=window,
            wait=wait,
            precision=precision and precision.value,
        ),
        output=output,
        talk=talk,
    )


@app.command()
def info(
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE.snn", help="A converted network.")],
    as_json: Json = False,
) -> None:
    """Print what a checkpoint holds."""
    from snnconvert.cli import commands

    commands.info(checkpoint, commands.Talk(quiet=False, as_json=as_json, command_line=command_line()))


app.command()(check)
app.command()(gate)
app.command("report")(report_command)
app.command()(debug)
app.add_typer(zoo_app, name="zoo")


def command_line() -> str:
    """What the user typed."""
    return shlex.join(["snnconvert", *sys.argv[1:]])


def with_command(arguments: list[str]) -> list[str]:
    """Put `convert` in front where the user named a model first."""
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups if group.name}
    if not arguments or arguments[0] in known or arguments[0] in ("--help", "-h", "--version"):
        return arguments
    return ["convert", *arguments]


def main() -> None:
    """Entry point: run a command, and turn every failure into a message and an exit code."""
    arguments = with_command(sys.argv[1:])
    if arguments == ["--version"]:
        from importlib.metadata import version

        print(f"snnconvert {version('snnconvert')}")
        return
    keep_freed_memory()
    wait_quietly()
    try:
        # A reader such as `head` may close the pipe early; what the command does and returns stays the same.
        with contextlib.redirect_stdout(Patient(sys.stdout)) as output:
            try:
                app(arguments, standalone_mode=True)
            finally:
                output.flush()
    except SnnConvertError as error:
        print(error.render(), file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as stop:
        # A command that returns 130 by itself has said what it leaves behind.
        if isinstance(getattr(stop.__context__, "__cause__", None), KeyboardInterrupt):
            print("\ninterrupted: no checkpoint and no report was written", file=sys.stderr)
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            print("error: there is not enough memory for this many steps or images", file=sys.stderr)
            print(
                "\nhint: use fewer --timesteps, a smaller --calibration-samples, or a larger machine", file=sys.stderr
            )
            sys.exit(2)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            print(f"error: {error.strerror}\n\nhint: make room, or write to another place", file=sys.stderr)
            sys.exit(2)
        if os.environ.get("SNNCONVERT_DEBUG"):
            raise
        text = f"{type(error).__name__}: {error}"
        print(f"error: an unexpected failure\n  caused by: {text}\n", file=sys.stderr)
        print(
            "hint: this is a defect of snnconvert: run again with SNNCONVERT_DEBUG=1 and report what it prints",
            file=sys.stderr,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
