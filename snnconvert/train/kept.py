"""Where a run is, on the disk, so that it can go on after an interruption of any kind."""

from __future__ import annotations

import pickle
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from snnconvert.errors import OptionError
from snnconvert.files import atomic, is_regular
from snnconvert.train.loop import State


class Kept:
    """Args:
    path: the file; None keeps nothing.
    key: what the run depends on, JSON-able: one of another key is not continued.
    """

    def __init__(self, path: Path | None, key: dict[str, Any]) -> None:
        self.path, self.key = path, key

    def save(self, state: State) -> None:
        """Write it down, whole or not at all."""
        if self.path is not None:
            with atomic(self.path) as temporary:
                torch.save({"key": self.key, "state": vars(state)}, temporary)

    def load(self) -> State | None:
        """What an interrupted run of the same key has left; None where there is nothing.

        Raises:
            OptionError: the file belongs to another run, or is damaged.
        """
        if self.path is None or not is_regular(self.path):
            return None
        try:
            found = torch.load(self.path, weights_only=True)  # tensors and plain values: runs no code
            key, values = found["key"], found["state"]
            state = State(**{one.name: values[one.name] for one in fields(State)})
        except (RuntimeError, pickle.UnpicklingError, LookupError, TypeError, ValueError, EOFError, OSError) as error:
            raise OptionError(
                f"{self.path}, from which training would go on, is damaged: {type(error).__name__}",
                hint=f"remove it to start again: rm {self.path}",
            ) from error
        if differing := [name for name in self.key if key.get(name) != self.key[name]]:
            raise OptionError(
                f"{self.path} is of an interrupted training that differs in {', '.join(differing)}",
                hint=f"repeat its command to go on, or remove it to start again: rm {self.path}",
            )
        return state

    def remove(self) -> None:
        """The run is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def key_of(asked: Any, network: str, images: str) -> dict[str, Any]:
    """What a run depends on: its options, the network that it starts from, and the images."""
    options = {name: value for name, value in asdict(asked).items() if name not in ("evaluation_data", "limit", "data")}
    return {**options, "network": network, "images": images}
