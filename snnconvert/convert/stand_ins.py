"""PyTorch's reader of weights, with stand-ins for objects whose classes it does not know to be safe.

Trainers keep options and metrics beside the weights. Such objects are made of a class of ours that holds nothing, so
that no code of the file or of the classes it names runs.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

# tries to pass over objects beside the weights; a file that names so many is no checkpoint
_MOST = 50
_FILLED = (("Can only SETITEM", OrderedDict), ("Can only append", list), ("Can only extend", list))


class _Unread:
    """Stands for an object: made of anything, and holds nothing."""

    holder: type | None = None  # what is made instead, where the file goes on to put items into it

    def __new__(cls, *_: object, **__: object) -> Any:
        return object.__new__(cls) if cls.holder is None else cls.holder()

    def __setstate__(self, state: object) -> None:
        """Forget the state."""


def load(path: Path, unsafe: Callable[[], Iterable[str]], wanted: Callable[[Any], bool]) -> tuple[Any, tuple[str, ...]]:
    """What `path` holds, and the classes of which stand-ins were made.

    Args:
        unsafe: the classes and functions that the file refers to, as far as they are known beforehand.
        wanted: whether a content with stand-ins in it is what is looked for.

    Raises:
        Exception: what torch's reader raised first, where stand-ins do not help.
    """
    known: dict[str, type[_Unread]] = {}
    first: Exception | None = None
    for _ in range(_MOST):
        try:
            content = _loaded(path, known)
        except Exception as error:
            if first is None:
                first, known = error, {name: _stand_in(name) for name in unsafe()}
                if known:
                    continue
            if not _passed_over(str(error), known):
                break
        else:
            if first is not None and not wanted(content):
                break
            return content, tuple(known)
    assert first is not None
    raise first


def _stand_in(name: str) -> type[_Unread]:
    return type(name, (_Unread,), {"__module__": _Unread.__name__})


def _passed_over(reason: str, known: dict[str, type[_Unread]]) -> bool:
    """Whether the object that torch refused for this `reason` can be passed over at another try."""
    _, sign, rest = reason.partition("Unsupported global: GLOBAL ")
    if sign and rest:
        name = rest.split(maxsplit=1)[0]
        new = name not in known
        known[name] = _stand_in(name)
        return new
    kind = known.get(reason.partition(f"<class '{_Unread.__name__}.")[2].partition("'>")[0])
    holder = next((holder for sign, holder in _FILLED if sign in reason), None)
    if kind is None or holder is None or kind.holder is not None:
        return False
    kind.holder = holder
    return True


def _loaded(path: Path, known: Mapping[str, type[_Unread]]) -> Any:
    with warnings.catch_warnings(), torch.serialization.safe_globals([(kind, name) for name, kind in known.items()]):
        warnings.simplefilter("ignore")  # torch remarks on how it reads; what is refused is said elsewhere
        return torch.load(path, map_location="cpu", weights_only=True)
