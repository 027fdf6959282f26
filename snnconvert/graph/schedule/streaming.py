"""streaming: every site integrates and emits in every step; a spike crosses all layers within its step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from snnconvert.graph.schedule.base import LateReading


@dataclass(frozen=True)
class Streaming(LateReading):
    """Every site integrates and emits in every step."""

    kind: ClassVar[str] = "streaming"
    label: ClassVar[str] = "streaming"
    anytime: ClassVar[bool] = True

    @property
    def delay(self) -> int:
        """None."""
        return 0
