"""Every error that reaches a user, and the exit code it leads to.

SnnConvertError
|-- UserError               exit 2: the input can be mended by the user
|   |-- ModelFileError      missing, truncated, unsafe, or not a model
|   |-- UnsupportedError    a model with nodes that have no spiking form; lists all of them
|   |-- DataError           images, labels or shapes that do not fit
|   |-- ClaimError          a file that asks for more memory than it may
|   |-- OptionError         an option outside its allowed values
|   |   `-- BudgetError     no schedule fits into the number of steps
|   `-- OutputError         a place that cannot be written
|-- GateError               exit 3: the result is fine, but below the asked accuracy
|-- LostError               exit 1: a process that did a part of the work was killed again and again
|-- UnexpectedError         exit 1: our fault; nobody has thought of it
`-- InternalError           exit 1: our fault; a broken invariant
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from snnconvert.printable import lines

__all__ = [
    "BudgetError",
    "ClaimError",
    "DataError",
    "GateError",
    "InternalError",
    "LostError",
    "ModelFileError",
    "NodeFault",
    "OptionError",
    "OutputError",
    "SnnConvertError",
    "UnsupportedError",
    "UserError",
    "listed",
]


class SnnConvertError(Exception):
    """An error with a cause and a way out.

    Args:
        message: what is wrong, naming the file, node or option and the allowed values.
        hint: what to type or change next; always present.
        causes: lines of detail, one per offending item.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str, causes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.causes = causes

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors of worker processes reach whoever started them."""
        return _restored, (type(self), self.message, self.hint, self.causes)

    def render(self) -> str:
        """The text shown on stderr: `error:`, `caused by:` lines, a blank line, `hint:`; all of it can be printed."""
        found = [f"error: {lines(self.message)}"]
        found += [f"  caused by: {lines(cause)}" for cause in self.causes]
        found += ["", f"hint: {lines(self.hint)}"]
        return "\n".join(found)


def _restored(kind: type[SnnConvertError], message: str, hint: str, causes: tuple[str, ...]) -> SnnConvertError:
    error = kind.__new__(kind, message)
    SnnConvertError.__init__(error, message, hint=hint, causes=causes)
    return error


class UserError(SnnConvertError):
    """Something in the input that the user can mend."""

    exit_code = 2


class ModelFileError(UserError):
    """The model file is missing, truncated, unsafe, or not a model."""


@dataclass(frozen=True)
class NodeFault:
    """A node that has no form in the dialect: its name and operator as the source spells them, and why not."""

    name: str
    operator: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.operator}): {self.reason}"


class UnsupportedError(UserError):
    """The model holds nodes that have no form in the dialect.

    Args:
        faults: every such node; `causes` are the same in words, or what else there is to say.
    """

    faults: tuple[NodeFault, ...] = ()

    def __init__(
        self, message: str, *, hint: str, causes: tuple[str, ...] = (), faults: tuple[NodeFault, ...] = ()
    ) -> None:
        super().__init__(message, hint=hint, causes=causes or tuple(map(str, faults)))
        self.faults = faults


class DataError(UserError):
    """Images, labels or shapes that do not fit the model or each other."""


class ClaimError(UserError):
    """A file that asks for more memory than `budget` allows it."""


class OptionError(UserError):
    """An option whose value is outside the allowed ones.

    Args:
        options: the options it is about, by the names of their fields; of a table's key, the way to it.
    """

    options: tuple[str, ...] = ()

    def __init__(self, message: str, *, hint: str, causes: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint, causes=causes)
        self.options = options


class BudgetError(OptionError):
    """More steps are needed than the user allows."""


class OutputError(UserError):
    """An output path that cannot be written: a folder that is not there, a full disk, no permission."""


class GateError(SnnConvertError):
    """The conversion worked, but missed the accuracy asked for.

    Attributes:
        conversion: what `convert_model` made all the same, a `Conversion`; None where nothing fits.
    """

    exit_code = 3
    conversion: Any = None


class LostError(SnnConvertError):
    """A process that did a part of the work was killed, also when it was tried again."""


class InternalError(SnnConvertError):
    """A broken invariant of this package."""

    def __init__(self, message: str, *, causes: tuple[str, ...] = ()) -> None:
        super().__init__(
            message,
            hint="this is a defect of snnconvert: please report it with the command line and the model",
            causes=causes,
        )


class UnexpectedError(SnnConvertError):
    """A failure that nobody has thought of."""

    def __init__(self, text: str) -> None:
        super().__init__(
            "an unexpected failure",
            hint="this is a defect of snnconvert: run again with SNNCONVERT_DEBUG=1 and report what it prints",
            causes=(text,),
        )


def listed(names: Sequence[str], most: int) -> str:
    """The first `most` names in words: "a, b and 3 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def did_you_mean(name: str, known: Sequence[str], *, most: int = 1, cutoff: float = 0.6) -> str:
    """A hint with the `most` nearest of the known names, "did you mean a or b?"; "" where none is near."""
    near = get_close_matches(name, known, n=most, cutoff=cutoff)
    return f"did you mean {' or '.join(near)}?" if near else ""
