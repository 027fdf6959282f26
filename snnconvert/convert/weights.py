"""Weight files: state dicts of PyTorch and safetensors, read without ever running code from them."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnconvert.budget import check_claim, elements
from snnconvert.convert import stand_ins
from snnconvert.errors import ModelFileError, listed
from snnconvert.files import named_in_utf8, opened

SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".bin", ".safetensors")
_NESTS = (
    *("state_dict", "model_state_dict", "model_state", "state_dict_ema", "ema_state_dict", "model_ema", "ema"),
    *("model", "net", "network", "params", "weights", "module"),
)
_PREFIXES = ("module.", "model.", "_orig_mod.", "net.")
_MOST_LISTED = 12
# What readers of zip archives and of the JSON in them raise on files that are damaged, or made to be.
DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, AssertionError),
    *(RuntimeError, RecursionError, NotImplementedError, MemoryError, struct.error, zlib.error, zipfile.BadZipFile),
)


class Weights(dict[str, Tensor]):
    """Named tensors of a file.

    Attributes:
        left_out: what else the file holds that was not read: whole Python objects, by their classes.
    """

    def __init__(self, tensors: Mapping[str, Tensor], left_out: tuple[str, ...] = ()) -> None:
        super().__init__(tensors)
        self.left_out = left_out


def load_weights(path: str | Path) -> Weights:
    """Named tensors of a .pt, .pth, .th or .safetensors file, on the CPU.

    Checkpoints that nest the weights under `state_dict`, `model`, `net`, `ema` and the like are unwrapped, and the
    prefixes that data-parallel, Lightning or torch.compile put before every name are removed. Objects beside the
    weights (options, metrics) are passed over.

    Raises:
        ModelFileError: the file is missing, empty, cut short, of another kind, would run code, or holds NaN.
    """
    path = Path(path)
    head = sniff(path)
    _check_zip(path, head)
    if looks_like_safetensors(path, head):
        weights = Weights(_without_prefix(_unwrapped(_load_safetensors(path), path)))
    else:
        weights = _load_torch(path, head)
    weights = Weights({name: _plain(name, value, path) for name, value in weights.items()}, weights.left_out)
    faulty = [name for name, value in weights.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if faulty:
        raise ModelFileError(
            f"{path} holds weights that are not finite",
            hint="the training of this network diverged; use an earlier checkpoint",
            causes=_listed([f"{name} holds NaN or infinity" for name in faulty]),
        )
    return weights


def apply_weights(
    module: nn.Module, weights: Mapping[str, Tensor], *, location: str = "the weights file"
) -> tuple[str, ...]:
    """Load `weights` into `module`; every name that it has must be there, with its shape.

    A prefix that all those names bear is passed over (`module.`, `model.`, `backbone.`), and tensors that the module
    has no name for are left alone (counters of averages, weights of the loss).

    Returns:
        Notes: the prefix, and the tensors that were left alone.

    Raises:
        ModelFileError: listing missing and unexpected names and differing shapes.
    """
    wanted = module.state_dict()
    # Files from before PyTorch 0.4.1 have no batch counters; they play no part in eval mode.
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    weights, prefix = _fitted(weights, set(wanted) - optional)
    missing = [name for name in wanted if name not in weights and name not in optional]
    unused = [name for name in weights if name not in wanted]
    causes = []
    for name in missing:
        near = get_close_matches(name, unused, n=1)
        causes.append(f"missing: {name} {tuple(wanted[name].shape)}" + (f" (did you mean {near[0]}?)" if near else ""))
    if missing:
        causes += [f"unexpected: {name} {tuple(weights[name].shape)}" for name in unused]
    causes += [
        f"shape: {name} is {tuple(weights[name].shape)} in the file and {tuple(wanted[name].shape)} in the architecture"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    if causes:
        raise ModelFileError(
            f"{location} does not fit the architecture {type(module).__name__}",
            hint="name the architecture these weights were trained with (--arch), with the same number of classes",
            causes=_listed(causes),
        )
    module.load_state_dict({name: value for name, value in weights.items() if name in wanted}, strict=False)
    notes = [f"the weights are those under {prefix.removesuffix('.')!r}"] if prefix else []
    if unused:
        notes.append(f"not needed by the architecture, and left alone: {listed(unused, _MOST_LISTED)}")
    return tuple(notes)


def sniff(path: Path) -> bytes:
    """The first 512 bytes of `path`.

    Raises:
        ModelFileError: the file cannot be read, is empty, or is a web page or a Git LFS pointer.
    """
    try:
        with opened(path) as file:
            head = file.read(512)
    except IsADirectoryError:
        raise ModelFileError(f"{path} is a folder", hint="give the path of the model file inside it") from None
    except FileNotFoundError:
        if path.parts[:1] in (("http:",), ("https:",)):
            raise ModelFileError(
                "a model is a file on this machine, or a name such as zoo:digits-cnn: no address",
                hint="download the file, and give its path",
            ) from None
        raise ModelFileError(
            f"{path} does not exist", hint=f"files in {path.parent}: {', '.join(similar_names(path)) or 'none'}"
        ) from None
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read: {error.strerror}", hint="name a file that is there and may be read"
        ) from None
    if not head:
        raise ModelFileError(f"{path} is empty", hint="download or save the file again")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ModelFileError(
            f"{path} is a web page, not a model", hint="download the file itself: the link led to a page about it"
        )
    if text.startswith(b"version https://git-lfs"):
        raise ModelFileError(
            f"{path} is a Git LFS pointer, not the model itself", hint="run `git lfs pull` in its repository"
        )
    return head


def similar_names(path: Path) -> list[str]:
    """Up to five files beside `path` whose names resemble it."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())
    except OSError:
        return []
    return get_close_matches(path.name, names, n=5, cutoff=0.4)


