"""wait d: a site takes in d steps before it may send.

E = T - D d frames are sent. A site at depth k integrates in steps [(k-1) d, (k-1) d + E) and emits in [k d, k d + E);
the read-out integrates in [D d, D d + E).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from snnconvert.errors import OptionError
from snnconvert.graph.schedule.base import LateReading


@dataclass(frozen=True)
class Wait(LateReading):
    """Each layer integrates some steps before it may emit.

    Attributes:
        wait: how many.
    """

    kind: ClassVar[str] = "wait"
    label: ClassVar[str] = "wait {wait}"
    remedies: ClassVar[Mapping[str, str]] = {
        "unevenness": "A longer --wait helps: each layer then hears more before it sends, at one more step of latency "
        "per layer for each step of waiting.",
    }

    wait: int = field(default=1, kw_only=True)

    @property
    def delay(self) -> int:
        """The steps that are waited."""
        return self.wait

    def _check(self) -> None:
        super()._check()
        if self.wait < 0:
            raise OptionError(f"--wait {self.wait} is below 0", hint="--wait 1 gives every layer one step to take in")

    def _budget_hint(self) -> str:
        smaller = ", or a smaller --wait" if self.wait > 1 else ""
        return f"use at least -T {self.depth * self.wait + 1}{smaller}"
