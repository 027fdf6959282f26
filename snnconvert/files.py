"""Writing files so that what is seen is always whole."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from snnconvert.errors import OutputError


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """$SNNCONVERT_CACHE, else $XDG_CACHE_HOME/snnconvert, else ~/.cache/snnconvert."""
    own = os.environ.get("SNNCONVERT_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snnconvert"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that replaces it when the block succeeds, and vanishes when it does not.

    Raises:
        OutputError: `path` cannot be written.
    """
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        # With the process in its name: of two that write the same file, each has its own.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with _told(path):
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(texts: Mapping[Path, str]) -> None:
    """Write UTF-8 files, each whole or not at all; all are complete before the first appears.

    Raises:
        OutputError: a folder or file cannot be written; nothing new is left behind.
    """
    with ExitStack() as stack:
        # Left in reverse: they appear in the order in which they were given.
        places = [(stack.enter_context(atomic(path)), path) for path in reversed(list(texts))]
        for temporary, path in places:
            with _told(path), temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(texts[path])


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            hint="choose a folder that exists and can be written, with enough room",
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
