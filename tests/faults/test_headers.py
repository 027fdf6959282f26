"""A checkpoint whose header was changed: by an accident it is refused; by hand, under a digest made anew, judged."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from snnconvert import convert_model
from snnconvert.cli.run import info, run
from snnconvert.cli.terminal import Terminal
from snnconvert.errors import ClaimError, ModelFileError, SnnConvertError
from snnconvert.graph.checkpoint import load_snn, save_snn
from tests.faults.documents import places

DATA = {"data": "zoo:digits-cnn", "limit": 10}
WRONG = (
    *(None, True, -1, 0, 3, 10**6, 2**40, 2**70, 1e30, float("nan"), float("inf"), -0.5, "", "x" * 20),
    *("[/red]\x1b[31m", [], [1], [None], [10**9, 10**9], {}, {"a": 1}),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("header") / "net.snn"
    options = {"schedule": "streaming", "calibration": "mse", "calibration_samples": 16, "limit": 10}
    save_snn(convert_model("zoo:digits-cnn", timesteps=4, **options).snn, path)
    return path


def test_one_digit_changed_in_the_header(written: Path, tmp_path: Path) -> None:
    """220 trials, all over the header: not one is run."""
    data = written.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    digits = [place for place in range(8, end) if chr(data[place]).isdigit()]
    draw = random.Random(3)
    for place in draw.sample(digits, 220):
        changed = bytearray(data)
        changed[place] = ord(draw.choice("0123456789".replace(chr(data[place]), "")))
        (tmp_path / "net.snn").write_bytes(changed)
        with pytest.raises(ModelFileError, match=r"net\.snn"):
            load_snn(tmp_path / "net.snn")


def opened(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header without its digest, and the tensors."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["snnconvert"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    header.pop("digest")
    return header, tensors


def sealed(path: Path, header: dict[str, Any], tensors: dict[str, Any]) -> Path:
    """Write a header under a digest of its own."""
    text = json.dumps(header, sort_keys=True)
    seal = hashlib.sha256(text.encode()).hexdigest()
    save_file(tensors, path, metadata={"snnconvert": f'{text[:-1]}, "digest": "{seal}"}}'})
    return path


def test_a_header_may_not_ask_for_more_time_than_its_file_may(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, tensors = opened(written)
    header["schedule"]["timesteps"] = 65_536
    long = sealed(tmp_path / "long.snn", header, tensors)
    assert load_snn(long).schedule.timesteps == 65_536  # a small network may run for long
    monkeypatch.setenv("SNNCONVERT_BUDGET", "4 MiB")
    with pytest.raises(ClaimError, match=r"long\.snn asks for .* its 65,536 time steps"):
        load_snn(long)
    load_snn(written)


def changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with another value at a place; Ellipsis takes the place out."""
    copied = copy.deepcopy(document)
    inside: Any = copied
    for key in path[:-1]:
        inside = inside[key]
    if value is ...:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return copied


@pytest.mark.parametrize("inputs", [0, 2])
def test_a_network_has_one_input(written: Path, tmp_path: Path, inputs: int) -> None:
    header, tensors = opened(written)
    first, *others = header["nodes"]
    header["nodes"] = [] if inputs == 0 else [first, {**first, "name": "another"}, *others]
    with pytest.raises(SnnConvertError) as caught:
        run(sealed(tmp_path / "net.snn", header, tensors), DATA, None, Terminal(quiet=True))
    assert caught.value.exit_code == 2


def test_a_header_edited_by_hand(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It means what it says, or it is refused; `info`, `run` and a compilation for other steps end in no other way."""
    header, tensors = opened(written)
    draw = random.Random(11)
    ways = [way for way in places(header, most=3) if way[0] not in ("schema", "tensors")]
    refused = 0
    for _ in range(80):
        path = sealed(tmp_path / "net.snn", changed(header, draw.choice(ways), draw.choice((*WRONG, ...))), tensors)
        try:
            info(path, Terminal())
            run(path, {**DATA, "timesteps": draw.choice([4, 6])}, None, Terminal(quiet=True))
        except SnnConvertError as error:
            refused += 1
            assert error.exit_code == 2, error.render()
    assert 40 < refused < 80
    capsys.readouterr()


@pytest.mark.parametrize(
    ("way", "value", "said"),
    [
        (("input_shape",), [1, 10**5, 10**5], "asks for"),
        (("schedule", "timesteps"), 10**6, "time steps"),
        (("nodes", 2, "fields", "padding", 1), 10, "shape of conv1"),
        (("nodes", 2, "fields", "padding", 1), 10**6, "the result of conv1"),
        (("nodes", 0, "name"), "graph", "node name 'graph'"),
        (("nodes", 0, "name"), "self", "node name 'self'"),
        (("neuron", "levels"), 2**70, "levels"),
        (("source", "sha256"), 7, "sha256"),
        (("calibrated", "reach", "dense"), "much", "reach"),
        (("evaluation", "correct"), 7, "correct"),
    ],
)
def test_the_place_is_named(written: Path, tmp_path: Path, way: tuple[Any, ...], value: Any, said: str) -> None:
    header, tensors = opened(written)
    path = sealed(tmp_path / "net.snn", changed(header, way, value), tensors)
    with pytest.raises((ModelFileError, ClaimError)) as caught:
        load_snn(path)
    assert said in caught.value.message
    assert "net.snn" in caught.value.message


def same(path: Path, capsys: pytest.CaptureFixture[str], **given: object) -> tuple[bool | None, str]:
    """What `run` says of the figures, as JSON and in words."""
    run(path, {**DATA, **given}, None, Terminal(as_json=True))
    said = capsys.readouterr()
    return json.loads(said.out)["same_as_conversion"], said.err


def test_every_figure_is_compared(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert same(written, capsys) == (True, "")
    snn = load_snn(written)
    spikes = list(snn.evaluation["spikes_per_image"])
    for name, value in (("spikes_per_image", [*spikes[:-1], spikes[-1] + 0.1]), ("samples", 11), ("correct", [9] * 4)):
        save_snn(replace(snn, evaluation={**snn.evaluation, name: value}), tmp_path / "net.snn")
        found, words = same(tmp_path / "net.snn", capsys)
        assert found is False, name
        assert "other figures than when the network was converted" in words
    # of other images, and of a network compiled for other steps, the checkpoint keeps no figures
    assert same(written, capsys, limit=5)[0] is None
    assert same(written, capsys, timesteps=6)[0] is None
