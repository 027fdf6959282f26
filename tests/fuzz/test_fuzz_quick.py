"""A short campaign through every door; `make fuzz` is the long one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from fuzz_campaign import campaign, shared
from fuzz_doors import DOORS

MUTATIONS = int(os.environ.get("SNNCONVERT_FUZZ_FILES", "40"))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from Linux' /proc")
def test_no_mutation_does_harm() -> None:
    tasks = [task for task in shared(MUTATIONS, 0, []) if task[0] != "zoo run"]  # which takes seconds each
    result = campaign(tasks, 1)
    told = [f"{row['door']} {row['number']}: {', '.join(row['faults'])}\n{row['text'][-400:]}" for row in result.faults]
    assert not told, "\n".join(told)
    assert set(result.counts) == set(DOORS) - {"zoo run"}
    assert result.exits["2"] > len(tasks) / 3, "most mutations are refused"


def test_the_watch_sees_what_it_is_for(tmp_path: Path) -> None:
    """The hook tells of files outside, processes, pickles and code; it cannot be removed, so it gets a process."""
    import subprocess

    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "own.py").write_text("pass\n")
    script = f"""
import os, pickle, subprocess, sys
from fuzz_audit import install
told, active = [], [False]
install(told.append, lambda: {str(inside)!r}, lambda: active[0])
active[0] = True
open({str(inside / "fine")!r}, "w").close()
assert told == [], told
open({str(outside / "file")!r}, "w").close()
os.mkdir({str(outside / "folder")!r})
subprocess.run(["true"])
pickle.loads(pickle.dumps(os.getpid))
exec(compile("1", {str(inside / "own.py")!r}, "exec"))
print(len(told), *told, sep="\\n")
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for sign in ("open", "os.mkdir", "subprocess.Popen", "pickle.find_class", "code of"):
        assert sign in ran.stdout, (sign, ran.stdout)
