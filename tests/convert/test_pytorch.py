"""The PyTorch door: call sites, aliasing, layouts, names and refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnconvert.convert.aten_ops import OPERATORS
from snnconvert.convert.pytorch import import_module, relative_difference, seeded_samples
from snnconvert.errors import DataError, InternalError, ModelFileError, UnsupportedError
from snnconvert.graph import kinds
from snnconvert.graph.dialect import calls, origin_of, sites
from snnconvert.graph.kinds import Role
from snnconvert.graph.types import Ann


class Net(nn.Module):
    """A module with a few layers and a forward function of one's choice."""

    def __init__(self, function: Callable[[Net, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 5)
        self.register_buffer("scale", torch.rand(4, 1, 1))
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


SHAPE = (3, 8, 8)


def imported(function: Callable[[Net, Tensor], Any], shape: tuple[int, ...] = SHAPE) -> Ann:
    net = Net(function).eval()
    ann = import_module(net, shape)
    samples = seeded_samples(5, shape, 9)
    with torch.no_grad():
        assert relative_difference(net(samples.clone()), ann.graph(samples)[0]) < 1e-5
    return ann


def test_every_call_of_a_reused_module_is_a_site() -> None:
    ann = imported(lambda n, x: n.act(n.second(n.act(n.norm(n.second(n.act(n.first(x))))))))
    assert [str(origin_of(node)) for node, _ in sites(ann.graph)] == [
        "act (aten.relu_)",
        "act#2 (aten.relu_)",
        "act#3 (aten.relu_)",
    ]
    assert [origin_of(node).name for node, op in calls(ann.graph) if isinstance(op, kinds.Conv)] == [
        "first",
        "second",
        "second#2",
    ]


def test_functional_calls_bear_the_path_of_their_module() -> None:
    outer = nn.Sequential(Net(lambda n, x: F.relu(n.first(x)) + 1), nn.Flatten())
    ann = import_module(outer, SHAPE)
    assert [origin_of(node).name for node, _ in calls(ann.graph)] == ["0.first", "0.relu", "0.add", "1"]


def test_the_same_value_added_to_itself() -> None:
    ann = imported(lambda n, x: F.relu((y := n.first(x)) + y))
    (add,) = [node for node, op in calls(ann.graph) if isinstance(op, kinds.Add)]
    assert add.args[0] is add.args[1]


def test_option_a_shortcut() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        x = n.act(n.first(x))
        y = F.conv2d(x, n.second.weight.repeat(2, 1, 1, 1), stride=2, padding=1)
        y += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return F.relu(y)

    assert {type(op).__name__ for _, op in calls(imported(forward).graph)} == {"Conv", "Relu", "Slice", "Pad", "Add"}


def test_in_place_operators_change_every_name_of_a_value() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        y = n.first(x)
        kept = n.drop(y)
        F.relu_(y)
        return n.second(kept) + y

    assert len(sites(imported(forward).graph)) == 1


def test_a_copy_is_not_changed_in_place() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        y = n.first(x)
        kept = y.clone()
        y.relu_()
        return n.second(kept) + y

    imported(forward)


def test_pieces_of_a_split_are_apart() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        a, b = n.first(x).chunk(2, 1)
        return torch.cat([a.relu_(), b], 1)

    imported(forward)


def test_in_place_change_under_a_view_is_refused() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        y = n.first(x)
        y[:, :2].relu_()
        return y * 2

    with pytest.raises(UnsupportedError) as caught:
        import_module(Net(forward), SHAPE)
    assert "view" in caught.value.causes[0]


def test_constants_are_folded() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        weight = n.second.weight / n.second.weight.norm() * (n.scale.exp() + 1).reshape(4, 1, 1, 1)
        mask = torch.zeros(8, 8)
        mask[2:4] = 1
        return F.conv2d(n.first(x) * mask, weight, padding=1)

    assert [type(op).__name__ for _, op in calls(imported(forward).graph)] == ["Conv", "Affine", "Conv"]


@pytest.mark.parametrize(
    "forward",
    [
        lambda n, x: n.head(n.first(x).mean((2, 3))),
        lambda n, x: n.head(F.adaptive_avg_pool2d(n.first(x), 1).view(x.size(0), -1)),
        lambda n, x: n.head(n.first(x).flatten(2).permute(2, 0, 1)).transpose(0, 1),
        lambda n, x: n.head(n.first(x).flatten(2).permute(2, 0, 1).reshape(-1, 4)).view(64, -1, 5).permute(1, 2, 0),
        lambda n, x: n.head(n.first(x).permute(0, 2, 3, 1).reshape(-1, 16, 4)).softmax(1).view(x.shape[0], -1),
        lambda n, x: n.first(x).view(-1, 8).add(1).mul(n.scale[:, 0, 0].repeat(2)).view(x.shape[0], 4, 8, 8),
    ],
)
def test_layouts(forward: Callable[[Net, Tensor], Tensor]) -> None:
    imported(forward)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_multi_head_attention(batch_first: bool, masked: bool) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)

        def forward(self, x: Tensor) -> Tensor:
            mask = torch.ones(6, 6, dtype=torch.bool).triu(1) if masked else None
            y = x if batch_first else x.transpose(0, 1)
            y = self.attention(y, y, y, need_weights=masked, attn_mask=mask)[0]
            return y if batch_first else y.transpose(0, 1)

    module = Attention().eval()
    ann = import_module(module, (6, 8))
    samples = seeded_samples(5, (6, 8), 1)
    assert relative_difference(module(samples).detach(), ann.graph(samples)[0]) < 2e-6


def test_the_module_is_left_alone() -> None:
    net = Net(lambda n, x: n.drop(n.norm(n.first(x))))
    before = copy.deepcopy(net.state_dict())
    ann = import_module(net, SHAPE)
    assert net.training
    assert net.norm.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert [type(op).__name__ for _, op in calls(ann.graph)] == ["Conv", "Affine"]


def test_outputs_are_named() -> None:
    net = Net(lambda n, x: {"map": n.first(x), "logits": n.head(n.first(x).mean((2, 3)))})
    ann = import_module(net, SHAPE, name="two heads")
    assert ann.outputs == ("map", "logits")
    assert ann.source.name == "two heads"
    assert [value.shape for value in ann.graph(seeded_samples(1, SHAPE))] == [(1, 4, 8, 8), (1, 5)]
    assert import_module(Net(lambda n, x: (n.first(x), x)), SHAPE).outputs == ("output", "output_1")


def test_limits_of_clips() -> None:
    ann = imported(lambda n, x: F.relu6(n.first(x)) + F.hardtanh(x[:, :1]) + x[:, :1].clamp(min=0))
    assert [type(op).__name__ for _, op in sites(ann.graph)] == ["Clip", "Relu"]
    assert sites(ann.graph)[0][1].arguments() == {"high": 6.0}


def refused(function: Callable[[Net, Tensor], Any]) -> str:
    with pytest.raises(UnsupportedError) as caught:
        import_module(Net(function), SHAPE)
    assert "Traceback" not in caught.value.render()
    return caught.value.render()


def test_every_unsupported_operator_is_listed() -> None:
    text = refused(lambda n, x: torch.cumsum(n.first(x), 1).sort(dim=1)[0].relu() @ torch.linalg.inv(x)[:, :1])
    assert text.startswith("error: 3 operators have no form")
    assert all(name in text for name in ("aten.cumsum", "aten.sort", "aten.linalg_inv"))


def test_control_flow_on_data_is_explained() -> None:
    text = refused(lambda n, x: n.first(x) if x.sum() > 0 else x[:, :1])
    assert "decisions from the values" in text
    assert "test_pytorch.py, line" in text


def test_batch_norm_of_batch_statistics_is_refused() -> None:
    text = refused(lambda n, x: F.batch_norm(n.first(x), None, None, training=True))
    assert "statistics of the batch" in text


@pytest.mark.parametrize(
    "function",
    [
        lambda n, x: n.first(x).mean(0, keepdim=True) + x[:, :1],
        lambda n, x: n.first(x)[:1] + n.first(x),
        lambda n, x: n.first(x).softmax(0),
        lambda n, x: n.first(x).mean(),
        lambda n, x: torch.cat([n.first(x), n.first(x)]),
    ],
)
def test_mixing_samples_is_refused(function: Callable[[Net, Tensor], Any]) -> None:
    assert "batch" in refused(function)


def test_a_fixed_batch_is_refused() -> None:
    assert "fixes the batch size" in refused(lambda n, x: n.first(x).reshape(2, -1))


def test_wrong_shape_and_broken_weights() -> None:
    net = Net(lambda n, x: n.first(x))
    with pytest.raises(DataError, match=r"\(1, 8, 8\)"):
        import_module(net, (1, 8, 8))
    with torch.no_grad():
        net.first.bias[0] = float("inf")
    with pytest.raises(ModelFileError) as caught:
        import_module(net, SHAPE)
    assert caught.value.causes == ("first.bias holds NaN or infinity",)


def test_a_wrong_rule_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "sigmoid", OPERATORS["tanh"])
    net = Net(lambda n, x: F.relu(torch.sigmoid(n.act(n.first(x)))))
    with pytest.raises(InternalError) as caught:
        import_module(net, SHAPE)
    assert "sigmoid (aten.sigmoid)" in caught.value.causes[0]


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: torch.where(x > 0, x, 0.2 * x), "LeakyRelu"),
        (lambda x: torch.where(x > 0, x, 0.0), "Relu"),
        (lambda x: x * (x > 0), "Relu"),
        (lambda x: (x > 0) * x, "Relu"),
        (lambda x: x.mul_(x > 0), "Relu"),
    ],
)
def test_activations_written_with_a_comparison(function: Callable[[Tensor], Tensor], kind: str) -> None:
    ann = imported(lambda n, x: n.second(function(n.first(x))))
    assert [type(op).__name__ for _, op in calls(ann.graph)] == ["Conv", kind, "Conv"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.where(x > 0.1, x, 0.2 * x),
        lambda x: torch.where(x > 0, x + 1, 0.2 * x),
        lambda x: torch.where(x >= 0, x, 0.2 * x + 1),
        lambda x: torch.where(x > 0, 0.2 * x, x),
        lambda x: torch.where(x > 0, x.log(), x),
        lambda x: x * (x < 0),
        lambda x: (2 * x) * (x > 0),
        lambda x: (x > 0) + x,
        lambda x: (x > 0).float() - 1,
        lambda x: ((x > 0) * (x < 0.5)).float(),
        lambda x: x.masked_fill(x > x.mean((2, 3), keepdim=True), 0.0),
    ],
)
def test_other_comparisons_stay_analog(function: Callable[[Tensor], Tensor]) -> None:
    ann = imported(lambda n, x: function(n.act(n.first(x))))
    assert any(op.role == Role.ANALOG for _, op in calls(ann.graph))


