"""Files that broke the program once, run one by one: `python benchmarks/faults.py FOLDER` prints a table.

FOLDER holds small files, each of which stands for a kind: names, bombs, headers, formats, texts, edited reports. Every
command runs in a watched process (`tests/fuzz`); the table says how it ended, with which message, and what it took.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fuzz"))
from fuzz_campaign import SECONDS, Watched, judged
from fuzz_seeds import write_seeds

REFUSED, WORKS = (2,), (0,)
# the command line, and the exits that are right; {files}: the folder, {good}: valid files
ROWS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("check {files}/in_in.onnx", WORKS),
    ("check {files}/node_graph.onnx", WORKS),
    ("check {files}/kw.py:N --input-shape 4", WORKS),
    ("check {files}/kw.py:f --input-shape 4", WORKS),
    ("check {files}/rich.onnx", WORKS),
    ("check {files}/ansi.onnx", WORKS),
    ("{files}/csvinj.onnx -T 2 --calibration percentile --calibration-samples 4 --csv -o out.snn -q", WORKS),
    ("check {files}/cyclic.pt --arch {good}/arch.py:net --input-shape 1,8,8", REFUSED),
    ("check {files}/cyclic.pt", REFUSED),
    ("check {files}/fn_exp.onnx", REFUSED),
    ("check {files}/concatbomb.onnx", REFUSED),
    ("check {files}/fn_rec.onnx", REFUSED),
    ("check {files}/f8.pt --arch {good}/arch.py:net --input-shape 1,8,8", REFUSED),
    ("check {files}/sparse.pt --arch {good}/arch.py:net --input-shape 1,8,8", REFUSED),
    ("check {files}/st_f8.safetensors --arch {good}/arch.py:net --input-shape 1,8,8", REFUSED),
    ("check {files}/f8.pt", REFUSED),
    ("check {files}/expand33.pt", REFUSED),
    ("check {files}/expand33.pt --arch {good}/arch.py:net --input-shape 1,8,8", REFUSED),
    ("check {files}/ext_zero.onnx", REFUSED),
    ("zoo run {files}/zoo_devzero.toml --out out -q", (4,)),
    ("zoo check {files}/zoo_runs_code.toml", WORKS),
    ("run {good}/model.snn --data {files}/csv_ovf", REFUSED),
    ("run {good}/model.snn --data {files}/thin", REFUSED),
    ("run {good}/model.snn --data {files}/eps", REFUSED),
    ("report {files}/r_nan.json", REFUSED),
    ("report {files}/r_samples0.json --report out.html", REFUSED),
    ("gate {files}/r_samples0.json --max-drop 1", REFUSED),
    ("gate {files}/r_bigint.json --max-drop 1", REFUSED),
    ("run {good}/model.snn --data bomb.npz", REFUSED),
    ("check pipe.onnx", REFUSED),
    ("run {good}/model.snn --data pipe.npz", REFUSED),
    ("zoo list pipe.toml", REFUSED),
    ("zoo list brackets.toml", REFUSED),
    ("gate {good}/model.json --fail-if {terms}", (0, 2, 3)),
    ("check {undecodable}", WORKS),
    ("info digit.snn", REFUSED),
    ("zoo run {files}/zoo_diskfull.toml --out out -q", WORKS),
)


def prepared(folder: Path, good: Path) -> dict[str, str]:
    """Files that are not kept because of their size or nature; what stands for them in a command."""
    np.savez_compressed(folder / "bomb.npz", x=np.zeros((12, 64 << 20), np.uint8))
    for name in ("pipe.onnx", "pipe.npz", "pipe.toml"):
        os.mkfifo(folder / name)
    (folder / "brackets.toml").write_text("a = " + "[" * 5000)
    undecodable = os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.onnx")
    shutil.copyfile(good / "net.onnx", undecodable)
    content = (good / "model.snn").read_bytes()
    place = content.index(b'\\"timesteps\\":') + 14
    place = next(at for at in range(place, place + 9) if content[at : at + 1].isdigit())
    changed = b"7" if content[place : place + 1] != b"7" else b"6"
    (folder / "digit.snn").write_bytes(content[:place] + changed + content[place + 1 :])
    return {"undecodable": undecodable, "terms": "accuracy_drop" + "+1" * 990 + " > 5"}


def run_all(files: Path) -> Iterator[dict[str, Any]]:
    """A row for each command, as it ends."""
    with tempfile.TemporaryDirectory(prefix="snnconvert-faults-") as made:
        good = Path(made) / "good"
        write_seeds(good)
        work = Path(made) / "work"
        work.mkdir()
        shutil.copytree(files, work / "files")
        stands = {"files": str(work / "files"), "good": str(good), **prepared(work, good)}
        watched = Watched(good)
        for command, right in ROWS:
            shutil.rmtree(work / "out", ignore_errors=True)
            arguments = [word.format(**stands) for word in command.split()]
            answer = watched.run(work, arguments)
            row, text = judged(command, 0, arguments, answer), answer["text"]
            if "kw.py" in command or "runs_code" in command:  # Python that the user names, and whose code is to run
                row["faults"] = [fault for fault in row["faults"] if not fault.endswith("kw.py ran")]
            ok = row["exit"] in right and not row["faults"] and row["seconds"] < SECONDS
            yield {**row, "ok": ok, "text": text.replace(made, "")}
        watched.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/faults/files"))
    folder = parser.parse_args().folder
    if not folder.is_dir():
        print(f"{folder} is not there: nothing was run")
        return 0
    print("| command | exit | as it should | seconds | MiB | says |\n|---|---|---|---|---|---|")
    rows = []
    for row in run_all(folder):
        rows.append(row)
        said = " ".join(row["text"].split())[:400].replace("|", "/")
        ok = "yes" if row["ok"] else f"no: {', '.join(row['faults']) or 'exit'}"
        print(
            f"| {row['door']} | {row['exit']} | {ok} | {row['seconds']} | {row['memory'] >> 20} | {said} |", flush=True
        )
    print(f"\n{sum(row['ok'] for row in rows)} of {len(rows)} as they should")
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
