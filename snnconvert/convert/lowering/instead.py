"""What to write instead of operators that have no form in the dialect: the hint of a refusal."""

from __future__ import annotations

from collections.abc import Iterable

from snnconvert.errors import NodeFault

_SAMPLED = (
    "a grid that is the same for every image is a linear map: use F.interpolate if it resizes, else multiply by its"
    " matrix, x.flatten(2) @ matrix; where the grid depends on the image, convert the networks in front of and behind"
    " it, and sample between them"
)
# by the operator's name in lower case, without namespace and underscores
_INSTEAD = {
    **dict.fromkeys(("gridsample", "gridsampler", "gridsampler2d", "affinegrid", "affinegridgenerator"), _SAMPLED),
    "cumsum": "a sum over all that came before is a matrix product: x @ torch.ones(n, n).triu() over the last axis",
    "wrapwithautocast": "automatic casts round to half precision: export the model without torch.autocast",
}


def instead_of(faults: Iterable[NodeFault], otherwise: str) -> str:
    """The advice for the operators of `faults`, each once; `otherwise` where there is none for one of them."""

    def advice(operator: str) -> str:
        names = operator.replace("_", "").lower().split(".")
        return next((_INSTEAD[name] for name in names if name in _INSTEAD), otherwise)

    return "; ".join(dict.fromkeys(advice(fault.operator) for fault in faults))
