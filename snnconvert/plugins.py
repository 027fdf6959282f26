"""What other installed packages bring: entry points, which `request.py` loads once, for whoever names a row of a table.

A package that cannot be imported is left out; who asks for what it would have brought is told why (`missing`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container
from importlib import import_module
from typing import Any

from snnconvert.errors import OptionError

_failed: dict[tuple[str, str], str] = {}


def named(place: str) -> Any:
    """The object at MODULE:NAME, imported now: tables name what is heavy."""
    module, name = place.split(":")
    return getattr(import_module(module), name)


def load(group: str, add: Callable[[str, Any, str], object]) -> None:
    """Give `add` the name, object and package of every entry point of a group.

    Args:
        group: for instance "snnconvert.neurons".
        add: adds one to a table; raises OptionError where it does not belong there.
    """
    from importlib.metadata import entry_points

    for entry in sorted(entry_points(group=group), key=lambda one: (one.name, one.value)):
        brings = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
        try:
            add(entry.name, entry.load(), brings)
        except OptionError as error:
            reason = error.message
        except Exception as error:  # whatever goes wrong in somebody else's package must not stop this one
            reason = f"{type(error).__name__}: {error}"
        else:
            continue
        _failed[group, entry.name] = f"{brings} brings {entry.name!r}, but it cannot be loaded: {reason}"
        print(f"note: {_failed[group, entry.name]}", file=sys.stderr)


def missing(group: str, name: str) -> str:
    """Why what should have come from another package is not there; empty where none brings it."""
    return _failed.get((group, name), "")


def check_name(name: Any, what: str, own: Container[str]) -> str:
    """A name that something may be registered under.

    Args:
        what: "neuron", for messages.
        own: names of the package itself.

    Raises:
        OptionError: no name as options have them, or one of the package's own.
    """
    fits = isinstance(name, str) and name != "auto" and name.replace("-", "").replace("_", "").isalnum()
    if not fits or name != name.lower() or name.startswith("-"):
        raise OptionError(
            f"{name!r} cannot name a {what}", hint='use small letters, digits, - and _, for instance "my-neuron"'
        )
    if name in own:
        raise OptionError(f"{name!r} is a {what} of snnconvert itself", hint="choose another name")
    return str(name)
