"""Options: one field is all there is to one; command line, manifest, messages and the table in the docs follow."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from snnconvert.calibrate import METHODS
from snnconvert.cli import main
from snnconvert.cli.options import Chip, Files, command
from snnconvert.cli.table import options_table, with_table
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import OptionError
from snnconvert.gates.limits import Judging
from snnconvert.graph.schedule import SCHEDULES
from snnconvert.neurons import offered
from snnconvert.options import AUTO, declared, option
from snnconvert.request import Request, check_request
from snnconvert.zoo import manifest

PAGE = Path(__file__).parent.parent / "docs" / "options.md"


@dataclass(frozen=True)
class Extended(Request):
    """A request with one more option: nothing but this field is written for it."""

    sparkle: int = option(
        3, "How much it sparkles.", commands=("convert", "zoo run"), panel="Output", short="-s", least=1, most=9
    )


@pytest.mark.parametrize("name", ["convert", "zoo run"])
def test_a_new_option_is_one_field(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app, seen = typer.Typer(rich_markup_mode=None), list[dict[str, Any]]()

    @command(app, name)
    def work(given: Annotated[dict[str, Any], Extended]) -> None:
        seen.append(given)

    model = ["m.onnx"] if name == "convert" else []
    help_text = CliRunner().invoke(app, ["--help-all" if model else "--help"]).output
    assert "-s, --sparkle N" in help_text
    assert "How much it sparkles. [3]" in help_text
    assert CliRunner().invoke(app, [*model, "-s", "4"]).exit_code == 0
    assert seen[-1]["sparkle"] == 4
    refused = CliRunner().invoke(app, [*model, "--sparkle", "10"]).exception
    assert isinstance(refused, OptionError)
    assert refused.message == "--sparkle 10 is not a whole number from 1 to 9"

    monkeypatch.setattr(manifest, "Request", Extended)
    path = tmp_path / "zoo.toml"
    path.write_text('[[model]]\nsource = "m.onnx"\nsparkle = 5\n')
    assert manifest.load_manifest(path).entries[0].options == {"sparkle": 5}
    path.write_text('[[model]]\nsource = "m.onnx"\n\nsparkle = 0\n')
    with pytest.raises(OptionError, match=r"line 4: model\.sparkle: --sparkle 0 is not a whole number from 1 to 9"):
        manifest.load_manifest(path)
    path.write_text('[[model]]\nsource = "m.onnx"\nsparkel = 5\n')
    with pytest.raises(OptionError) as caught:
        manifest.load_manifest(path)
    assert caught.value.hint == "did you mean sparkle?"
    with pytest.raises(OptionError, match="--sparkle 0"):
        check_request(Extended("m.onnx", sparkle=0))

    assert "| `--sparkle`, `-s` | How much it sparkles. | N | 3 |" in options_table(Extended)
    assert "sparkle" not in options_table(Request)


def test_the_docs_have_the_table_of_today() -> None:
    text = PAGE.read_text("utf-8")
    assert with_table(text) == text, "write it anew: make options"


def test_every_field_of_a_request_is_an_option_whose_default_it_takes() -> None:
    rows = declared(Request)
    assert set(rows) == {one.name for one in fields(Request)}
    for row in rows.values():
        assert row.option.help.endswith((".", ")")), row.name
        if row.default is not MISSING and row.option.inside is None:
            assert row.value(row.default) == row.default
    for method, row in METHODS.items():
        assert row.help
        check_request(Request("m", calibration=method, options={key: one.default for key, one in row.rows.items()}))


def test_choices_are_the_rows_of_the_tables() -> None:
    assert set(declared(Request)["calibration"].choices) == set(METHODS)
    assert declared(Request)["neuron"].choices == (*offered(), AUTO)
    assert declared(Request)["schedule"].choices == (*SCHEDULES, AUTO, "auto,ttfs", "auto,serial")


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"timesteps": "8"}, "--timesteps '8' is not a whole number from 1 to 65536", "e.g. --timesteps 32"),
        ({"timesteps": True}, "--timesteps True is not a whole number", "give --timesteps"),
        ({"neuron": "ternery"}, "--neuron 'ternery' is not known; there are if, ternary", "did you mean ternary"),
        ({"limit": 0}, "--limit 0 is not a whole number from 1", "e.g. --limit"),
        ({"early_exit": float("nan")}, "--early-exit nan is not a number above 0, at most 1", "--early-exit 0.99"),
        ({"input_shape": (3, 0)}, r"--input-shape \(3, 0\) is not a list of whole numbers from 1", "3,32,32"),
        ({"strict_spiking": 1}, "--strict-spiking 1 is not true or false", "give --strict-spiking"),
        ({"studies": ("ablaton",)}, "--study 'ablaton' is not known", "did you mean ablation?"),
        ({"options": 3}, "options 3 is not a table", "give options a table"),
        ({"preprocessing": {"mean": 0.5}}, "preprocessing {'mean': 0.5} is no Preprocessing", "give Preprocessing("),
    ],
)
def test_messages_name_the_option_its_value_and_what_is_allowed(
    options: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        check_request(Request("m.onnx", **options))
    assert hint in caught.value.hint
    assert caught.value.options == (next(iter(options)),)


@pytest.mark.parametrize(
    "holder", [Request, Preprocessing, Judging, Files, Chip, *(row.options for row in METHODS.values())]
)
def test_what_is_typed_is_a_value_or_refused_as_such(holder: type) -> None:
    for row in declared(holder).values():
        for name in row.option.commands:
            for text in ("?", "0", "1", "-1", "nan", "1e999", ",", "1,2", "1x2", ""):
                with contextlib.suppress(OptionError):
                    row.typed([text] if row.repeated else text, name)


def test_preprocessing_is_read_from_the_file_that_is_named(tmp_path: Path) -> None:
    app, seen, path = typer.Typer(rich_markup_mode=None), list[dict[str, Any]](), tmp_path / "p.toml"

    @command(app, "convert")
    def work(given: Annotated[dict[str, Any], Request]) -> None:
        seen.append(given)

    path.write_text("mean = 0.5\nscale = 4\n")
    result = CliRunner().invoke(app, ["m.onnx", "--preprocessing", str(path)])
    assert result.exit_code == 0, result.exception
    assert seen[-1]["preprocessing"] == Preprocessing((0.5,), scale=4.0)
    both = CliRunner().invoke(app, ["m.onnx", "--preprocessing", str(path), "--std", "2"]).exception
    assert isinstance(both, OptionError)
    assert both.message == "--preprocessing and --std were both given"


def test_a_checkpoint_is_not_offered_a_choice_that_a_conversion_makes() -> None:
    app = typer.Typer(rich_markup_mode=None)
    command(app, "run")(main.run)
    help_text = " ".join(CliRunner().invoke(app, ["--help"]).output.split())
    assert f"--schedule [{'|'.join(SCHEDULES)}] " in help_text
    assert "--data TEXT" in help_text
    assert "binary files. [required]" in help_text
    refused = CliRunner().invoke(app, ["a.snn", "--schedule", "auto"]).exception
    assert isinstance(refused, OptionError)
    assert refused.message == f"--schedule 'auto' is not known; there are {', '.join(SCHEDULES)}"
    assert refused.hint == f"give --schedule one of {', '.join(SCHEDULES)}"
    assert declared(Request)["schedule"].of("convert").typed(AUTO, "convert") == AUTO
    assert declared(Request)["read_from"].of("convert").typed(AUTO, "convert") is None


def test_methods_are_listed_without_torch() -> None:
    code = (
        "import sys; from snnconvert.calibrate import METHODS; from snnconvert.request import Request\n"
        "assert METHODS['reconstruct'].rows['rounds'].default == 2; assert Request('m').timesteps == 32\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
