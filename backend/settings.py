"""What the operator decides: read once from the settings file, the environment and the command line."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from backend.problem import Problem

PREFIX = "WHETSTONE_"
HOST = re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[1-9][0-9]{0,4})?")  # of engine_hosts
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,2})?")
DTYPES = ("auto", "float32", "bfloat16", "float16")
ATTENTIONS = ("auto", "sdpa", "eager", "flash_attention_2")
QUANTISATIONS = ("none", "int8", "8bit", "4bit")
STARTER = Path(__file__).parent / "starter" / "weights"


class BadSetting(Problem):
    """A setting has a wrong name or value; the message names the key and where it stands."""


CHOICES = {
    "device": ("auto", "cpu", "cuda", "cuda:1", "mps"),  # and other numbers
    "dtype": DTYPES,
    "attention": ATTENTIONS,
    "quantisation": QUANTISATIONS,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``model`` is a folder or a hub id; empty is the embedded starter model.

    The engine of this machine holds it on ``device`` (auto: an NVIDIA GPU where there is one, else the processor), its weights
    as ``dtype`` (auto: float32 on a processor, elsewhere as the files are), or quantised (int8 by our own products on a
    processor, 8bit and 4bit by bitsandbytes), and computes attention as ``attention`` says (auto: as transformers chooses).
    """

    data_dir: Path = Path("data")
    host: str = "127.0.0.1"
    port: int = 7860
    model: str = ""
    allowed_hosts: tuple[str, ...] = ()
    behind_proxy: bool = False
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "auto"
    quantisation: str = "none"
    engine_hosts: tuple[str, ...] = ()  # remote engines that may be called, as host or host:port (engines/address.py)
    queue_target: int = 24  # open comparisons that are kept waiting for annotators
    judgements_per_minute: int = 300  # of one person: nobody reads faster, a stuck key does; 0 is no limit

    @property
    def database(self) -> Path:
        return self.data_dir / "feedback.db"

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def runs_dir(self) -> Path:
        return self.data_dir / "runs"


def load(given: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from, in rising order: defaults, ``<data_dir>/settings.toml``, WHETSTONE_* variables, ``given`` (None = not given).

    Raises BadSetting.
    """
    given = {key: value for key, value in given.items() if value is not None}
    variables = {
        key.removeprefix(PREFIX).lower(): value for key, value in environment.items() if key.startswith(PREFIX)
    }
    data_dir = Path(given.get("data_dir") or variables.get("data_dir") or Settings.data_dir)
    file = data_dir / "settings.toml"
    from_file: dict[str, Any] = {}
    if file.exists():
        try:
            from_file = tomllib.loads(file.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise BadSetting(f"settings.toml in the data folder cannot be read: {error}.") from error
    values: dict[str, Any] = {}
    for source, where in ((from_file, "settings.toml"), (variables, "the environment"), (given, "the command line")):
        for key, value in source.items():
            values[key] = _typed(key, value, where)
    return Settings(**{**values, "data_dir": data_dir})


def _typed(key: str, value: Any, where: str) -> Any:
    kinds = {f.name: str(f.type) for f in fields(Settings)}
    if key not in kinds:
        raise BadSetting(f"{where} has the unknown setting {key!r}; known are {', '.join(sorted(kinds))}.")
    kind = kinds[key]
    try:
        if kind == "int":
            return int(value)
        if kind == "bool":
            return _as_bool(value)
        if kind == "Path":
            return Path(value)
        if key in CHOICES:
            return _chosen(key, str(value), where)
        if kind.startswith("tuple"):
            entries = tuple(str(one).strip() for one in (value.split(",") if isinstance(value, str) else value))
            return _hosts(entries, where) if key == "engine_hosts" else entries
        return str(value)
    except (TypeError, ValueError) as error:
        raise BadSetting(f"The setting {key!r} in {where} must be of type {kind}, not {value!r}.") from error


def _chosen(key: str, value: str, where: str) -> str:
    known = CHOICES[key]
    if not (DEVICE.fullmatch(value) if key == "device" else value in known):
        raise BadSetting(f"The setting {key!r} in {where} may be {', '.join(known)}, not {value!r}.")
    return value


def _hosts(entries: tuple[str, ...], where: str) -> tuple[str, ...]:
    """What could never be called is a slip, which is told before somebody wonders why nothing answers."""
    for entry in entries:
        if entry and not HOST.fullmatch(entry):
            raise BadSetting(
                f"The setting 'engine_hosts' in {where} has {entry!r}, which is no host. Write host, or host:port, as in "
                "api.example.com,192.168.1.20:8000."
            )
    return tuple(entry for entry in entries if entry)


def _as_bool(value: Any) -> bool:
    text = str(value).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", ""):
        return False
    raise ValueError(value)
