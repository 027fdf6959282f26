"""Exported programs: read exactly, and never run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnconvert.convert.doors import open_model
from snnconvert.convert.pt2_reader import import_pt2
from snnconvert.convert.pytorch import import_module, relative_difference, seeded_samples
from snnconvert.errors import ClaimError, ModelFileError, OptionError, UnsupportedError
from snnconvert.graph.dialect import calls, origin_of

SHAPE = (3, 8, 8)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding="same")
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 6)
        self.register_buffer("scale", torch.rand(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.act(self.conv(x)) - 0.1) * self.scale
        x += 2
        a, b = self.head(x.flatten(2).transpose(1, 2)).chunk(2, -1)
        y = torch.cat([a, b.clamp(min=0)], -1).reshape(x.shape[0] * 64, -1).view(x.shape[0], 64, 6)
        return y.amax(1) + torch.tensor([1.0, 2.0]).repeat(3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    with torch.no_grad():
        program = torch.export.export(
            Net().eval(), (torch.rand(2, *SHAPE),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False
        )
    torch.export.save(program, path)
    return path


def tampered(source: Path, target: Path, changes: dict[str, Callable[[bytes], bytes]]) -> Path:
    """A copy of the archive in which the members that end with a key of `changes` are changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            for end, change in changes.items():
                data = change(data) if name.endswith(end) else data
            new.writestr(name, data)
    return target


def edited(edit: Callable[[Any], object]) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        content = json.loads(data)
        edit(content)
        return json.dumps(content).encode()

    return change


def test_program_is_read_exactly(saved: Path) -> None:
    ann = open_model(str(saved))
    assert ann.input_shape == SHAPE
    assert ann.source.format == "pt2"
    samples = seeded_samples(5, SHAPE, 3)
    with torch.no_grad():
        assert relative_difference(Net().eval()(samples), ann.graph(samples)[0]) < 1e-6
    names = [origin_of(node).name for node, _ in calls(ann.graph)]
    assert names[:4] == ["conv", "act", "sub", "act#2"]


