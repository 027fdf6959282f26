"""Training methods: TRAINING_METHODS maps the value of `--method` to a class that changes how a network learns.

The table is light: a method's module, and torch with it, is imported when it is used. The loop (`loop.py`), the network
that learns (`student.py`) and its neurons (`neurons.py`) are the same for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class TrainingMethod:
    """A row of the table.

    Attributes:
        help: what it does, in one line.
        source: where it comes from.
        place: MODULE:CLASS, below `snnconvert.train.methods`.
        options: the options of `FineTuning` that mean something to this method only, or to some methods.
    """

    help: str
    source: str
    place: str
    options: tuple[str, ...] = ()

    def load(self) -> Any:
        """The class, which is one below `train.method.Method`."""
        module, name = self.place.split(":")
        return getattr(import_module(f"snnconvert.train.methods.{module}"), name)


TRAINING_METHODS = {
    "distill": TrainingMethod(
        "the original network's softened answers are learned through time, weights, thresholds and membrane starts",
        "Hinton et al. 2015; backpropagation through time, Neftci et al. 2019",
        "distill:Distill",
    ),
}
