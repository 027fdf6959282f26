"""Convert trained neural networks into spiking neural networks.

    import snnconvert

    conversion = snnconvert.convert_model("model.onnx", data="test.npz", timesteps=32)
    print(conversion.accuracy, conversion.ann_accuracy)
    conversion.snn(x)               # the spiking network, called like the original
    conversion.save("model.snn")    # the checkpoint, and the report beside it

Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snnconvert.errors import (
    DataError,
    GateError,
    ModelFileError,
    OptionError,
    OutputError,
    SnnConvertError,
    UnsupportedError,
)
from snnconvert.threads import wait_quietly

wait_quietly()  # torch must not be loaded yet

if TYPE_CHECKING:
    from snnconvert.api.conversion import Conversion, Curve
    from snnconvert.api.convert import convert_model
    from snnconvert.api.files import save
    from snnconvert.api.finetune import finetune
    from snnconvert.api.network import SpikingNetwork, load
    from snnconvert.api.over_time import Simulated
    from snnconvert.calibrate import register_calibration
    from snnconvert.calibrate.task import Task
    from snnconvert.data.datasets import Dataset, load_dataset
    from snnconvert.data.preprocessing import Preprocessing
    from snnconvert.exporters.export import Exported, export
    from snnconvert.neurons import NeuronModel, State, register_neuron

__all__ = [
    "Conversion",
    "Curve",
    "DataError",
    "Dataset",
    "Exported",
    "GateError",
    "ModelFileError",
    "NeuronModel",
    "OptionError",
    "OutputError",
    "Preprocessing",
    "Simulated",
    "SnnConvertError",
    "SpikingNetwork",
    "State",
    "Task",
    "UnsupportedError",
    "convert_model",
    "export",
    "finetune",
    "load",
    "load_dataset",
    "register_calibration",
    "register_neuron",
    "save",
]

_HOMES = {
    "Conversion": "api.conversion",
    "Curve": "api.conversion",
    "Dataset": "data.datasets",
    "Exported": "exporters.export",
    "NeuronModel": "neurons",
    "Preprocessing": "data.preprocessing",
    "Simulated": "api.over_time",
    "SpikingNetwork": "api.network",
    "State": "neurons",
    "Task": "calibrate.task",
    "convert_model": "api.convert",
    "export": "exporters.export",
    "finetune": "api.finetune",
    "load": "api.network",
    "load_dataset": "data.datasets",
    "register_calibration": "calibrate",
    "register_neuron": "neurons",
    "save": "api.files",
}
# names of earlier versions: where they are now, and what to use instead
_FORMER = {
    "Ann": ("graph.types", "Conversion.ann"),
    "FitCurve": ("simulate.measure", "Conversion.curve"),
    "LayerEngine": ("simulate.layer_engine", "SpikingNetwork.simulate"),
    "Outcome": ("pipeline", "Conversion"),
    "Request": ("pipeline", "the arguments of convert_model"),
    "Snn": ("graph.types", "SpikingNetwork"),
    "load_snn": ("api.network:load", "load"),
    "run": ("pipeline", "convert_model"),
    "save_snn": ("api.files", "save"),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _FORMER:
        import warnings

        home, instead = _FORMER[name]
        warnings.warn(f"snnconvert.{name} is deprecated: use {instead}", DeprecationWarning, stacklevel=2)
        module, _, now = home.partition(":")
        return getattr(import_module(f"snnconvert.{module}"), now or name)
    if name not in _HOMES:
        raise AttributeError(f"module 'snnconvert' has no attribute {name!r}")
    return getattr(import_module(f"snnconvert.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