def test_a_comparison_is_no_output() -> None:
    assert "output 0 is a comparison of activations" in refused(lambda n, x: n.first(x) > 0)


def counted(n: Net, x: Tensor) -> Tensor:
    n.scale = n.scale * 2
    return n.first(x) * n.scale


def test_tensors_made_on_the_way_may_change_in_place() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        made = torch.zeros(4, 1, 1)
        made += n.scale
        made[1:2].mul_(3)
        copied = n.scale.clone().add_(torch.tensor(0.5))
        return n.act(n.norm(n.first(x))) * made + copied

    imported(forward)


def test_lazy_layers_have_to_run_first() -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    with pytest.raises(ModelFileError, match="lazy layers") as caught:
        import_module(net, SHAPE)
    assert caught.value.causes[0] == "0.weight is uninitialized"
    assert "run the model once" in caught.value.hint
    net(torch.zeros(1, *SHAPE))
    assert import_module(net, SHAPE).input_shape == SHAPE


@pytest.mark.parametrize(
    ("function", "part"),
    [
        (lambda n, x: n.first(x) * torch.rand(1), "random numbers"),
        (lambda n, x: F.dropout(n.first(x)), "training mode"),
        (lambda n, x: n.first(x).half().float(), "rounds activations"),
        (lambda n, x: F.conv2d(x, n.first(x)[0, :3, :3, :3].reshape(1, 3, 3, 3)), "samples must stay independent"),
        (lambda n, x: (n.first(x), torch.ones(2)), "output 1 does not depend"),
        (lambda n, x: n.first(x) * n.scale.add_(1), "it changes 'scale', which the module keeps"),
        (lambda n, x: n.first(x) * n.scale[1:2].mul_(2), "it changes 'scale', which the module keeps"),
        (counted, "it changes 'scale', which the module keeps"),
    ],
)
def test_refusals_say_why(function: Callable[[Net, Tensor], Any], part: str) -> None:
    assert part in refused(function)


def test_weight_norm_is_folded() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
            self.other = nn.utils.spectral_norm(nn.Linear(3, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.other(self.layer(x))

    module = Normed().eval()
    ann = import_module(module, (4,))
    x = seeded_samples(3, (4,))
    assert relative_difference(module(x).detach(), ann.graph(x)[0]) < 2e-6
    assert [type(op).__name__ for _, op in calls(ann.graph)] == ["Linear", "Linear"]


def test_refusals_are_silent(capfd: pytest.CaptureFixture[str]) -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        y = n.first(x)
        while y.norm() > 1:
            y = y / 2
        return y

    assert "decisions" in refused(forward)
    assert capfd.readouterr() == ("", "")
