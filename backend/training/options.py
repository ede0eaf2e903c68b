"""What a setting is: its limits and words, as a form, a command line and a stored row need them.

Standard library only: the web process reads this file without torch.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

from backend.problem import Problem

Settings = TypeVar("Settings")  # a record of settings


class BadSettings(Problem, ValueError):
    """A setting is unknown, of the wrong type or out of range; the message names it."""


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


def setting(
    default: Any,
    label: str,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    advanced: bool = False,
    pattern: str = "",
    example: str = "",
) -> Any:
    """Of a free text, ``maximum`` is its greatest length, ``pattern`` what it must match, ``example`` what it looks like."""
    facts = {"label": label, "help": help, "min": minimum, "max": maximum, "choices": choices, "advanced": advanced}
    return field(default=default, metadata={**facts, "pattern": pattern, "example": example})


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """What every training job has."""

    lora_r: int = setting(16, "LoRA rank", "Size of the trained adapter on every linear layer.", 1, 256, advanced=True)
    lora_alpha: int = setting(
        32, "LoRA alpha", "The adapter's output is scaled by alpha / rank.", 1, 1024, advanced=True
    )
    max_length: int = setting(
        1024,
        "Longest text in tokens",
        "A longer case loses its beginning, never its answer; cuts are counted.",
        16,
        131072,
        advanced=True,
    )
    max_grad_norm: float = setting(
        1.0, "Largest gradient norm", "A larger gradient is scaled down.", 1e-6, 1e6, advanced=True
    )
    tokens_per_microbatch: int = setting(
        2048,
        "Tokens per pass",
        "Padded tokens in one forward pass, eight times as many on a GPU: memory against speed.",
        16,
        1 << 20,
        advanced=True,
    )
    base_dtype: str = setting(
        "auto",
        "Base weights",
        "bfloat16 halves memory and time where the processor has it; auto takes it for bases above 5 million weights.",
        choices=("auto", "float32", "bfloat16"),
        advanced=True,
    )
    threads: int = setting(
        0, "Threads", "0 takes up to four cores. Equal weights are promised for an equal number.", 0, 256, advanced=True
    )
    save_minutes: float = setting(
        5.0,
        "Minutes between checkpoints",
        "A job that was interrupted goes on from its last one. 0 saves after every step.",
        0.0,
        1440.0,
        advanced=True,
    )


def options(kind: type[Any]) -> list[Option]:
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
            listed = ", ".join(sorted(known))
            raise BadSettings(
                f"There is no setting '{name}'. Known: {listed}.", "setting_unknown", name=name, known=listed
            )
    return kind(**{name: _checked(known[name], value) for name, value in values.items()})


def as_dict(settings: Any) -> dict[str, Any]:
    return asdict(settings)


def _checked(option: Option, value: Any) -> Any:
    if option.type is bool:
        return _switch(option.name, value)
    if option.choices:
        if value not in option.choices:
            listed = ", ".join(option.choices)
            raise BadSettings(
                f"'{option.name}' must be one of {listed}, not {value!r}.",
                "setting_choice",
                name=option.name,
                known=listed,
                value=value,
            )
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
        raise BadSettings(
            f"'{option.name}' must be {wanted}, not {value!r}.",
            "setting_whole" if option.type is int else "setting_number",
            name=option.name,
            value=value,
        )
    low, high = option.minimum, option.maximum
    if not ((low is None or number >= low) and (high is None or number <= high)):
        raise BadSettings(
            f"'{option.name}' must be between {low:g} and {high:g}, not {number:g}.", "setting_range",
            name=option.name, low=f"{low:g}", high=f"{high:g}", value=f"{number:g}",
        )  # fmt: skip
    return number


def _checked_text(option: Option, value: Any) -> str:
    if isinstance(value, str) and option.maximum is not None and len(value) > option.maximum:
        raise BadSettings(
            f"'{option.name}' has {len(value)} characters; {option.maximum:g} are the most.", "setting_long",
            name=option.name, count=len(value), most=f"{option.maximum:g}",
        )  # fmt: skip
    if not isinstance(value, str) or not re.fullmatch(option.pattern, value):
        raise BadSettings(
            f"'{option.name}' must be like {option.example!r} or empty, not {value!r}.", "setting_pattern",
            name=option.name, example=option.example, value=value,
        )  # fmt: skip
    return value


def _switch(name: str, value: Any) -> bool:
    """A form and a stored row give true or false, a command line may give the word."""
    said = {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
    if not isinstance(said, bool):
        raise BadSettings(f"'{name}' must be true or false, not {value!r}.", "setting_switch", name=name, value=value)
    return said
