"""Settings of the training jobs: the form, the command line, the stored row and the document come from these records.

Standard library only: the web process reads this file without torch. kinds.py has the records.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, NamedTuple, TypeVar

from backend.training.fields import BadSettings
from backend.training.kinds import (
    CommonSettings,
    DPOSettings,
    IFTSettings,
    KTOSettings,
    OnPolicySettings,
    PPOSettings,
    PretrainSettings,
    RewardSettings,
    SFTSettings,
)

__all__ = [
    "KINDS",
    "BadSettings",
    "CommonSettings",
    "DPOSettings",
    "IFTSettings",
    "KTOSettings",
    "OnPolicySettings",
    "Option",
    "PPOSettings",
    "PretrainSettings",
    "RewardSettings",
    "SFTSettings",
    "as_dict",
    "make",
    "options",
    "weights_of",
    "weights_text",
]

Settings = TypeVar("Settings", bound=CommonSettings)

KINDS: Mapping[str, type[CommonSettings]] = {
    "reward": RewardSettings,
    "ppo": PPOSettings,
    "ift": IFTSettings,
    "dpo": DPOSettings,
    "kto": KTOSettings,
    "sft": SFTSettings,
    "pretrain": PretrainSettings,
}


class Option(NamedTuple):
    """One setting as a form or a command line needs it."""

    name: str
    type: type
    default: Any
    label: str
    help: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    advanced: bool
    pattern: str  # of a free text, as a regular expression; empty for all else
    example: str


def options(kind: type[CommonSettings]) -> list[Option]:
    """The settings of one kind of job in the order of the form: its own first, then what all jobs have."""
    common = {f.name for f in fields(CommonSettings)}
    ordered = sorted(fields(kind), key=lambda f: f.name in common)
    return [
        Option(
            name=f.name,
            type=type(f.default),
            default=f.default,
            label=f.metadata["label"],
            help=f.metadata["help"],
            minimum=f.metadata["min"],
            maximum=f.metadata["max"],
            choices=f.metadata["choices"],
            advanced=f.metadata["advanced"],
            pattern=f.metadata["pattern"],
            example=f.metadata["example"],
        )
        for f in ordered
    ]


def make(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Settings from a form, a command line or a stored row; what is not given has its default."""
    known = {option.name: option for option in options(kind)}
    for name in values:
        if name not in known:
            raise BadSettings(f"There is no setting '{name}'. Known: {', '.join(sorted(known))}.")
    return kind(**{name: _checked(known[name], value) for name, value in values.items()})


def as_dict(settings: CommonSettings) -> dict[str, Any]:
    return asdict(settings)


def weights_of(text: str) -> dict[str, float]:
    """Names and numbers of a text such as "ann 0.5, bob 0". A name may hold spaces; BadSettings if one stands twice."""
    found: dict[str, float] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, number = entry.rsplit(maxsplit=1)
        if name in found:
            raise BadSettings(f"'annotator_weights' names {name} twice. Give each person one weight.")
        found[name] = float(number)
    return found


def weights_text(weights: Mapping[str, float]) -> str:
    """The reverse of ``weights_of``."""
    return ", ".join(f"{name} {f'{weight:.6f}'.rstrip('0').rstrip('.')}" for name, weight in weights.items())


def _checked(option: Option, value: Any) -> Any:
    if option.type is bool:
        return _switch(option.name, value)
    if option.choices:
        if value not in option.choices:
            raise BadSettings(f"'{option.name}' must be one of {', '.join(option.choices)}, not {value!r}.")
        return value
    if option.type is str:
        return _checked_text(option, value)
    wanted = "a whole number" if option.type is int else "a number"
    try:
        number = option.type(value)
        is_exact = not isinstance(value, bool) and (option.type is float or number == float(value))
    except (TypeError, ValueError, OverflowError):
        is_exact = False
    if not is_exact:
        raise BadSettings(f"'{option.name}' must be {wanted}, not {value!r}.")
    low, high = option.minimum, option.maximum
    if not ((low is None or number >= low) and (high is None or number <= high)):
        raise BadSettings(f"'{option.name}' must be between {low:g} and {high:g}, not {number:g}.")
    return number


def _checked_text(option: Option, value: Any) -> str:
    if isinstance(value, str) and option.maximum is not None and len(value) > option.maximum:
        raise BadSettings(f"'{option.name}' has {len(value)} characters; {option.maximum:g} are the most.")
    if not isinstance(value, str) or not re.fullmatch(option.pattern, value):
        raise BadSettings(f"'{option.name}' must be like {option.example!r} or empty, not {value!r}.")
    return value


def _switch(name: str, value: Any) -> bool:
    """A form and a stored row give true or false, a command line may give the word."""
    said = {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
    if not isinstance(said, bool):
        raise BadSettings(f"'{name}' must be true or false, not {value!r}.")
    return said
