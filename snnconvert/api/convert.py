"""`convert_model`: a conversion from Python, with arguments of whatever kind is at hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from snnconvert.api.conversion import Conversion, Order, converted, converted_in_fewest_steps, missed
from snnconvert.api.network import check_device
from snnconvert.calibrate import METHODS, check_options
from snnconvert.cost.chip import load_target
from snnconvert.cost.energy_constants import load_constants
from snnconvert.data.memory import Memory, raw_in_memory
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import OptionError, SnnConvertError, did_you_mean
from snnconvert.gates.limits import Judging, gates_of
from snnconvert.options import AUTO, Declared, declared
from snnconvert.pipeline import Request
from snnconvert.progress import Progress, bars, silent

_OWN = ("model", "options", "preprocessing", "data", "calibration_data")


def convert_model(
    model: str | Path | nn.Module,
    *,
    data: Any = None,
    calibration_data: Any = None,
    timesteps: int | str = Request.timesteps,
    progress: bool | Progress = False,
    **options: Any,
) -> Conversion:
    """Convert a trained network into a spiking one, and measure both.

    Args:
        model: a file or name as on the command line (.onnx, .pt2, weights with `arch`, "torchvision:NAME", "timm:NAME",
            "zoo:NAME"), a `pathlib.Path`, or a `torch.nn.Module`, which is copied and never changed.
        data: what to evaluate on: a path as on the command line; an array or tensor x of shape (n, *sample); a pair
            (x, y) or a mapping with these keys, y being whole numbers (n,); a torch `Dataset` of samples or pairs; or a
            `DataLoader`. Real numbers are taken as the network's inputs unless `mean`, `std` or `scale` say otherwise;
            uint8 images are divided by 255. A loader that shuffles is read in the order of its data set.
        calibration_data: what to calibrate on, in the same forms; no labels are needed. Without it samples are drawn
            from `data` and left out of the evaluation.
        timesteps: T, the total number of steps, or "auto" for the smallest that meets `max_drop` or `min_accuracy`.
        progress: True shows bars on stderr; a function is called with (what, done, total).
        options: every other option of `snnconvert convert` by its name, for instance `neuron`, `schedule`, `limit`,
            `calibration`, `precision`, `input_shape` (of a module without data), `seed`; of the preprocessing `mean`,
            `std`, `scale`, `layout`, `channels`, `resize`, `crop`; of the gates `max_drop`, `min_accuracy` and the
            others; and the options of the calibration method, for instance `percentile` with
            `calibration="percentile"`.

    Returns:
        The conversion: the spiking network, how it did, and the report.

    Raises:
        OptionError: an unknown argument, or a value that it does not take.
        DataError: data that cannot be read, or do not fit the model.
        ModelFileError: a model that is missing, damaged or unsafe.
        UnsupportedError: a model with operators that have no form here, or nothing that could spike.
        GateError: a gate was missed; its `conversion` holds what was made.

    Examples:
        >>> import numpy as np, torch, snnconvert
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(),
        ...                           torch.nn.Linear(32, 10))
        >>> x = np.random.default_rng(0).random((200, 1, 8, 8), np.float32)
        >>> y = net(torch.from_numpy(x)).argmax(1).numpy()
        >>> conversion = snnconvert.convert_model(net, data=(x, y), timesteps=16, calibration="mse", neuron="ternary")
        >>> conversion.ann_accuracy
        100.0
        >>> conversion.snn(x[:3]).shape
        (3, 10)
        >>> snnconvert.convert_model(net, data=(x, y), timestep=16)
        Traceback (most recent call last):
        snnconvert.errors.OptionError: convert_model has no argument 'timestep'
    """
    given = {"data": data, "calibration_data": calibration_data, "timesteps": timesteps, **options}
    try:
        return _convert(model, given, progress)
    except SnnConvertError as error:
        raise in_python(error) from error.__cause__


def _convert(model: Any, given: dict[str, Any], progress: bool | Progress) -> Conversion:
    label, memory = _model(model)
    said = _said(model, given)
    sets: dict[str, Any] = {}
    named: dict[str, str | None] = {}
    for name in ("data", "calibration_data"):
        value = given.pop(name, None)
        if value is None or isinstance(value, (str, Path)):
            named[name] = None if value is None else str(value)
        else:
            sets[name], named[name] = raw_in_memory(value, name)
    wanted = given.get("timesteps") == AUTO
    judging, asked = _sorted(given)
    request = Request(label, **{name: value for name, value in {**named, **asked}.items() if value is not None})
    check_device(request.device)
    if request.energy_constants is not None:
        load_constants(request.energy_constants)
    if request.target is not None:
        load_target(request.target)
    order = Order(
        request,
        gates_of(judging),
        memory=replace(memory, **sets),
        command_line=said,
        progress=bars if progress is True else lambda: nullcontext(progress or silent),
    )
    made = converted_in_fewest_steps(order) if wanted else converted(order)
    if made.failed:
        raise missed(made)
    return made


def _model(model: Any) -> tuple[str, Memory]:
    """What a request calls the model, and the module if it is one.

    Raises:
        OptionError: it is neither a name nor a module; with what to do instead.
    """
    if isinstance(model, nn.Module):
        return type(model).__name__, Memory(module=model)
    if isinstance(model, (str, Path)) and str(model):
        return str(model), Memory()
    kind = type(model).__name__
    hint = 'give a path or name such as "model.onnx", or a torch.nn.Module'
    if isinstance(model, type) and issubclass(model, nn.Module):
        kind, hint = f"the class {model.__name__}", f"give an instance, with its weights: {model.__name__}(...)"
    elif isinstance(model, Mapping):
        kind, hint = "a mapping", "build the module, call its load_state_dict, and give the module"
    elif kind == "ModelProto":
        hint = 'save it first: onnx.save(model, "model.onnx"), and give the path'
    elif kind == "ExportedProgram":
        hint = 'save it first: torch.export.save(model, "model.pt2"), and give the path'
    raise OptionError(f"the model is {kind}, which cannot be converted", hint=hint)


def _sorted(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments as options of the gates, and as fields of a request.

    Raises:
        OptionError: an argument that nobody knows, or a value that it does not take.
    """
    requested, gating, preparing = (declared(holder) for holder in (Request, Judging, Preprocessing))
    judging: dict[str, Any] = {}
    asked: dict[str, Any] = {}
    prepared: dict[str, Any] = {}
    method = _method(given)
    own = {key: row for row in method.values() for key in (row.key, row.name)}
    options = dict(given.get("options") or {})
    for name, value in given.items():
        if value is None:
            continue
        if name in requested and name not in _OWN:
            asked[name] = _value(requested[name], value)
        elif name in gating:
            judging[name] = _value(gating[name], value)
        elif name in preparing:
            prepared[name] = _plain(value)
        elif name in own:
            options[own[name].key] = _value(own[name], value)
        elif name not in _OWN:
            raise _unknown(name, given, {**requested, **gating, **preparing, **method})
    asked["options"] = options or None
    asked["preprocessing"] = _preprocessing(given.get("preprocessing"), prepared)
    return {name: value for name, value in judging.items() if value is not None and value is not False}, asked


