"""Downloads, verified: a file reaches the cache under its SHA-256, or not at all."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from snnconvert.errors import ModelFileError, OutputError
from snnconvert.files import cache_folder, sha256_of

CHUNK = 1 << 20
_TIMEOUT = 30.0
Report = Callable[[int, int | None], None]
"""Called with (bytes so far, bytes in all or None)."""


def cached_path(url: str, sha256: str) -> Path:
    """Where the file of this URL and checksum lies once it has been pulled."""
    name = Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name or "model"
    return cache_folder() / sha256[:2] / sha256 / name


def is_cached(url: str, sha256: str) -> bool:
    """Whether the file is there; it was verified before it got its name."""
    return cached_path(url, sha256).is_file()


def needed(url: str, sha256: str) -> Path:
    """The cached file.

    Raises:
        ModelFileError: it has not been pulled; nothing is ever downloaded while converting.
    """
    path = cached_path(url, sha256)
    if not path.is_file():
        raise ModelFileError(
            f"{url} has not been downloaded to {path}",
            hint="run `snnconvert zoo pull MANIFEST` where there is a network, or copy the file to that place",
        )
    return path


def check_file(path: Path, sha256: str | None) -> None:
    """Make sure that a file that is there has the checksum asked for.

    Raises:
        ModelFileError: it has another one.
    """
    if sha256 is not None and path.is_file() and (found := sha256_of(path)) != sha256:
        raise ModelFileError(
            f"{path} has SHA-256 {found}, the manifest wants {sha256}",
            hint="restore the file, or correct sha256 in the manifest",
        )


def pull(url: str, sha256: str, report: Report | None = None) -> Path:
    """Download a file into the cache unless it is there; a broken download is taken up where it stopped.

    Raises:
        ModelFileError: the server does not answer, or the content has another SHA-256.
        OutputError: the cache cannot be written.
    """
    path = cached_path(url, sha256)
    if path.is_file():
        return path
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        resumed = part.stat().st_size if part.is_file() else 0
        _download(url, part, resumed, report)
        found = sha256_of(part)
        if found != sha256 and resumed:
            # What was there before was not the beginning of this file.
            part.unlink()
            _download(url, part, 0, report)
            found = sha256_of(part)
        if found != sha256:
            part.unlink()
            raise ModelFileError(
                f"{url} has SHA-256 {found}, the manifest wants {sha256}",
                hint="the file was replaced or tampered with: ask its author, then correct sha256 in the manifest",
            )
        part.replace(path)
    except urllib.error.URLError as error:
        reason = f"HTTP status {error.code}" if isinstance(error, urllib.error.HTTPError) else str(error.reason)
        raise ModelFileError(
            f"cannot download {url}: {reason}",
            hint=f"without a network, copy the file (SHA-256 {sha256}) to {path}",
        ) from error
    except (TimeoutError, ConnectionError) as error:
        raise ModelFileError(
            f"the download of {url} broke off: {error}", hint="run the same command again; it continues"
        ) from error
    except OSError as error:
        raise OutputError(
            f"cannot write to the cache {path.parent}: {error}", hint="choose another with SNNCONVERT_CACHE=FOLDER"
        ) from error
    return path


def _download(url: str, part: Path, start: int, report: Report | None) -> None:
    headers = {"User-Agent": "snnconvert"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            return  # nothing beyond what is there; the checksum decides
        raise
    with answer:
        continued = bool(start) and answer.status == 206
        length = answer.headers.get("Content-Length")
        done = start if continued else 0
        total = done + int(length) if length else None
        with part.open("ab" if continued else "wb") as file:
            while block := answer.read(CHUNK):
                file.write(block)
                done += len(block)
                if report is not None:
                    report(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"{done:,} of {total:,} bytes came")
