"""Convert trained neural networks into spiking neural networks.

    from snnconvert import convert_model, load_snn, save_snn

    snn = convert_model("model.onnx", timesteps=32, data="test.npz")
    save_snn(snn, "model.snn")

Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snnconvert.errors import SnnConvertError

if TYPE_CHECKING:
    from snnconvert.data.datasets import Dataset, load_dataset
    from snnconvert.data.preprocessing import Preprocessing
    from snnconvert.exporters.export import Exported, export
    from snnconvert.graph.checkpoint import load_snn, save_snn
    from snnconvert.graph.types import Ann, Snn
    from snnconvert.pipeline import Outcome, Request, convert_model, run
    from snnconvert.simulate.layer_engine import LayerEngine
    from snnconvert.simulate.measure import FitCurve

__all__ = [
    "Ann",
    "Dataset",
    "Exported",
    "FitCurve",
    "LayerEngine",
    "Outcome",
    "Preprocessing",
    "Request",
    "Snn",
    "SnnConvertError",
    "convert_model",
    "export",
    "load_dataset",
    "load_snn",
    "run",
    "save_snn",
]

_HOMES = {
    "Ann": "graph.types",
    "Dataset": "data.datasets",
    "Exported": "exporters.export",
    "FitCurve": "simulate.measure",
    "LayerEngine": "simulate.layer_engine",
    "Outcome": "pipeline",
    "Preprocessing": "data.preprocessing",
    "Request": "pipeline",
    "Snn": "graph.types",
    "convert_model": "pipeline",
    "export": "exporters.export",
    "load_dataset": "data.datasets",
    "load_snn": "graph.checkpoint",
    "run": "pipeline",
    "save_snn": "graph.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'snnconvert' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"snnconvert.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
