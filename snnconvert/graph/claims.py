"""How much memory a call would take, found out before it is made: on tensors that have shapes and no values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from snnconvert.budget import check_claim
from snnconvert.graph.kinds import Conv, Op

BLOCK = 16


def check_module(module: nn.Module, inputs: Sequence[Tensor], where: str, path: str | Path) -> None:
    """Make sure that `inputs`, and what `module` makes of them, are no larger than `path` may ask for.

    Args:
        module: what is called.
        inputs: what it is called with.
        where: the node that asks for it, for messages.

    Raises:
        ClaimError: they are.
    """
    given = sum(value.nbytes for value in inputs)
    made = _bytes(partial(shape_of, module), inputs, {})
    blocks = 0
    if isinstance(module, Conv):
        blocks = _filled_up(given, inputs[0].shape[1]) + _filled_up(made, len(module.weight))
    check_claim(given + made + blocks, f"the result of {where}", path)


def _filled_up(size: int, channels: int) -> int:
    """Bytes of a copy in blocks of sixteen channels, which oneDNN makes; 0 where nothing has to be filled up."""
    return size // channels * (channels + -channels % BLOCK) if channels % BLOCK else 0


def shape_of(module: nn.Module, *inputs: Tensor) -> Tensor:
    """What `module` makes of `inputs`, all of them on the device "meta": a tensor without values.

    Operators that know their shapes say it: called on that device, torch takes a second to load what it needs there.
    """
    known = module.result_shape(*(tuple(value.shape) for value in inputs)) if isinstance(module, Op) else None
    if known is not None:
        return torch.empty(known, dtype=inputs[0].dtype, device="meta")
    own = {name: value.to("meta") for name, value in (*module.named_parameters(), *module.named_buffers())}
    found: Tensor = torch.func.functional_call(module, own, inputs)
    return found


def result_bytes(target: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    """Bytes that an ATen operator makes of its arguments; 0 where that is not known before."""
    made = any(argument.name == "device" for argument in target._schema.arguments)
    return _bytes(target, args, {**kwargs, "device": "meta"} if made else kwargs)


def _bytes(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    def shapeless(value: Any) -> Any:
        return value.to("meta") if isinstance(value, Tensor) else value

    try:
        with torch.no_grad():
            found = function(*pytree.tree_map(shapeless, tuple(args)), **pytree.tree_map(shapeless, kwargs))
    except Exception:  # Arguments that do not fit, of which the call itself will say more; or values decide the shape.
        return 0
    return sum(one.numel() * one.element_size() for one in pytree.tree_leaves(found) if isinstance(one, Tensor))
