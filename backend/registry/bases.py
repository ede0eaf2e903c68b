"""Where the frozen base model lies: the embedded starter, a folder, or a hub id that is fetched once. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from backend.problem import Problem
from backend.registry import artifacts

NEEDED = ("config.json", "tokenizer_config.json")
FETCHED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md")


class BadBase(Problem):
    """The base model cannot be used; the message names what is missing and what to do."""


class Base(NamedTuple):
    name: str  # as people know it: "starter", a folder's name, a hub id
    folder: Path
    fingerprint: bytes  # of config and weights


def locate(model: str, starter: Path) -> Base:
    """The base that ``model`` names: empty for the starter, a folder, or a hub id. Raises BadBase."""
    if not model:
        return _checked("starter", starter)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _checked(folder.resolve().name, folder.resolve())
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise BadBase(f"There is no folder {model!r}, and it is no hub id of the form owner/name.")
    return _checked(model, _fetched(model))


def _fetched(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(FETCHED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BadBase(
            f"The model {hub_id!r} is not in the local cache and could not be fetched ({type(error).__name__}). "
            "Check the name and the network, or give a folder that holds the model."
        ) from error


def _checked(name: str, folder: Path) -> Base:
    missing = [file for file in NEEDED if not (folder / file).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("weights as *.safetensors (other formats can hold code and are refused)")
    if missing:
        raise BadBase(f"The model {name!r} cannot be used: it lacks {', '.join(missing)}.")
    return Base(name, folder, bytes.fromhex(artifacts.fingerprint(folder)))