def _method(given: Mapping[str, Any]) -> dict[str, Declared]:
    """The options of the calibration method that is asked for."""
    name = given.get("calibration") or Request.calibration
    return METHODS[name].rows if isinstance(name, str) and name in METHODS else {}


def _unknown(name: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> OptionError:
    """That there is no such argument; of another method's options, whose they are."""
    method = given.get("calibration") or Request.calibration
    if any(name in row.rows for row in METHODS.values()) and method in METHODS:
        try:
            check_options(method, {name: given[name]})
        except OptionError as error:
            return error
    near = did_you_mean(name, tuple(known))
    names = ", ".join(key for key in known if key not in ("model", "options"))
    return OptionError(f"convert_model has no argument {name!r}", hint=near or f"there are {names}")


def _value(row: Declared, value: Any) -> Any:
    """A value as its option takes it; the word auto as on the command line, one item for a list of one.

    Raises:
        OptionError: as of `Declared.value`.
    """
    if isinstance(value, str) and value == AUTO and "convert" in row.option.auto:
        return AUTO if row.name != "timesteps" and not row.optional else None
    value = _plain(value)
    if row.option.read is None and row.listed and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        value = (value,)
    return row.value(value)


def _plain(value: Any) -> Any:
    """Arrays and tensors as lists and numbers."""
    return value.tolist() if hasattr(value, "tolist") else value


def _preprocessing(given: Any, parts: Mapping[str, Any]) -> Preprocessing | None:
    if given is not None and parts:
        raise OptionError(
            f"preprocessing and {next(iter(parts))} were both given", hint="put everything in one of the two"
        )
    if isinstance(given, (str, Path)):
        return Preprocessing.from_toml(given)
    if isinstance(given, Mapping):
        return Preprocessing.from_dict(given)
    if given is not None and not isinstance(given, Preprocessing):
        hint = "give Preprocessing(...), a dict, or the path of a .toml file"
        raise OptionError(f"preprocessing is {type(given).__name__}", hint=hint)
    return given if given is not None else Preprocessing.from_dict(parts) if parts else None


def _said(model: Any, given: Mapping[str, Any]) -> str:
    """The call in words, for the report."""
    plain = (str, int, float, bool, tuple, list, Path)
    shown = {
        name: repr(str(value) if isinstance(value, Path) else value)
        if isinstance(value, plain) and len(repr(value)) < 60
        else f"<{type(value).__name__}>"
        for name, value in given.items()
        if value is not None
    }
    first = repr(str(model)) if isinstance(model, (str, Path)) else f"<{type(model).__name__}>"
    return f"snnconvert.convert_model({', '.join([first, *(f'{name}={text}' for name, text in shown.items())])})"


_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")


def in_python(error: SnnConvertError) -> SnnConvertError:
    """An error whose options are called as in Python: timesteps instead of --timesteps; whole commands stay."""
    rows = [row for holder in (Request, Judging, Preprocessing) for row in declared(holder).values()]
    names = {row.flag.lstrip("-"): row.name for row in rows}

    def spelled(text: str) -> str:
        if "snnconvert " in text:
            return text
        return _FLAG.sub(lambda found: names.get(found[1], found[1].replace("-", "_")), text)

    error.message, error.hint = spelled(error.message), spelled(error.hint)
    error.causes = tuple(map(spelled, error.causes))
    error.args = (error.message,)
    return error
