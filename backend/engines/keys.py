"""Keys of remote engines. What is stored is where a key stands, never the key: an environment variable, or a private file."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from backend.problem import Problem

REFERENCE = re.compile(r"env:[A-Z][A-Z0-9_]{0,60}_API_KEY|file:[A-Za-z0-9][A-Za-z0-9_-]{0,60}")
SUFFIX = "_API_KEY"
LONGEST = 4096  # bytes of a key file


class NoKey(Problem):
    """The key a reference names is not there or not safe; the message says what to do and never holds the key."""


def checked(reference: str) -> str:
    """The reference as it is stored; empty is for servers without a key. Raises NoKey."""
    reference = reference.strip()
    if reference and not REFERENCE.fullmatch(reference):
        raise NoKey(
            "Say where the key stands, not the key itself: env:NAME_API_KEY for an environment variable whose name ends in "
            "_API_KEY, or file:name for a file in the folder secrets of the data folder.",
            "key_reference",
        )
    return reference


def read(reference: str, secrets: Path, environment: Mapping[str, str] = os.environ) -> str:
    """The key itself, for the one request that needs it. Raises NoKey."""
    kind, _, name = checked(reference).partition(":")
    if not kind:
        return ""
    key = environment.get(name, "") if kind == "env" else _from_file(secrets / name, name)
    key = key.strip()
    if not key:
        where = f"The environment variable {name}" if kind == "env" else f"The file {name} in the folder secrets"
        raise NoKey(f"{where} holds no key. Set it where Whetstone is started, then try again.", "no_key", name=name)
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise NoKey(f"What {name} holds is no key: it has spaces or unusual characters.", "bad_key", name=name)
    return key


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that calls no remote engine: none of the variables that may hold a key."""
    return {name: value for name, value in environment.items() if not name.endswith(SUFFIX)}


def _from_file(path: Path, name: str) -> str:
    """Only a plain file that nobody else may read: a key that others can read is no secret."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            return ""
        if mode & 0o077:
            raise NoKey(
                f"The file {name} in the folder secrets can be read by others. Run chmod 600 on it, then try again.",
                "open_key",
                name=name,
            )
        return os.read(handle, LONGEST).decode("utf-8", "replace")
    finally:
        os.close(handle)
