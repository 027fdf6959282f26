"""One function that opens whatever the user names as a model."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from torch import nn

from snnconvert.convert.architectures import build_architecture
from snnconvert.convert.pytorch import choose_output, import_module, weights_digest
from snnconvert.convert.weights import SUFFIXES, apply_weights, is_pt2, load_weights, sniff
from snnconvert.data.named import IMAGE_KEYS
from snnconvert.errors import DataError, OptionError, listed
from snnconvert.files import sha256_of
from snnconvert.graph.parts import Part
from snnconvert.graph.types import Ann, Source

ALLOWED = f"zoo:NAME, FILE.onnx, FILE.pt2, torchvision:NAME, timm:NAME, or FILE with a suffix of {', '.join(SUFFIXES)}"


def open_model(
    model: str,
    *,
    arch: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    output_name: str | None = None,
    arrays: Mapping[str, Part] | None = None,
) -> Ann:
    """Read the network that `model` names.

    Args:
        model: an ONNX file, an exported program (.pt2), a file of weights (with `arch`), "torchvision:NAME",
            "timm:NAME" (both with random weights), "FILE.py:FACTORY", or "zoo:NAME".
        arch: the architecture of a file of weights, see `build_architecture`.
        input_shape: shape of one sample, batch excluded, for instance (3, 32, 32); ONNX files know their own.
        output_name: which output is the classifier; the first by default.
        arrays: what the data hold by name, for models that do not say what they take.

    Raises:
        ModelFileError: the file is missing, damaged, unsafe or does not fit the architecture.
        OptionError: a needed option is missing, or a name is not known.
        UnsupportedError: the network holds operators without a form in the dialect.
    """
    if model.startswith("zoo:"):
        from snnconvert.data.bundled import model_path

        _refuse_arch(model, arch)
        return _open_onnx(Path(model_path(model.removeprefix("zoo:"))), input_shape, output_name)
    if model.startswith(("torchvision:", "timm:")) or ".py:" in model:
        _refuse_arch(model, arch)
        return _open_named(model, input_shape, output_name, arrays)
    path = Path(model)
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".pt2", *SUFFIXES):
        if path.is_file():
            sniff(path)
        raise OptionError(f"{model!r} is not a model that can be opened: allowed are {ALLOWED}", hint=_hint(suffix))
    sniff(path)
    if suffix == ".onnx":
        _refuse_arch(model, arch)
        return _open_onnx(path, input_shape, output_name)
    if suffix == ".pt2" or (suffix != ".safetensors" and arch is None and is_pt2(path)):
        _refuse_arch(model, arch)
        from snnconvert.convert.pt2_reader import import_pt2

        return choose_named(import_pt2(path), output_name)
    return _open_weights(path, arch, (input_shape, arrays), output_name)


def _open_onnx(path: Path, input_shape: tuple[int, ...] | None, output_name: str | None) -> Ann:
    from snnconvert.convert.onnx_import import import_onnx

    return import_onnx(path, output_name=output_name, input_shape=input_shape)


def import_fitting(
    module: nn.Module,
    shapes: Sequence[tuple[int, ...]],
    arrays: Mapping[str, Part] | None,
    *,
    name: str,
    source: Source | None = None,
) -> Ann:
    """A module brought into the dialect with the first of what its inputs may be that it takes.

    Args:
        shapes: of the only input, the likeliest first.
        arrays: by name, which are its inputs where its `forward` has arguments of these names.

    Raises:
        OptionError: nothing says what it takes.
        DataError, UnsupportedError, ModelFileError, InternalError: as of `import_module`.
    """
    tried: list[tuple[int, ...] | tuple[Part, ...]] = [*_named_inputs(module, arrays or {}), *shapes]
    if not tried:
        _refuse_open(name)
    for shape in tried[:-1]:
        with suppress(DataError):
            return import_module(module, shape, name=name, source=source)
    return import_module(module, tried[-1], name=name, source=source)


def _named_inputs(module: nn.Module, arrays: Mapping[str, Part]) -> Iterator[tuple[Part, ...]]:
    """Arrays that may be the inputs of a module: those of the names of its arguments, whole ones also as real ones."""
    arguments = inspect.signature(module.forward).parameters.values()
    names = [one.name for one in arguments if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    chosen = tuple(arrays[name] for name in itertools.takewhile(arrays.__contains__, names))
    if len(chosen) == 1 and chosen[0].name in IMAGE_KEYS:
        chosen = ()  # images, which have to be arranged first
    if not chosen and any(isinstance(part, nn.Embedding) for part in module.modules()):
        usual = [arrays[name] for name in IMAGE_KEYS if name in arrays]
        chosen = tuple(part for part in usual[:1] if part.whole)
    if chosen:
        yield chosen
    if any(part.whole for part in chosen):
        yield tuple(replace(part, whole=False) for part in chosen)


def _open_named(
    model: str, input_shape: tuple[int, ...] | None, output_name: str | None, arrays: Mapping[str, Part] | None
) -> Ann:
    if not arrays and input_shape is None:
        _refuse_open(model)
    module = build_architecture(model)
    notes = (
        ("random weights",) if model.startswith(("torchvision:", "timm:")) else ("weights as the factory sets them",)
    )
    source = Source(model, model, weights_digest(module), "pytorch", notes)
    shapes = () if input_shape is None else (tuple(input_shape),)
    return choose_named(import_fitting(module, shapes, arrays, name=model, source=source), output_name)


def _open_weights(
    path: Path,
    arch: str | None,
    known: tuple[tuple[int, ...] | None, Mapping[str, Part] | None],
    output_name: str | None,
) -> Ann:
    if arch is None:
        load_weights(path)  # what is no file of weights needs no architecture
        raise OptionError(
            f"{path} holds weights only; the architecture they belong to is needed",
            hint="add --arch FILE.py:FACTORY, --arch torchvision:NAME or --arch timm:NAME",
        )
    input_shape, arrays = known
    if not arrays and input_shape is None:
        _refuse_open(str(path))
    weights = load_weights(path)
    module: nn.Module = build_architecture(arch)
    notes = (f"architecture {arch}", *apply_weights(module, weights, location=str(path)))
    if weights.left_out:
        notes = (*notes, f"objects in the file that are no weights were not read: {listed(weights.left_out, 6)}")
    source = Source(path.name, str(path), sha256_of(path), "pytorch", notes)
    shapes = () if input_shape is None else (tuple(input_shape),)
    return choose_named(import_fitting(module, shapes, arrays, name=path.name, source=source), output_name)


def _refuse_open(model: str) -> NoReturn:
    raise OptionError(
        f"the shape of one input of {model} is not known",
        hint="give the shape without the batch, e.g. --input-shape 3,32,32; convert also takes it from --data, of "
        "several inputs as well: an .npz file with an array for each argument of `forward`, by its name",
    )


def choose_named(ann: Ann, output_name: str | None) -> Ann:
    """The same network with the output of that name alone; None leaves it as it is.

    Raises:
        OptionError: it has no such output.
    """
    if output_name is None:
        return ann
    if output_name not in ann.outputs:
        raise OptionError(
            f"{ann.source.name} has no output {output_name!r}", hint=f"its outputs are {', '.join(ann.outputs)}"
        )
    return choose_output(ann, output_name)


def _refuse_arch(model: str, arch: str | None) -> None:
    if arch is not None:
        raise OptionError(
            f"{model} brings its own architecture, so --arch {arch} cannot be used with it",
            hint="leave --arch away, or give a file of weights",
        )


def _hint(suffix: str) -> str:
    if suffix in (".h5", ".keras", ".tflite", ".pb"):
        return "export the Keras or TensorFlow model to ONNX with tf2onnx, and give the .onnx file"
    if suffix == ".snn":
        return "this is a spiking network already: use it where a converted network is asked for"
    return "name a file by its path, or a model by its prefix, for instance torchvision:resnet18"
