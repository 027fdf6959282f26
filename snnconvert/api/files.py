"""Spiking networks are written to checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snnconvert.errors import OptionError, OutputError
from snnconvert.graph import checkpoint, types


def save(network: Any, path: str | Path, *, original: bool = True) -> Path:
    """Write a checkpoint, whole or not at all; equal networks give equal files.

    Args:
        network: a `SpikingNetwork`, or a `Conversion`, whose `save` writes the report as well.
        path: where to; the name has to end in .snn.
        original: keep the original network in the file, too.

    Returns:
        The path.

    Raises:
        OptionError: no network, or another suffix.
        OutputError: the place cannot be written.

    Examples:
        >>> import snnconvert
        >>> snn = snnconvert.convert_model("zoo:digits-cnn", timesteps=8, calibration="mse", limit=50).snn
        >>> snnconvert.save(snn, "small.snn", original=False).name
        'small.snn'
    """
    found, path = _network_of(network), checkpoint_path(path)
    checkpoint.save_snn(found, path, original=original)
    return path


def save_snn(network: Any, path: str | Path, *, original: bool = True) -> None:
    """`save` as it was called before, which took every suffix."""
    checkpoint.save_snn(_network_of(network), path, original=original)


def _network_of(network: Any) -> types.Snn:
    found = network if isinstance(network, types.Snn) else getattr(network, "snn", None)
    if isinstance(found, types.Snn):
        return found
    raise OptionError(
        f"{type(network).__name__} is no spiking network", hint="give what convert_model or load returned"
    )


def checkpoint_path(path: Any) -> Path:
    """`path`, where a checkpoint may be written.

    Raises:
        OptionError: no path, or another suffix.
        OutputError: its folder is not there.
    """
    check_path(path, "where to save")
    found = Path(path)
    if found.suffix != ".snn":
        raise OptionError(f"{found} does not end in .snn", hint=f"name it {found.stem or 'model'}.snn")
    if not found.parent.is_dir():
        raise OutputError(f"the folder {found.parent} of {found} does not exist", hint="create it first")
    return found


def check_path(path: Any, what: str) -> None:
    """Refuse what is no path.

    Raises:
        OptionError: neither a text nor a `Path`, or one that no file can have.
    """
    if not isinstance(path, (str, Path)) or not str(path) or "\0" in str(path):
        raise OptionError(f"{path!r} is no path of {what}", hint='give a text or a pathlib.Path, e.g. "model.snn"')