def is_pt2(path: Path) -> bool:
    """True for an archive written by torch.export.save."""
    return any(name.endswith("models/model.json") or "serialized_exported_program" in name for name in _members(path))


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except DAMAGE:
        return []


def _check_zip(path: Path, head: bytes) -> None:
    """Members that are unpacked have to fit the budget; PyTorch itself compresses none."""
    if head.startswith(b"PK"):
        with suppress(*DAMAGE), zipfile.ZipFile(path) as archive:
            check_claim(sum(info.file_size for info in archive.infolist()), "its members, unpacked", path)


def _plain(name: str, value: Tensor, path: Path) -> Tensor:
    """`value` as an array of numbers that is all there: sparse ones filled in, floats of 8 bits as float32.

    Raises:
        ModelFileError: it has no values, or no form as an array.
        ClaimError: it has more of them than the file may ask for; a view can repeat a single number at will.
    """
    dtype, kind = str(value.dtype).removeprefix("torch."), str(value.layout).removeprefix("torch.")
    reason = ""
    if value.is_nested:
        reason = "a nested tensor"
    elif value.is_meta:
        reason = "on the device 'meta', so that its values were never stored"
    elif value.is_complex():
        reason = f"of the complex type {dtype}"
    if not reason:
        narrow = value.is_quantized or (value.is_floating_point() and value.element_size() == 1)
        size = (4 if narrow else value.element_size()) * elements(value.shape)
        check_claim(size, f"its tensor {name!r} of shape {tuple(value.shape)}", path)
        try:
            value = value.dequantize() if value.is_quantized else value
            value = value.to_dense() if value.layout != torch.strided else value
            return value.float() if narrow else value
        except (RuntimeError, TypeError, ValueError):
            reason = f"of the type {dtype} in the layout {kind}, which cannot be read as numbers"
    raise ModelFileError(
        f"the tensor {name!r} in {path} is {reason}",
        hint="save plain tensors: {name: value.to_dense().float() for name, value in model.state_dict().items()}",
    )


def looks_like_safetensors(path: Path, head: bytes) -> bool:
    """A little-endian length that fits the file, followed by a JSON object."""
    length = int.from_bytes(head[:8], "little")
    fits = len(head) > 8 and 2 <= length <= path.stat().st_size - 8
    return (fits and head[8:9] == b"{") or path.suffix == ".safetensors"


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with named_in_utf8(path) as name:
            return load_file(name)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise ModelFileError(
            f"{path} is not a readable safetensors file: {error}", hint="download or save the file again"
        ) from None


def _load_torch(path: Path, head: bytes) -> Weights:
    if head.startswith(b"PK"):
        members = _members(path)
        if not members:
            raise ModelFileError(f"{path} is truncated: its zip directory is missing", hint="download it again")
        if is_pt2(path):
            raise ModelFileError(
                f"{path} is an exported program (.pt2), not a file of weights",
                hint="name it with the suffix .pt2 and give it as the model, without an architecture",
            )
        if any("/code/" in name or name.endswith("constants.pkl") for name in members):
            raise ModelFileError(
                f"{path} is a TorchScript archive, which is not supported",
                hint="save the weights with torch.save(model.state_dict(), ...), or export the model to ONNX",
            )
        if not any(name.endswith("data.pkl") for name in members):
            raise ModelFileError(f"{path} is a zip archive, but not one of PyTorch", hint="give the model file itself")
    elif not head.startswith(b"\x80"):
        raise ModelFileError(
            f"{path} is not a PyTorch or safetensors file", hint="expected a file written by torch.save or safetensors"
        )
    try:
        stored, left_out = stand_ins.load(path, lambda: _unsafe_globals(path, head), _holds_tensors)
    except Exception as error:
        raise _load_error(path, head, error) from None
    return Weights(_without_prefix(_unwrapped(stored, path)), left_out)