def test_an_archive_under_another_suffix_is_recognised(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(saved.read_bytes())
    assert open_model(str(path)).input_shape == SHAPE
    with pytest.raises(OptionError, match="architecture"):
        open_model(str(saved), arch="torchvision:resnet18")


def test_code_in_an_expression_is_not_run(saved: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"

    def plant(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: code if key == "expr_str" else plant(item) for key, item in value.items()}
        return [plant(item) for item in value] if isinstance(value, list) else value

    def change(data: bytes) -> bytes:
        planted = json.dumps(plant(json.loads(data)))
        assert "pathlib" in planted
        return planted.encode()

    import_pt2(tampered(saved, tmp_path / "evil.pt2", {"model.json": change}))
    assert not marker.exists()


def _first_tensor(content: Any) -> Any:
    return content["config"]["conv.weight"]


def _set_operator(name: str) -> Callable[[Any], object]:
    return lambda content: content["graph_module"]["graph"]["nodes"][2].update(target=name)


CONFIG = "model_weights_config.json"


@pytest.mark.parametrize(
    ("member", "edit", "part"),
    [
        (CONFIG, lambda c: _first_tensor(c).update(use_pickle=True), "pickle"),
        (CONFIG, lambda c: _first_tensor(c).update(path_name="../../secret"), "strange place"),
        (CONFIG, lambda c: _first_tensor(c)["tensor_meta"]["sizes"][0].update(as_int=400), "outside its data"),
        (CONFIG, lambda c: _first_tensor(c)["tensor_meta"]["strides"][0].update(as_int=10**9), "outside its data"),
        (CONFIG, lambda c: _first_tensor(c)["tensor_meta"]["storage_offset"].update(as_int=-4), "outside its data"),
        (CONFIG, lambda c: _first_tensor(c)["tensor_meta"].update(dtype=99), "element type"),
        (CONFIG, lambda c: c["config"].pop("conv.bias"), "not a well-formed"),
        ("model.json", lambda c: c["schema_version"].update(major=99), "schema 99"),
        ("model.json", lambda c: c.pop("graph_module"), "not a well-formed"),
    ],
)
def test_damage_is_refused(saved: Path, tmp_path: Path, member: str, edit: Callable[[Any], object], part: str) -> None:
    path = tampered(saved, tmp_path / "bad.pt2", {member: edited(edit)})
    with pytest.raises(ModelFileError) as caught:
        import_pt2(path)
    assert part in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    "name", ["torch.ops.aten.from_file.default", "os.system", "torch.ops.prim.device.default", "torch.load"]
)
def test_operators_outside_the_allow_list(saved: Path, tmp_path: Path, name: str) -> None:
    path = tampered(saved, tmp_path / "bad.pt2", {"model.json": edited(_set_operator(name))})
    with pytest.raises(UnsupportedError) as caught:
        import_pt2(path)
    assert name in caught.value.causes[0]


def test_arguments_under_names_that_no_operator_knows(saved: Path, tmp_path: Path) -> None:
    def rename(content: Any) -> None:
        nodes = content["graph_module"]["graph"]["nodes"]
        node = next(node for node in nodes if node["target"].startswith("torch.ops.aten.relu"))
        for given in node["inputs"]:
            given.update(name="nothing", kind=2)  # by keyword

    path = tampered(saved, tmp_path / "named.pt2", {"model.json": edited(rename)})
    with pytest.raises(UnsupportedError) as caught:
        import_pt2(path)
    assert "none of its arguments has a name that it knows" in str(caught.value.causes)


def test_a_program_that_pytorch_itself_refuses(saved: Path, tmp_path: Path) -> None:
    """An argument that the operator has not is no traceback, though the rule for it would do without."""

    def add(content: Any) -> None:
        nodes = content["graph_module"]["graph"]["nodes"]
        node = next(node for node in nodes if node["target"].startswith("torch.ops.aten.relu"))
        node["inputs"].append({"name": "nothing", "arg": {"as_float": 1.0}, "kind": 2})

    path = tampered(saved, tmp_path / "more.pt2", {"model.json": edited(add)})
    with pytest.raises(UnsupportedError, match="PyTorch itself cannot run") as caught:
        import_pt2(path)
    assert "expected at most 1 argument" in caught.value.causes[0]
    assert caught.value.faults[0].operator == "aten.relu"


def test_truncated_and_inflated_archives(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt2"
    path.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match="truncated"):
        import_pt2(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/models/model.json", b" " * 2**25)
    with pytest.raises(ClaimError, match=r"its member net/models/model\.json"):
        import_pt2(path)


class Counted(nn.Module):
    """A network whose answer depends on how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.relu(self.head(x)) * self.calls


def test_changing_buffers_are_refused(tmp_path: Path) -> None:
    program = torch.export.export(Counted().eval(), (torch.rand(2, 8),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(UnsupportedError) as caught:
        import_pt2(tmp_path / "net.pt2")
    assert "it changes 'calls', which the module keeps" in caught.value.causes[0]


class Attention(nn.Module):
    """Tokens of an image, with the shape taken apart by number as transformers do, and one more token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.parts, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 24), nn.Linear(8, 5)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 17, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        batch, channels, height, width = x.shape
        x = torch.cat([self.token.expand(batch, -1, -1), x.flatten(2).transpose(1, 2)], 1) + self.place
        x = x + torch.zeros(batch, 1 + height * width, channels)
        parts = self.parts(x).reshape(batch, 17, 3, 2, 4).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        query, key = nn.functional.normalize(query, dim=-1), nn.functional.normalize(key, dim=-1)
        x = ((query @ key.transpose(-2, -1)).softmax(-1) @ value).transpose(1, 2).reshape(batch, 17, channels)
        return self.head(x[:, 0])


class Patches(nn.Module):
    """The batch wanders: merged with channels and rows, with patches, and back."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mix, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        b, c, h, w = x.shape
        rows, columns = h // 2, w // 2
        x = x.reshape(b * c * rows, 2, columns, 2).transpose(1, 2).reshape(b, c, rows * columns, 4)
        x = self.mix(x.transpose(1, 3).reshape(b * 4, rows * columns, -1)).relu()
        x = x.view(b, 4, rows * columns, -1).transpose(1, 3).reshape(b * c * rows, columns, 2, 2)
        return self.head(x.transpose(1, 2).reshape(b, c, h, w).mean((2, 3)))


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [Attention, Patches])
def test_a_program_of_a_fixed_batch_is_read_for_any(kind: type[nn.Module], batch: int, tmp_path: Path) -> None:
    module = kind().eval()
    with torch.no_grad():
        torch.export.save(torch.export.export(module, (torch.rand(batch, *SHAPE),)), tmp_path / "net.pt2")
    ann = open_model(str(tmp_path / "net.pt2"))
    samples = seeded_samples(5, SHAPE, 3)
    with torch.no_grad():
        assert relative_difference(module(samples), ann.graph(samples)[0]) < 1e-5


class Switched(nn.Module):
    """Automatic casts switched off for a part, and positions that are counted from a mask."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        with torch.autocast("cpu", enabled=False):
            y, z = (x.float() @ x.float().transpose(-1, -2)).relu() / 64, x * 0.5
            with torch.autocast("cpu", enabled=False):
                z = z + 1
        mask = torch.zeros(1, *x.shape[2:]).to(x.device, torch.bool)
        return self.head(((y + z) * (~mask).cumsum(1, dtype=torch.float32)).mean((2, 3)))


@pytest.mark.parametrize("batch", [1, 2, None])
def test_regions_without_automatic_casts(batch: int | None, tmp_path: Path) -> None:
    module, free = Switched().eval(), ({0: torch.export.Dim.DYNAMIC},) if batch is None else None
    with torch.no_grad():
        program = torch.export.export(module, (torch.rand(batch or 2, *SHAPE),), dynamic_shapes=free)
    torch.export.save(program, tmp_path / "net.pt2")
    assert any("autocast" in str(node.target) for node in program.graph.nodes)
    samples = seeded_samples(5, SHAPE, 3)
    with torch.no_grad():
        for ann in (open_model(str(tmp_path / "net.pt2")), import_module(module, SHAPE)):
            assert relative_difference(module(samples), ann.graph(samples)[0]) < 1e-5
