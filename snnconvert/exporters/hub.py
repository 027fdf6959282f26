"""The Hugging Face hub, through huggingface_hub: folders go up, checkpoints come down into its cache.

Only `push` and `pull` touch the network; `cached` reads what was pulled. Who may write where is huggingface_hub's
business (`hf auth login`, HF_TOKEN), as are the place of the cache and the endpoint (HF_HOME, HF_ENDPOINT).
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from snnconvert.errors import ModelFileError, OptionError, OutputError, UserError
from snnconvert.graph.checkpoint import load_snn

PREFIX, CHECKPOINT = "hf:", "network.snn"
FILES = (CHECKPOINT, "README.md", "curve.png")
_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Put what `export --to huggingface` wrote on the hub; returns its address.

    Raises:
        OptionError: a folder that holds no checkpoint, or a name that the hub does not take.
        OutputError: what the hub or the network refused.
    """
    _check(name)
    if not (folder / CHECKPOINT).is_file():
        raise OptionError(
            f"{folder} holds no {CHECKPOINT}",
            hint=f"write it first: snnconvert export FILE.snn --to huggingface -o {folder}",
        )
    load_snn(folder / CHECKPOINT)
    hub = _library()
    try:
        api = hub.HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=list(FILES), commit_message="A spiking network"
        )
        return str(getattr(done, "repo_url", "") or getattr(done, "commit_url", "") or name)
    except Exception as error:
        raise _told(error, f"cannot put {folder} on the hub as {name}", OutputError) from error


def pull(name: str, revision: str | None = None) -> Path:
    """Download a checkpoint into the hub's cache, check it, and return its path.

    Raises:
        OptionError: a name that the hub does not take.
        ModelFileError: what the hub or the network refused, or what is no checkpoint.
    """
    _check(name)
    hub = _library()
    try:
        path = Path(hub.hf_hub_download(name, CHECKPOINT, revision=revision))
    except Exception as error:
        raise _told(error, f"cannot get {name} from the hub", ModelFileError) from error
    load_snn(path)
    return path


def cached(address: str) -> Path:
    """The checkpoint behind "hf:USER/NAME" or "hf:USER/NAME@REVISION", as it was pulled; nothing is downloaded.

    Raises:
        OptionError: a name that the hub does not take.
        ModelFileError: it was not pulled.
    """
    name, _, revision = address.removeprefix(PREFIX).partition("@")
    _check(name)
    found = _library().try_to_load_from_cache(name, CHECKPOINT, revision=revision or None)
    if not isinstance(found, str):
        wanted = f"{name} --revision {revision}" if revision else name
        raise ModelFileError(f"{address} is not in the cache", hint=f"snnconvert hub pull {wanted}")
    return Path(found)


def _check(name: str) -> None:
    if not _NAME.match(name):
        raise OptionError(f"{name!r} is no name on the hub", hint="names are USER/NAME, for instance me/digits-cnn")


def _library() -> Any:
    if find_spec("huggingface_hub") is None:
        raise OptionError("the hub needs huggingface_hub", hint="pip install 'snnconvert[hub]'")
    import huggingface_hub

    return huggingface_hub


def _told(error: Exception, what: str, kind: type[UserError]) -> UserError:
    """An error of the library in its own first line."""
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return kind(f"{what}: {first}", hint="check the name, the connection and `hf auth whoami`")
