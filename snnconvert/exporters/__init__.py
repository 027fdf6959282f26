"""Exports: EXPORTERS maps the value of `--to` to what writes a network for another program, and runs it there.

The table is light: an exporter's module, and torch with it, is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnconvert.errors import OptionError, did_you_mean
from snnconvert.options import declared, option, read_table
from snnconvert.plugins import named

if TYPE_CHECKING:
    from snnconvert.exporters.task import Reader, Task, Written

PANEL = "Export"


@dataclass(frozen=True)
class Exporter:
    """One way out.

    Attributes:
        help: what is written, in a few words.
        writer: MODULE:FUNCTION; takes a `task.Task`, writes to its path and returns `task.Written`.
        reader: MODULE:FUNCTION; takes the task and what was written, and returns what runs it in the program that it
            is meant for (`task.Reader`). Empty where there is none to run.
        forms: the values of `--form` and what each is; the first is the usual one.
        options: further options that mean something to it, by field of `Export`.
        suffix: what its path ends in; empty for a folder.
        packages: what has to be importable to write it, and to run it.
        extra: the extra of this package that brings them.
        continuous: whether it can hold spikes with real times.
        events: the forms that hold a network which reads recordings of events; "" where there are no forms.
    """

    help: str
    writer: str
    reader: str = ""
    forms: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    suffix: str = ""
    packages: tuple[str, ...] = ()
    extra: str = ""
    continuous: bool = False
    events: tuple[str, ...] = ()

    def write(self, task: Task) -> Written:
        """Write the network.

        Raises:
            UnsupportedError: what the form cannot hold exactly, naming layers and reasons; nothing is written.
        """
        written: Written = named(self.writer)(task)
        return written

    def read(self, task: Task, written: Written) -> Reader:
        """What runs it."""
        reader: Reader = named(self.reader)(task, written)
        return reader

    def missing(self) -> tuple[str, ...]:
        """The packages that are not installed."""
        return tuple(name for name in self.packages if find_spec(name) is None)


EXPORTERS: dict[str, Exporter] = {
    "onnx": Exporter(
        "an ONNX file of standard operators",
        "snnconvert.exporters.onnx_file:write_onnx",
        "snnconvert.exporters.onnx_run:read_onnx",
        forms={
            "step": "one time step, states in and out",
            "loop": "all steps, their number an input",
            "window": "a single window without states, for bistable networks",
            "ann": "the original network of real numbers, for tools such as Akida's that convert it themselves",
        },
        suffix=".onnx",
        packages=("onnx", "onnxruntime"),
        events=("ann",),
    ),
    "torch": Exporter(
        "a torch module that needs torch alone",
        "snnconvert.exporters.torch_file:write_torch",
        "snnconvert.exporters.torch_file:read_torch",
        forms={"module": "network.py and weights.pt, differentiable", "pt2": "one step as a torch.export program"},
    ),
    "integers": Exporter(
        "weights, thresholds and biases as integers: a C header, arrays, and a golden trace",
        "snnconvert.exporters.integer_file:write_integers",
        "snnconvert.exporters.integer_file:read_integers",
        options=("target", "weight_bits", "state_bits"),
    ),
    "nir": Exporter(
        "a NIR file for another simulator, and the few lines with which it is read rightly",
        "snnconvert.exporters.nir_file:write_nir",
        "snnconvert.exporters.nir_file:read_nir",
        options=("reader", "python"),
        suffix=".nir",
        packages=("nir",),
        extra="nir",
    ),
    "huggingface": Exporter(
        "a folder for the Hugging Face hub, with a model card",
        "snnconvert.exporters.huggingface:write_folder",
        options=("data", "limit"),
        continuous=True,
        events=("",),
    ),
}


@dataclass(frozen=True)
class Export:
    """What can be asked of an export; the defaults are those of the command line.

    Attributes:
        output: a file or, for formats of several, a folder.
    """

    to: str = option("", "What it is exported as.", commands=("export",), panel=PANEL, choices=lambda: EXPORTERS)
    form: str | None = option(
        None,
        "Which of the forms that --to has; the first is the usual one.",
        commands=("export",),
        panel=PANEL,
        metavar="FORM",
    )
    ann: bool = option(
        False,
        "The original network, folded, instead of the spiking one: short for --form ann (onnx).",
        commands=("export",),
        panel=PANEL,
    )
    output: Path | None = option(
        None,
        "File or folder to write.",
        commands=("export",),
        panel=PANEL,
        short="-o",
        usual="beside the checkpoint",
        read=Path,
        manifest=False,
    )
    verify: bool = option(
        False,
        "Run what was written in the program that reads it, on --data, and compare every spike.",
        commands=("export",),
        panel=PANEL,
    )
    data: str | None = option(
        None, "Images to verify on, as for convert.", commands=("export",), panel=PANEL, metavar="TEXT", manifest=False
    )
    limit: int = option(64, "How many of them.", commands=("export",), panel=PANEL, least=1)
    target: str | None = option(
        None,
        "A chip whose widths are taken and whose limits are checked (integers).",
        commands=("export",),
        panel=PANEL,
        metavar="NAME|FILE.toml",
    )
    reader: str | None = option(
        None,
        "Who reads it: sinabs, spikingjelly, norse, snntorch, or primitive for readers of integrators, thresholds and "
        "scales (nir).",
        commands=("export",),
        panel=PANEL,
        metavar="NAME",
    )
    python: str | None = option(
        None,
        "Python of the environment in which --verify finds the reader (nir).",
        commands=("export",),
        panel=PANEL,
        metavar="FILE",
        usual="this one",
    )
    weight_bits: int | None = option(
        None, "Of a weight, sign included (integers).", commands=("export",), panel=PANEL, usual="8", least=2
    )
    state_bits: int | None = option(
        None, "Of a membrane, sign included (integers).", commands=("export",), panel=PANEL, usual="16", least=2
    )

    def __post_init__(self) -> None:
        if self.ann and self.form is None:
            object.__setattr__(self, "form", "ann")


def exporter_of(asked: Export) -> Exporter:
    """The row that `asked` names, once all that is asked fits it.

    Raises:
        OptionError: an unknown exporter or form, an option that means nothing to it, or a package that is missing.
    """
    if asked.to not in EXPORTERS:
        hint = did_you_mean(asked.to, tuple(EXPORTERS)) or f"give --to one of {', '.join(EXPORTERS)}"
        what = f"--to {asked.to!r} is not known" if asked.to else "--to is missing"
        raise OptionError(f"{what}; there are {', '.join(EXPORTERS)}", hint=hint, options=("to",))
    row = EXPORTERS[asked.to]
    if asked.form is not None and asked.form not in row.forms:
        hint = f"give --form one of {', '.join(row.forms)}" if row.forms else "leave --form out"
        raise OptionError(f"--to {asked.to} has no form {asked.form!r}", hint=hint, options=("form",))
    if asked.ann and asked.form != "ann":
        raise OptionError(f"--ann and --form {asked.form} are two forms", hint="choose one", options=("ann", "form"))
    common = ("to", "form", "ann", "output", "verify", "data", "limit")
    for option_ in declared(Export).values():
        given = getattr(asked, option_.name) != option_.default
        if given and option_.name not in (*common, *row.options):
            raise OptionError(
                f"{option_.flag} means nothing to --to {asked.to}",
                hint=f"leave {option_.flag} out",
                options=(option_.name,),
            )
    if asked.verify and not row.reader:
        raise OptionError(f"nothing runs what --to {asked.to} writes", hint="leave --verify out", options=("verify",))
    if asked.verify and asked.data is None:
        raise OptionError("--verify needs images", hint="add --data, as for convert", options=("data",))
    if missing := row.missing():
        how = f"pip install 'snnconvert[{row.extra}]'" if row.extra else f"pip install {' '.join(missing)}"
        raise OptionError(f"--to {asked.to} needs {', '.join(missing)}, which is not installed", hint=how)
    return row


def from_manifest(given: Any) -> tuple[dict[str, Any], ...]:
    """What a manifest's key `export` asks for: a name, a table of options, or a list of these; checked.

    Raises:
        OptionError: an unknown exporter, key or value, or options that do not fit each other.
    """
    found = []
    for one in given if isinstance(given, list) else [given]:
        read = read_table(Export, {"to": one} if isinstance(one, str) else one, "export")
        exporter_of(Export(**{**read, "data": "the model's" if read.get("verify") else None}))
        found.append(read)
    return tuple(found)
