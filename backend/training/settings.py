"""Settings of the training jobs: the form, the command line, the stored row and the document come from these records.

Standard library only: the web process reads this file without torch. Names are TRL's where TRL has the setting.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

from backend.problem import Problem


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


def _setting(
    default: Any,
    label: str,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    advanced: bool = False,
) -> Any:
    facts = {"label": label, "help": help, "min": minimum, "max": maximum, "choices": choices, "advanced": advanced}
    return field(default=default, metadata=facts)


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """What every training job has."""

    lora_r: int = _setting(16, "LoRA rank", "Size of the trained adapter on every linear layer.", 1, 256, advanced=True)
    lora_alpha: int = _setting(
        32, "LoRA alpha", "The adapter's output is scaled by alpha / rank.", 1, 1024, advanced=True
    )
    max_length: int = _setting(
        1024,
        "Longest text in tokens",
        "A longer case loses its beginning, never its answer; cuts are counted.",
        16,
        131072,
        advanced=True,
    )
    max_grad_norm: float = _setting(
        1.0, "Largest gradient norm", "A larger gradient is scaled down.", 1e-6, 1e6, advanced=True
    )
    tokens_per_microbatch: int = _setting(
        2048, "Tokens per pass", "Padded tokens in one forward pass: memory against speed.", 16, 1 << 20, advanced=True
    )
    base_dtype: str = _setting(
        "float32",
        "Base weights",
        "bfloat16 halves memory and is faster where the processor has it.",
        choices=("float32", "bfloat16"),
        advanced=True,
    )
    threads: int = _setting(
        0, "Threads", "0 takes up to four cores. Equal weights are promised for an equal number.", 0, 256, advanced=True
    )
    save_minutes: float = _setting(
        5.0,
        "Minutes between checkpoints",
        "A job that was interrupted goes on from its last one. 0 saves after every step.",
        0.0,
        1440.0,
        advanced=True,
    )


@dataclass(frozen=True, kw_only=True)
class RewardSettings(CommonSettings):
    """Bradley-Terry reward model: an adapter and a scalar head on the frozen base."""

    learning_rate: float = _setting(
        3e-3,
        "Learning rate",
        "Step size of adapter and head. 3e-3 suits the starter model; larger ones take 1e-4.",
        0.0,
        1.0,
    )
    num_train_epochs: int = _setting(2, "Epochs", "Passes over the judgements; more than a few overfit.", 1, 1000)
    batch_size: int = _setting(16, "Comparisons per step", "How many comparisons one step averages.", 1, 4096)
    warmup_share: float = _setting(0.03, "Warm-up share", "Share of steps in which the rate rises.", 0.0, 1.0)
    strength_margin: float = _setting(
        0.0, "Margin per strength", "Asks a larger score difference of strong preferences; 0 is off.", 0.0, 10.0
    )
    min_comparisons: int = _setting(
        20, "Fewest comparisons", "A job with fewer judged comparisons is refused.", 2, 1_000_000
    )


@dataclass(frozen=True, kw_only=True)
class OnPolicySettings(CommonSettings):
    """What the methods share that sample answers and follow a reward model."""

    learning_rate: float = _setting(
        3e-3,
        "Learning rate",
        "Step size of the adapter. 3e-3 suits the starter model; larger ones take 1e-5.",
        0.0,
        1.0,
    )
    total_episodes: int = _setting(768, "Episodes", "Answers sampled in the whole run.", 1, 10_000_000)
    batch_size: int = _setting(64, "Episodes per step", "Answers sampled before each update.", 1, 65536)
    num_generations: int = _setting(4, "Answers per prompt", "The prompt is read once for all of them.", 1, 256)
    kl_coef: float = _setting(0.05, "KL coefficient", "Price of one nat away from the base.", 0.0, 100.0)
    temperature: float = _setting(1.0, "Temperature", "Of sampling and of every log-probability.", 0.01, 10.0)
    response_length: int = _setting(64, "Longest answer in tokens", "An answer is cut there.", 1, 8192)
    missing_eos_penalty: float = _setting(
        1.0,
        "Penalty for no end",
        "Subtracted from the score of an answer without an end token.",
        0.0,
        100.0,
        advanced=True,
    )
    reward_clip: float = _setting(5.0, "Score clip", "Scores are held within this.", 0.01, 1000.0, advanced=True)
    kl_stop: float = _setting(
        15.0, "KL stop", "The run stops when answers are this many nats from the base.", 0.1, 10000.0
    )
    entropy_stop: float = _setting(
        0.1, "Entropy stop", "The run stops below this share of its first entropy; 0 is off.", 0.0, 1.0, advanced=True
    )
    eval_cases: int = _setting(
        50, "Held-out prompts", "Held-out prompts answered before and after training.", 0, 100000, advanced=True
    )


@dataclass(frozen=True, kw_only=True)
class PPOSettings(OnPolicySettings):
    """PPO with a KL penalty to the bare base."""

    learning_rate: float = _setting(
        3e-3,
        "Learning rate",
        "Step size of adapter and value head. 3e-3 suits the starter model; larger ones take 1e-5.",
        0.0,
        1.0,
    )
    num_ppo_epochs: int = _setting(1, "Passes per batch", "How often each batch is trained on.", 1, 64)
    num_mini_batches: int = _setting(
        4, "Updates per pass", "Into how many parts a batch is cut.", 1, 1024, advanced=True
    )
    kl_target: float = _setting(
        0.0, "KL target", "Nats per answer that the coefficient aims at; 0 keeps it fixed.", 0.0, 1000.0, advanced=True
    )
    kl_horizon: int = _setting(10000, "KL horizon", "Episodes over which it adapts.", 1, 10_000_000, advanced=True)
    cliprange: float = _setting(0.2, "Policy clip", "How far a token's ratio pays.", 1e-6, 10.0, advanced=True)
    cliprange_value: float = _setting(0.2, "Value clip", "How far a value moves at once.", 1e-6, 1000.0, advanced=True)
    vf_coef: float = _setting(0.1, "Value loss weight", "Weight of the value loss.", 0.0, 100.0, advanced=True)
    gamma: float = _setting(1.0, "Discount", "1: a later token's reward counts in full.", 0.0, 1.0, advanced=True)
    lam: float = _setting(0.95, "GAE lambda", "1: no bias, more noise.", 0.0, 1.0, advanced=True)


@dataclass(frozen=True, kw_only=True)
class SFTSettings(CommonSettings):
    """Supervised fine-tuning on demonstrations, edited answers and winners."""

    learning_rate: float = _setting(
        3e-3,
        "Learning rate",
        "Step size of the adapter. 3e-3 suits the starter model; larger ones take 1e-4.",
        0.0,
        1.0,
    )
    num_train_epochs: int = _setting(3, "Epochs", "Passes over the answers; more than a few overfit.", 1, 1000)
    batch_size: int = _setting(16, "Answers per step", "How many answers one step averages.", 1, 4096)
    warmup_share: float = _setting(0.03, "Warm-up share", "Share of steps in which the rate rises.", 0.0, 1.0)
    min_answers: int = _setting(
        20, "Fewest answers", "A job with fewer answers to learn from is refused.", 1, 1_000_000
    )


@dataclass(frozen=True, kw_only=True)
class DPOSettings(CommonSettings):
    """Direct preference optimisation: from judged pairs straight to a policy."""

    learning_rate: float = _setting(
        3e-3,
        "Learning rate",
        "Step size of the adapter. 3e-3 suits the starter model; larger ones take 1e-5.",
        0.0,
        1.0,
    )
    num_train_epochs: int = _setting(1, "Epochs", "Passes over the pairs; more than a few overfit.", 1, 1000)
    batch_size: int = _setting(16, "Pairs per step", "How many pairs one step averages.", 1, 4096)
    beta: float = _setting(
        0.1, "Beta", "Larger keeps the policy closer to where it starts: 0.1 for sigmoid, about 1 for ipo.", 1e-6, 100.0
    )
    loss_type: str = _setting(
        "sigmoid",
        "Loss",
        "sigmoid is DPO; ipo aims at a margin of 1 / (2 beta) nats per token: raise beta to about 1 with it.",
        choices=("sigmoid", "ipo"),
    )
    label_smoothing: float = _setting(
        0.0, "Label smoothing", "Share of judgements believed to be wrong; only for sigmoid.", 0.0, 0.5, advanced=True
    )
    min_pairs: int = _setting(
        20, "Fewest pairs", "A job with fewer decided pairs to train on is refused.", 1, 1_000_000
    )


@dataclass(frozen=True, kw_only=True)
class IFTSettings(OnPolicySettings):
    """REINFORCE on the learned reward with a leave-one-out baseline."""

    num_generations: int = _setting(
        4, "Answers per prompt", "Each answer is measured against the others; 1 takes a moving average.", 1, 256
    )


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(CommonSettings):
    """Continued pretraining of an adapter on plain texts, with the objective of the base's family."""

    learning_rate: float = _setting(
        3e-3,
        "Learning rate",
        "Step size of the adapter. 3e-3 suits the starter model; larger ones take 1e-4.",
        0.0,
        1.0,
    )
    num_train_epochs: int = _setting(1, "Epochs", "Passes over the texts.", 1, 1000)
    batch_size: int = _setting(
        16, "Texts per step", "How many texts, or pieces of long ones, one step averages.", 1, 4096
    )
    warmup_share: float = _setting(0.03, "Warm-up share", "Share of steps in which the rate rises.", 0.0, 1.0)
    mlm_probability: float = _setting(
        0.15, "Masked share", "BERT: share of the tokens that are hidden and predicted.", 0.01, 0.9, advanced=True
    )
    noise_density: float = _setting(
        0.15, "Removed share", "T5: share of the tokens that are cut out and written again.", 0.01, 0.9, advanced=True
    )
    mean_noise_span_length: float = _setting(
        3.0, "Tokens per span", "T5: mean length of what is cut out at one place.", 1.0, 100.0, advanced=True
    )
    plm_probability: float = _setting(
        1 / 6, "Predicted share", "XLNet: share of the tokens that are predicted.", 0.01, 0.9, advanced=True
    )
    max_span_length: int = _setting(
        5, "Longest span", "XLNet: most tokens predicted side by side.", 1, 100, advanced=True
    )
    min_texts: int = _setting(20, "Fewest texts", "A job with fewer texts to learn from is refused.", 1, 1_000_000)


Settings = TypeVar("Settings", bound=CommonSettings)

KINDS: Mapping[str, type[CommonSettings]] = {
    "reward": RewardSettings,
    "ppo": PPOSettings,
    "ift": IFTSettings,
    "dpo": DPOSettings,
    "sft": SFTSettings,
    "pretrain": PretrainSettings,
}


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


def _checked(option: Option, value: Any) -> Any:
    if option.type is str:
        if value not in option.choices:
            raise BadSettings(f"'{option.name}' must be one of {', '.join(option.choices)}, not {value!r}.")
        return value
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