def _unsafe_globals(path: Path, head: bytes) -> list[str]:
    """The classes and functions that a zip archive refers to and torch does not know to be safe."""
    if not head.startswith(b"PK"):
        return []
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # The scan fails in many ways on damaged files; then there is nothing to list.
        return []


def _holds_tensors(stored: Any) -> bool:
    try:
        return bool(_unwrapped(stored, Path()))
    except ModelFileError:
        return False


def _load_error(path: Path, head: bytes, error: Exception) -> ModelFileError:
    """Our own words: torch's text advises to switch its protection off."""
    globals_, text = _unsafe_globals(path, head), str(error)
    if not globals_ and "Unsupported global: GLOBAL " in text:
        globals_ = [text.split("Unsupported global: GLOBAL ", maxsplit=1)[1].split(maxsplit=1)[0]]
    if globals_:
        return ModelFileError(
            f"{path} contains whole Python objects, not weights alone; loading them would run code from the file",
            hint="if you trust the file, load it in your own script and torch.save(model.state_dict(), 'weights.pt')",
            causes=_listed([f"it refers to {name}" for name in globals_]),
        )
    if isinstance(error, EOFError) or "miniz" in text or "PytorchStreamReader" in text or "unexpected EOF" in text:
        return ModelFileError(f"{path} is truncated or damaged", hint="download or save the file again")
    return ModelFileError(
        f"{path} is not a file of weights that can be read safely",
        hint="save the weights with torch.save(model.state_dict(), ...) or as safetensors",
    )


def _unwrapped(stored: Any, path: Path) -> dict[str, Tensor]:
    seen: set[int] = set()
    while isinstance(stored, Mapping):
        if id(stored) in seen:
            raise ModelFileError(
                f"{path} holds a state dict that contains itself", hint="save the weights alone: model.state_dict()"
            )
        seen.add(id(stored))
        tensors = {str(name): value for name, value in stored.items() if isinstance(value, Tensor)}
        nested = [key for key in _NESTS if isinstance(stored.get(key), Mapping) and stored[key]]
        if nested:
            stored = stored[nested[0]]
            continue
        if not tensors:
            break
        return {name: value.detach() for name, value in tensors.items()}
    keys = ", ".join(str(key) for key in list(stored)[:_MOST_LISTED]) if isinstance(stored, Mapping) else ""
    raise ModelFileError(
        f"{path} holds no named weights: "
        + (f"its keys are {keys or 'none'}" if isinstance(stored, Mapping) else f"it is a {type(stored).__name__}"),
        hint="save the weights with torch.save(model.state_dict(), ...)",
    )


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove prefixes that every name bears. A model whose own attribute has such a name is left to apply_weights."""
    while weights:
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in weights)), None)
        if prefix is None:
            break
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _fitted(weights: Mapping[str, Tensor], needed: set[str]) -> tuple[Mapping[str, Tensor], str]:
    """`weights` by the names of the architecture, and the prefix before them in the file that was passed over.

    All of `needed` are found as they are, else under one prefix (the shortest), else once the architecture's own
    wrapper is put before them; where no way finds all, they are left as they are.
    """
    if needed <= set(weights) or not needed:
        return weights, ""
    one = min(needed)
    before = {name.removesuffix(one) for name in weights if name.endswith(f".{one}")}
    for prefix in sorted(before, key=lambda text: (len(text), text)):
        if all(prefix + name in weights for name in needed):
            inside = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            outside = {name: value for name, value in weights.items() if not name.startswith(prefix)}
            return {**outside, **inside}, prefix
    for prefix in _PREFIXES:
        if needed <= {prefix + name for name in weights}:
            return {prefix + name: value for name, value in weights.items()}, ""
    return weights, ""


def _listed(causes: list[str]) -> tuple[str, ...]:
    rest = len(causes) - _MOST_LISTED
    return tuple(causes[:_MOST_LISTED] + ([f"... and {rest} more"] if rest > 0 else []))
