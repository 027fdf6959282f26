"""What an exporter is given, what it returns, and what a run of the exported thing returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from snnconvert.graph.types import Snn


@dataclass(frozen=True)
class Task:
    """One export.

    Attributes:
        snn: the network as its checkpoint has it.
        path: what to write.
        form: one of the exporter's forms, or empty where it has none.
        options: the exporter's own options, by field of `Export`.
        images: those that were given, (images, *sample); None without data.
    """

    snn: Snn
    path: Path
    form: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    images: Tensor | None = None


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        files: all of them.
        network: exactly the network that they hold: the checkpoint's, or its portable form.
        notes: what its user has to know.
        facts: figures of the export, JSON-able.
        engine: what runs exactly what the files hold, where that is not the layer engine on `network`.
        spiking: whether the files hold a spiking network at all.
    """

    files: tuple[Path, ...]
    network: Snn
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    engine: Reader | None = None
    spiking: bool = True


@dataclass(frozen=True)
class Recording:
    """One batch in the program that reads the export.

    Attributes:
        spikes: units by site: (frames, batch, *sample) as in `simulate.result.Probe`; or (1, batch, *sample), their
            sum over all frames, where single steps cannot be seen; or (1, batch), the units of either sign that all
            neurons sent in all frames. Sites are nodes of `Written.network`; those that the reader does not show are
            left out.
        outputs: running sums of the first output as in `simulate.result.Simulation`, (answers, batch, *sample), or
            (1, batch, *sample), the last answer alone.
    """

    spikes: dict[str, Tensor]
    outputs: Tensor


# runs one batch of inputs, (batch, *sample) float32, from a fresh state
Reader = Callable[[Tensor], Recording]
