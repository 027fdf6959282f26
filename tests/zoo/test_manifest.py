"""Manifests: inheritance, messages with line and key, downloads, and the starter that guesses."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_zoo import write_folder, write_onnx
from typer.testing import CliRunner

from snnconvert.cli.zoo import zoo_app
from snnconvert.convert.doors import open_model
from snnconvert.errors import DataError, ModelFileError, OptionError
from snnconvert.zoo import fetch
from snnconvert.zoo.limits import Limits, parse_bytes
from snnconvert.zoo.manifest import load_manifest
from snnconvert.zoo.starter import starter_manifest
from snnconvert.zoo.toml_lines import line_index

FULL = """
[defaults]
timesteps = 16
gates = { max_drop = 1.0, min_accuracy = 50 }
limits = { seconds = 60 }

[set.grey]
data = "${FOLDER:-data}/test.npz"
preprocessing = { scale = 16, layout = "NCHW" }

[[model]]
source = "nets/first.onnx"
set = "grey"
gates = { max_drop = 2.0 }
limits = { memory = "1.5 GiB" }

[[model]]
name = "second"
source = "zoo:digits-cnn"
timesteps = 8
input_shape = [1, 8, 8]

[[model]]
glob = "many/*.onnx"
set = "grey"
"""


def manifest(folder: Path, text: str) -> Path:
    path = folder / "zoo.toml"
    path.write_text(text)
    return path


def test_inheritance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "many").mkdir()
    for name in ("b", "a"):
        (tmp_path / "many" / f"{name}.onnx").touch()
    monkeypatch.setenv("FOLDER", "elsewhere")
    first, second, third, fourth = load_manifest(manifest(tmp_path, FULL)).entries
    assert [first.name, second.name, third.name, fourth.name] == ["first", "second", "a", "b"]
    assert first.options["data"] == "elsewhere/test.npz"
    assert first.options["preprocessing"].scale == 16
    assert (first.gates.max_drop, first.gates.min_accuracy) == (2.0, 50)
    assert first.limits == Limits(60.0, int(1.5 * 2**30))
    assert second.options == {"timesteps": 8, "input_shape": (1, 8, 8)}
    assert (second.gates.max_drop, second.limits.memory) == (1.0, None)
    assert third.source == "many/a.onnx"
    assert third.options["timesteps"] == 16


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[[model]]\nsource = 3", 2, "model.source: 3 is no text"),
        ('[[model]]\n\nsource = "a.onnx"\ntimestep = 3', 4, "model.timestep: unknown key; allowed: name, source"),
        ('[[model]]\nsource = "a.onnx"\ntimesteps = "3"', 3, "model.timesteps: --timesteps '3' is not a whole number"),
        (
            '[[model]]\nsource = "a.onnx"\ntimesteps = 0',
            3,
            "model.timesteps: --timesteps 0 is not a whole number from 1 to 65536",
        ),
        ('[[model]]\nsource = "a.onnx"\nneuron = "lif"', 3, "--neuron 'lif' is not known"),
        ('[[model]]\nsource = "a.onnx"\ninput_shape = [1, "x"]', 3, "a list of whole numbers"),
        ('[[model]]\nname = "x"', 1, "exactly one of source and glob"),
        ('[[model]]\nsource = "a.onnx"\nglob = "*"', 1, "exactly one of source and glob"),
        ('[[model]]\nglob = "*.onnx"', 2, "no file matches"),
        ('[[model]]\nsource = "a.onnx"\nset = "s"', 3, "there is no [set.s]"),
        (
            '[[model]]\nsource = "a.onnx"\n[[model]]\nsource = "b/a.onnx"',
            3,
            "also the name of a.onnx in zoo.toml, line 1",
        ),
        ('[[model]]\nsource = "a.onnx"\nname = "../up"', 3, "is no file name"),
        ('[[model]]\nsource = "https://h/a.onnx"', 2, "a download needs its sha256"),
        ('[[model]]\nsource = "http://h/a.onnx"\nsha256 = "0"', 2, "tampered with"),
        ('[[model]]\nsource = "a.onnx"\nsha256 = "abc"', 3, "is no SHA-256"),
        ('[[model]]\nsource = "a.onnx"\ngates = { max_drip = 1 }', 3, "unknown gate 'max_drip'"),
        ('[[model]]\nsource = "a.onnx"\n[model.gates]\nfail_if = ["x > 1"]', 4, "'x' is not a name"),
        ('[[model]]\nsource = "a.onnx"\nlimits = { memory = "lots" }', 3, "memory is 'lots'"),
        ('[[model]]\nsource = "a.onnx"\nlimits = { second = 1 }', 3, "unknown limit 'second'"),
        ('[[model]]\nsource = "a.onnx"\nlimits = 3', 3, "3 is no table"),
        ('[[model]]\nsource = "a.onnx"\ngates = 3', 3, "3 is no table"),
        ('[[model]]\nsource = "a.onnx"\n[model.options]\n\nrounds = "x"', 5, "options.rounds 'x' is not"),
        ('[[model]]\nsource = "a.onnx"\npreprocessing = { mena = 1 }', 3, "unknown preprocessing key 'mena'"),
        ('[[model]]\nsource = "a.onnx"\n\ndata = "${NO_SUCH_VARIABLE}/x"', 4, "NO_SUCH_VARIABLE is not set"),
        ('[default]\ntimesteps = 3\n[[model]]\nsource = "a.onnx"', 1, "unknown table"),
        (
            '[defaults]\n\nwait = 0\n[[model]]\nsource = "a.onnx"',
            3,
            "defaults.wait: --wait 0 is not a whole number from 1",
        ),
        (
            '[set.s]\nneuron = "x"\n[[model]]\nset = "s"\nsource = "a.onnx"',
            2,
            "set.s.neuron: --neuron 'x' is not known",
        ),
        ('[[model]]\nsource = "a.onnx"\ntimesteps = 8\ngates = { at = 9 }', 4, "judge at step 9, but there are only 8"),
        ("model = 3", 1, "not a list of tables"),
        ('[model]\nsource = "a.onnx"', 1, "not a list of tables"),
        ('[[model]]\nsource = "ftp://h/a.onnx"', 2, "ftp://h/a.onnx cannot be downloaded"),
        ('[[model]]\nsource = "HTTPS://h/a.onnx"', 2, "cannot be downloaded"),
        ('[[model]]\nsource = "a\\u0000.onnx"', 2, "a character that no name may have"),
        ('[[model]]\nsource = "a.onnx"\ninput_shape = [true]', 3, "a list of whole numbers"),
        ('[[model]]\nsource = "a.onnx"\nlimits = { seconds = inf }', 3, "seconds is inf; allowed: a number above 0"),
        (f'[[model]]\nsource = "{"a" * 201}.onnx"', 1, "is longer than 200 characters"),
        ("[defaults]\ntimesteps = 3", 1, "there are no models"),
        ('[defaults]\nname = "x"\n[[model]]\nsource = "a"', 2, "defaults.name: unknown key"),
    ],
)
def test_messages_name_line_and_key(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        load_manifest(manifest(tmp_path, text))
    assert f"zoo.toml, line {line}: " in caught.value.message
    assert words in caught.value.message
    assert caught.value.hint


def test_hints(tmp_path: Path) -> None:
    for text, hint in (
        ('[[model]]\nsource = "a.onnx"\ntimestep = 3', "did you mean timesteps?"),
        ('[[model]]\nglob = "*/a.onnx"', 'with source = "FILE" and name = "..."'),
    ):
        for folder in ("x", "y"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / "a.onnx").touch()
        with pytest.raises(OptionError) as caught:
            load_manifest(manifest(tmp_path, text))
        assert hint in caught.value.hint
    with pytest.raises(OptionError) as caught:
        load_manifest(tmp_path)
    assert caught.value.hint == "name the zoo.toml in it"


def test_a_broken_link_of_a_glob_is_a_model_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "good.onnx").write_bytes(b"model")
    (tmp_path / "gone.onnx").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.onnx").mkdir()
    manifest = tmp_path / "zoo.toml"
    manifest.write_text('[[model]]\nglob = "*.onnx"')
    assert [entry.name for entry in load_manifest(manifest).entries] == ["gone", "good"]


def test_no_toml_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="not valid TOML"):
        load_manifest(manifest(tmp_path, "[[model"))
    with pytest.raises(OptionError, match="cannot be read"):
        load_manifest(tmp_path / "none.toml")


def test_lines_of_nested_tables_and_long_texts() -> None:
    text = '[a]\nb.c = 1\n[[m]]\nx = """\ny = 3\n"""\nz = 1\n[m.g]\nq = 1\n[[m]]\nx = 2\n[m.g]\nq = 2'
    lines = line_index(text)
    assert lines[("a", "b", "c")] == 2
    assert ("m", 0, "y") not in lines
    assert (lines[("m", 0, "z")], lines[("m", 0, "g", "q")], lines[("m", 1, "g", "q")]) == (7, 9, 13)


def test_only(tmp_path: Path) -> None:
    text = "".join(f'[[model]]\nsource = "{name}.onnx"\n' for name in ("a1", "a2", "b"))
    found = load_manifest(manifest(tmp_path, text))
    assert [entry.name for entry in found.only(("a*",)).entries] == ["a1", "a2"]
    with pytest.raises(OptionError, match=r"no model of .* is called 'c'"):
        found.only(("c",))


def test_sizes() -> None:
    assert [parse_bytes(size) for size in (4096, "1KiB", "1.5 MB", "2 gib")] == [4096, 1024, 1500000, 2 << 30]
    for wrong in ("", "x", "0", True, "-1 MB", "3 XB", "9999999999999999 GiB"):
        with pytest.raises(OptionError):
            parse_bytes(wrong)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNNCONVERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.usefixtures("cache")
def test_pull_of_a_file_url(tmp_path: Path) -> None:
    source = tmp_path / "m.onnx"
    source.write_bytes(b"model" * 1000)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(ModelFileError, match="has not been downloaded") as caught:
        fetch.needed(source.as_uri(), digest)
    assert "zoo pull" in caught.value.hint
    path = manifest(tmp_path, f'[[model]]\nsource = "{source.as_uri()}"\nsha256 = "{digest}"\n')
    result = CliRunner().invoke(zoo_app, ["pull", str(path)])
    assert result.exit_code == 0
    assert "m: downloaded" in result.output
    assert fetch.needed(source.as_uri(), digest).read_bytes() == source.read_bytes()
    assert "m: there already" in CliRunner().invoke(zoo_app, ["pull", str(path)]).output
    source.write_bytes(b"other")
    bad = manifest(tmp_path, f'[[model]]\nsource = "{source.as_uri()}"\nsha256 = "{"0" * 64}"\n')
    failed = CliRunner().invoke(zoo_app, ["pull", str(bad)])
    assert failed.exit_code == 4
    assert "the manifest wants 000" in failed.output
    gone = manifest(tmp_path, f'[[model]]\nsource = "{source.as_uri()}x"\nsha256 = "{"1" * 64}"\n')
    failed = CliRunner().invoke(zoo_app, ["pull", str(gone)])
    assert failed.exit_code == 4
    assert f"copy the file (SHA-256 {'1' * 64}) to" in failed.output
    assert not list((tmp_path / "cache").rglob("*.part"))


class _Ranged(http.server.SimpleHTTPRequestHandler):
    """Serves one body, from the asked offset on; the first answer breaks off half-way."""

    body = bytes(range(256)) * 4000
    asked: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(self.body) - start))
        self.end_headers()
        end = len(self.body) if asked else len(self.body) // 2
        self.wfile.write(self.body[start:end])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    _Ranged.asked.clear()
    served = http.server.HTTPServer(("127.0.0.1", 0), partial(_Ranged))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}/m.onnx"
    served.shutdown()
    served.server_close()


@pytest.mark.usefixtures("cache")
def test_a_broken_download_is_taken_up_where_it_stopped(server: str) -> None:
    digest = hashlib.sha256(_Ranged.body).hexdigest()
    with pytest.raises(ModelFileError, match="broke off: 512,000 of 1,024,000 bytes came"):
        fetch.pull(server, digest)
    part = fetch.cached_path(server, digest).with_name("m.onnx.part")
    half = part.stat().st_size
    assert half == len(_Ranged.body) // 2
    assert fetch.pull(server, digest).read_bytes() == _Ranged.body
    assert _Ranged.asked == [None, f"bytes={half}-"]
    assert not part.exists()


def test_starter_guesses_and_says_so(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_onnx(tmp_path / "net.onnx")
    # Labels that the network itself would give, so that there is something to find.
    for name in ("train", "test"):
        images = np.load(tmp_path / f"{name}.npz")["x"]
        logits = open_model(str(tmp_path / "net.onnx")).graph(torch.from_numpy(images[:, None]).float() / 127.5 - 1)[0]
        np.savez(tmp_path / f"{name}.npz", x=images, y=logits.argmax(1).numpy())
    (tmp_path / "weights.pth").write_bytes(b"")
    text, remarks = starter_manifest(tmp_path, tmp_path, {})
    assert {"net.onnx: guessed: data test.npz", "net.onnx: guessed: calibration_data train.npz"} <= set(remarks)
    assert any("guessed: preprocessing -1..1, with which it is right on 100.0 %" in remark for remark in remarks)
    assert '# arch = "FILE.py:FACTORY"' in text
    (entry,) = load_manifest(manifest(tmp_path, text)).entries
    assert entry.source == "net.onnx"
    assert entry.options["calibration_data"] == "train.npz"
    found = entry.options["preprocessing"]
    assert (found.scale, found.mean, found.std) == (255.0, (0.5,), (0.5,))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no models"):
        starter_manifest(tmp_path / "empty", tmp_path, {})


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    write_onnx(tmp_path / "net.onnx")
    assert CliRunner().invoke(zoo_app, ["init", str(tmp_path)]).exit_code == 0
    assert "no data set with images" in (tmp_path / "zoo.toml").read_text()
    assert "exists already" in str(CliRunner().invoke(zoo_app, ["init", str(tmp_path)]).exception)
    assert CliRunner().invoke(zoo_app, ["init", str(tmp_path), "--force"]).exit_code == 0


def test_starter_names_files_and_links_as_they_lie(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "my models", tmp_path / "elsewhere"
    for place in (folder / "a", folder / "b", elsewhere):
        place.mkdir(parents=True)
        write_onnx(place / "net.onnx")
    (folder / 'we"ird\\\n.onnx').symlink_to(elsewhere / "net.onnx")
    done = CliRunner().invoke(zoo_app, ["init", str(folder)])
    assert f"snnconvert zoo check '{folder}/zoo.toml'" in done.output
    found = load_manifest(folder / "zoo.toml").entries
    assert [entry.source for entry in found] == ["a/net.onnx", "b/net.onnx", 'we"ird\\\n.onnx']
    assert [entry.name for entry in found] == ["net", "b_net.onnx", "we_ird"]


def test_check_opens_every_model(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_onnx(tmp_path / "good.onnx")
    write_onnx(tmp_path / "bad.onnx", operator="Hardmax")
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "good.onnx").read_bytes()[:200])
    models = '[[model]]\nglob = "*.onnx"\ndata = "test.npz"\n'
    models += '[[model]]\nname = "lost"\nsource = "good.onnx"\ndata = "x.npz"\n'
    models += f'[[model]]\nname = "other"\nsource = "good.onnx"\nsha256 = "{"0" * 64}"\n'
    models += '[[model]]\nsource = "zoo:digits-cnn"\n'
    result = CliRunner().invoke(zoo_app, ["check", str(manifest(tmp_path, models))])
    assert result.exit_code == 4
    assert "good: good" in result.output
    assert "the_activation" in result.output
    assert "cut: ModelFileError" in result.output
    assert "lost: DataError: the data set x.npz does not exist" in result.output
    assert "other: ModelFileError: good.onnx has SHA-256 " in result.output
    assert "digits-cnn: good" in result.output
    assert "2 of 6 models can be converted" in result.output
    listed = CliRunner().invoke(zoo_app, ["list", str(tmp_path / "zoo.toml")])
    assert "6 models" in listed.output


def test_the_data_packs_manifest_names_files_that_exist(data_pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNCONVERT_DATA", str(data_pack))
    found = load_manifest(Path(__file__).parents[2] / "benchmarks" / "zoo.toml")
    assert len(found.entries) == 28
    for entry in found.entries:
        paths = [entry.source, entry.options["data"], entry.options["calibration_data"]]
        assert all((found.folder / path).exists() for path in paths), entry
        assert entry.gates.min_ann_accuracy is not None
