"""Named architectures: a factory in a Python file of the user's, torchvision, timm."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from snnconvert.errors import ModelFileError, OptionError, did_you_mean

ALLOWED = "FILE.py:FACTORY, torchvision:NAME or timm:NAME"
# Kept alive for the life of the process: the operator schemas vanish with the library object.
_SCHEMAS: list[Any] = []


def build_architecture(spec: str) -> nn.Module:
    """The untrained module that `spec` names.

    Args:
        spec: "torchvision:resnet18", "timm:vit_tiny_patch16_224", or "models.py:resnet20", where `resnet20` is a
            function without required arguments, or a class. The last form *runs that Python file*: name only files
            that you trust, as you would with `python models.py`.

    Raises:
        OptionError: the form or the name is not known, or the package is not installed.
        ModelFileError: the file is missing or fails.
    """
    place, _, name = spec.rpartition(":")
    if place == "torchvision" and name:
        return _from_torchvision(name)
    if place == "timm" and name:
        return _from_timm(name)
    if place.endswith(".py") and name:
        return _from_file(Path(place), name)
    raise OptionError(
        f"architecture {spec!r} is not of the form {ALLOWED}", hint="for instance --arch torchvision:resnet18"
    )


def _from_file(path: Path, name: str) -> nn.Module:
    if not path.is_file():
        raise ModelFileError(f"{path} does not exist", hint="give the path of the Python file with the architecture")
    # Classes defined in the file look their module up by name, so it must stay registered.
    module_name = f"snnconvert_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelFileError(
            f"{path} fails when it is run: {type(error).__name__}: {error}",
            hint=f"run it with `python {path}` and mend it",
        ) from None
    finally:
        sys.path.remove(folder)
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise OptionError(f"{path} has no factory {name!r}", hint=_nearest(name, known))
    return _called(factory, f"{path}:{name}")


def _called(factory: Any, spec: str, **options: Any) -> nn.Module:
    try:
        built = factory(**options)
    except Exception as error:
        raise ModelFileError(
            f"{spec} cannot be built: {type(error).__name__}: {error}",
            hint="the factory must work without arguments; wrap it in a function that fills them in",
        ) from None
    if not isinstance(built, nn.Module):
        raise ModelFileError(
            f"{spec} returned a {type(built).__name__}, not a torch.nn.Module", hint="return the model from the factory"
        )
    return built


def _from_torchvision(name: str) -> nn.Module:
    models = _import_torchvision().models
    if name not in models.list_models():
        raise OptionError(f"torchvision has no model {name!r}", hint=_nearest(name, models.list_models()))
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return _called(models.get_model, f"torchvision:{name}", name=name, weights=None, **options)


def _from_timm(name: str) -> nn.Module:
    _import_torchvision()
    timm = _import("timm")
    if not timm.is_model(name):
        raise OptionError(f"timm has no model {name!r}", hint=_nearest(name, timm.list_models()))
    return _called(timm.create_model, f"timm:{name}", model_name=name, pretrained=False)


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name not in (package, "torchvision"):
            raise OptionError(
                f"{package} needs the package {error.name}, which is not installed", hint=f"pip install {error.name}"
            ) from None
        raise OptionError(f"the package {package} is not installed", hint=f"pip install {package}") from None


def _import_torchvision() -> Any:
    """torchvision, also where a wheel for CUDA meets a torch for the CPU and its operators are missing."""
    try:
        return _import("torchvision")
    except RuntimeError as error:
        if torch.version.cuda is not None or "does not exist" not in str(error):
            raise OptionError(
                f"the installed torchvision does not fit torch {torch.__version__}: {error}",
                hint="install the torchvision that belongs to this torch: pytorch.org/get-started/previous-versions",
            ) from None
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    # Only detection models call these operators; naming them is enough for the import to succeed.
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    _SCHEMAS.append(library)
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    return _import("torchvision")


def _nearest(name: str, known: list[str]) -> str:
    return did_you_mean(name, known, most=5, cutoff=0.5) or "known names are " + ", ".join(sorted(known)[:12])
