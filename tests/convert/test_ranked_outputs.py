"""Outputs that only rank scores: the scores stand for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from snnconvert.convert.pytorch import import_module
from snnconvert.errors import UnsupportedError


class Ranks(nn.Module):
    """Scores, and what `tail` makes of them."""

    def __init__(self, tail: Callable[[Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.tail = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5)), tail

    def forward(self, x: Tensor) -> object:
        return self.tail(self.layers(x))


TAILS: dict[str, tuple[Callable[[Tensor], object], tuple[str, ...]]] = {
    "largest and its place": (lambda scores: scores.softmax(1).max(1), ("output",)),
    "scores as well": (lambda scores: (scores, *scores.max(1)), ("output",)),
    "place alone": (lambda scores: scores.max(1)[1], ("output",)),
    "named": (lambda scores: dict(zip(("best", "class"), scores.max(1), strict=True)), ("best",)),
    "argmax, moved": (lambda scores: scores.argmax(-1, keepdim=True).squeeze(1).int(), ("output",)),
    "the best three": (lambda scores: scores.topk(3), ("output",)),
    "sorted": (lambda scores: scores.sort(1), ("output",)),
    "behind others": (lambda scores: (None, scores.argmax(1), scores), ("output_2",)),
}


@pytest.mark.parametrize("name", TAILS)
def test_scores_stand_for_what_ranks_them(name: str) -> None:
    tail, outputs = TAILS[name]
    module = Ranks(tail).eval()
    ann = import_module(module, (3, 4))
    samples = torch.randn(6, 3, 4)
    assert ann.outputs == outputs
    (found,) = ann.graph(samples)
    with torch.no_grad():
        scores = module.layers(samples)
    assert torch.equal(found.argmax(1), scores.argmax(1))
    assert any("only ranks scores" in note for note in ann.source.notes)


def test_a_largest_score_alone_is_an_output_of_its_own() -> None:
    ann = import_module(Ranks(lambda scores: scores.max(1)[0]).eval(), (3, 4))
    assert ann.graph(torch.randn(2, 3, 4))[0].shape == (2,)
    assert ann.source.notes == ()


def test_an_index_that_the_network_reads_is_refused() -> None:
    with pytest.raises(UnsupportedError) as caught:
        import_module(Ranks(lambda scores: scores * scores.argmax(1)[:, None]).eval(), (3, 4))
    assert "argmax" in caught.value.causes[0]
