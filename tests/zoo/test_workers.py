"""Worker processes: when they serve the next model, and when another one does."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from tiny_zoo import factory, write_folder, write_manifest

from snnconvert.progress import silent
from snnconvert.zoo import processes
from snnconvert.zoo.batch import Quiet, Settings, run_zoo
from snnconvert.zoo.manifest import load_manifest
from snnconvert.zoo.worker import LOOK_SECONDS, memory_limit


def test_what_a_model_leaves_in_memory_is_not_counted_to_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hired: list[int] = []
    hire = processes.Pool._hire

    def counted(pool: processes.Pool) -> None:
        hire(pool)
        hired.append(pool.started)

    def run(**settings: object) -> int:
        return run_zoo(load_manifest(path), tmp_path / "out", Settings(jobs=1, **settings), Quiet()).exit_code  # type: ignore[arg-type]

    monkeypatch.setattr(processes.Pool, "_hire", counted)
    write_folder(tmp_path)
    path = write_manifest(tmp_path, "".join(factory(name) for name in ("good", "other", "third")))
    assert run() == 0
    assert hired == [1]  # small ones share a process
    monkeypatch.setattr(processes, "_GROWTH", 1)
    assert run(changes={"timesteps": 5}) == 0
    assert hired == [1, 1, 2, 3]  # each is replaced while another is waiting


def test_what_is_freed_does_not_count_to_the_limit_and_what_is_held_does() -> None:
    piece = 2**24  # of float32: 64 MiB
    before = [torch.ones(piece // 4) for _ in range(40)]
    del before  # what was free before the limit is nothing to grow into
    with pytest.raises(MemoryError, match="resident"), memory_limit(3 * 4 * piece, silent) as told:
        for _ in range(10):
            torch.ones(2 * piece).sum()
            told("simulate", 0, 1)
        held = [torch.ones(piece), torch.ones(piece)]
        told("simulate", 0, 1)
        with pytest.raises(RuntimeError, match="allocate memory"):
            torch.empty(2**37)  # half a tebibyte
        held += [torch.ones(piece), torch.ones(piece)]
        told("simulate", 0, 1)
    del held


def test_what_was_held_between_two_looks_of_progress_counts() -> None:
    piece = 2**24  # of float32: 64 MiB

    def grown(pieces: int) -> None:
        with memory_limit(3 * 4 * piece, silent):
            held = torch.ones(pieces * piece)
            time.sleep(5 * LOOK_SECONDS)
            del held

    grown(2)
    with pytest.raises(MemoryError, match="resident"):
        grown(5)


def test_no_limit_is_no_limit() -> None:
    with memory_limit(None, silent) as told:
        told("simulate", 0, 1)
