"""Model folders: written whole or not at all, named by their digest, checked before every use. Imports no torch."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

MANIFEST = "MANIFEST.json"
NAME_LENGTH = 16  # hex digits of the digest that name a folder: 64 bits, our choice
TEMPORARY = "tmp-"
STALE_SECONDS = 3600.0  # our choice
TOKEN_FILES = (  # what says which text is which token
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "added_tokens.json",
    "special_tokens_map.json",
)
_CHUNK = 1 << 20  # bytes


class BadArtifact(ValueError):
    """A model folder is not what its manifest says; the message names the file and what to do."""


class Saved(NamedTuple):
    folder: str  # name under the models folder
    digest: str  # SHA-256 of MANIFEST.json, which holds the SHA-256 of every other file


@dataclass(frozen=True)
class Manifest:
    digest: str
    files: Mapping[str, Mapping[str, Any]]  # name -> {"bytes", "sha256"}
    facts: Mapping[str, Any] = field(default_factory=dict)  # base_fingerprint, parents, snapshot, settings, ...


def save(models: Path, fill: Callable[[Path], None], facts: Mapping[str, Any]) -> Saved:
    """Let ``fill`` write into a temporary folder, seal it with a manifest, and rename it to its digest.

    A kill at any moment leaves either the whole folder or a ``tmp-`` folder that nothing reads. Equal content has an
    equal digest as long as the facts hold no time and no job number, so saving it twice is harmless.
    """
    models.mkdir(parents=True, exist_ok=True)
    _sweep(models)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=models))
    try:
        fill(temporary)
        files = {name: _entry(temporary / name) for name in _names(temporary)}
        if not files:
            raise BadArtifact("The model folder is empty: nothing was saved. Train again.")
        text = json.dumps({"files": files, **facts}, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        for name in (*files, MANIFEST):
            _sync(temporary / name)
        _sync(temporary)
        digest = hashlib.sha256(text.encode()).hexdigest()
        target = models / digest[:NAME_LENGTH]
        if target.exists():
            verify(target)
        else:
            os.chmod(temporary, 0o755)
            os.rename(temporary, target)
            _sync(models)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Saved(target.name, digest)


def verify(folder: Path) -> Manifest:
    """Read every byte of a model folder and compare it with its manifest; BadArtifact says what differs."""
    again = "Restore it from a backup or train it again."
    if not folder.is_dir():
        raise BadArtifact(f"The model {folder.name} is missing. {again}")
    try:
        text = (folder / MANIFEST).read_bytes()
        content = json.loads(text)
        files = dict(content.pop("files"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise BadArtifact(f"The model {folder.name} has no readable {MANIFEST}. {again}") from cause
    digest = hashlib.sha256(text).hexdigest()
    if digest[:NAME_LENGTH] != folder.name:
        raise BadArtifact(
            f"The model {folder.name}: {MANIFEST} was changed (its digest is {digest[:NAME_LENGTH]}). {again}"
        )
    present = set(_names(folder))
    for name in sorted(present - set(files)):
        raise BadArtifact(f"The model {folder.name} holds {name}, which its manifest does not list. Remove that file.")
    for name in sorted(files):
        if name not in present:
            raise BadArtifact(f"The model {folder.name}: {name} is missing. {again}")
        path = folder / name
        if (
            path.stat().st_size != files[name].get("bytes") or _entry(path) != files[name]
        ):  # the size costs nothing to ask
            raise BadArtifact(f"The model {folder.name}: {name} was changed after it was saved. {again}")
    return Manifest(digest=digest, files=files, facts=content)


def fingerprint(base: Path) -> str:
    """Which base an adapter belongs to: SHA-256 over config.json, the weights index and every weights file."""
    names = sorted(p.name for p in base.glob("*.safetensors")) + ["model.safetensors.index.json"]
    if not (base / "config.json").is_file() or len(names) == 1:
        raise BadArtifact(f"The base model {base.name} needs config.json and weights as *.safetensors in its folder.")
    return _digest_of_files(base, ("config.json", *names))


def tokens_digest(base: Path) -> str:
    """Which token a text is for this base: SHA-256 over its tokenizer's files. Settings and chat template are not in it."""
    return _digest_of_files(base, TOKEN_FILES)


def refuse_other_tokens(model: str, manifest: Manifest, here: str) -> None:
    """The weights fit a base whose tokenizer was exchanged, and all that the model learnt would be read as other words.

    ``here`` is the base's ``tokens_digest``. A manifest of before that was kept names none and passes. Raises BadArtifact.
    """
    if manifest.facts.get("tokenizer", here) != here:
        raise BadArtifact(
            f"The model {model} was trained with another tokenizer than the base has now. "
            "Put the base's own tokenizer back, or train again."
        )


def _digest_of_files(base: Path, names: Iterable[str]) -> str:
    whole = hashlib.sha256()
    for name in names:
        path = base / name
        if path.is_file():
            stat = path.stat()
            whole.update(f"{name}:{_hash_of(str(path.resolve()), stat.st_mtime_ns, stat.st_size)}\n".encode())
    return whole.hexdigest()


def _sweep(models: Path) -> None:
    """Remove what a killed save left behind, once it is too old to be still at work."""
    for path in models.glob(f"{TEMPORARY}*"):
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


@lru_cache(maxsize=256)
def _hash_of(path: str, modified: int, size: int) -> str:
    """``modified`` and ``size`` are only there so that a changed file is read again."""
    return _sha256(Path(path))


def _names(folder: Path) -> list[str]:
    """All files but the manifest; refuses what a model folder may not hold, links and folders among it."""
    names = []
    for path in sorted(folder.iterdir()):
        allowed = path.suffix in (".safetensors", ".json") or path.name in ("README", "README.md")
        if path.is_symlink() or not path.is_file() or not allowed:
            raise BadArtifact(
                f"The model {folder.name} holds {path.name}: only plain *.safetensors, *.json and README files are "
                "allowed. Remove it."
            )
        if path.name != MANIFEST:
            names.append(path.name)
    return names


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    whole = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            whole.update(chunk)
    return whole.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
