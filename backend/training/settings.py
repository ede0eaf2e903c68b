"""Settings of the training jobs: the form, the command line, the stored row and the document come from these records.

Standard library only: the web process reads this file without torch. Names are TRL's where TRL has the setting. What a
setting is stands in options.py, PPO's and IFT's in on_policy_settings.py, pretraining's in pretrain_settings.py; who needs any of them takes it from here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.training.on_policy_settings import IFTSettings, OnPolicySettings, PPOSettings
from backend.training.options import BadSettings, CommonSettings, Option, as_dict, make, options, setting
from backend.training.pretrain_settings import PretrainSettings
from backend.training.score_settings import ScoreSettings

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
    "RoundsSettings",
    "SFTSettings",
    "ScoreSettings",
    "as_dict",
    "make",
    "options",
    "weights_of",
    "weights_text",
]


def _people_setting() -> Any:
    """For the kinds that learn from judgements; an entry is a name, white space, a number (``weights_of``)."""
    entry = r"[^,]*[^,\s]\s+\d{1,4}(?:\.\d{1,6})?\s*"
    return setting(
        "",
        "Weights of people",
        "How much each person's judgements count beside the others' of one comparison, for example 'ann 0.5, bob 0'; "
        "who is not named has 1, and 0 leaves a person's judgements out.",
        maximum=2000,
        advanced=True,
        pattern=rf"\s*|{entry}(?:,{entry})*",
        example="ann 0.5, bob 0",
    )


def _reliability_setting(told: str) -> Any:
    return setting("off", "Reliability of people", told, choices=("off", "estimated"), advanced=True)


PROBABLE = (
    "estimated: pairs are learnt as what several people's judgements make probable, by how far each agrees with the others "
    "and with gold (Dawid & Skene); held-out figures stay what people said."
)


@dataclass(frozen=True, kw_only=True)
class RewardSettings(CommonSettings):
    """Bradley-Terry reward model: an adapter and a scalar head on the frozen base."""

    learning_rate: float = setting(
        3e-3,
        "Learning rate",
        "Step size of adapter and head. 3e-3 suits the starter model; larger ones take 1e-4.",
        0.0,
        1.0,
    )
    num_train_epochs: int = setting(2, "Epochs", "Passes over the judgements; more than a few overfit.", 1, 1000)
    batch_size: int = setting(16, "Comparisons per step", "How many comparisons one step averages.", 1, 4096)
    warmup_share: float = setting(0.03, "Warm-up share", "Share of steps in which the rate rises.", 0.0, 1.0)
    strength_margin: float = setting(
        0.0, "Margin per strength", "Asks a larger score difference of strong preferences; 0 is off.", 0.0, 10.0
    )
    min_comparisons: int = setting(
        20, "Fewest comparisons", "A job with fewer judged comparisons is refused.", 2, 1_000_000
    )
    ties: str = setting(
        "half",
        "Ties",
        "half: a tie is half a win for either; model: learns how close scores are called a tie; drop: ties are left out.",
        choices=("half", "model", "drop"),
        advanced=True,
    )
    label_smoothing: float = setting(
        0.0, "Label smoothing", "Share of judgements believed to be turned round.", 0.0, 0.5, advanced=True
    )
    num_members: int = setting(
        1,
        "Ensemble members",
        "Reward models trained side by side; their disagreement shows where the judgements say little. 3 to 5 are usual.",
        1,
        5,
        advanced=True,
    )
    adv_coef: float = setting(
        0.0,
        "Weight of the policy's answers",
        "Good answers must also score above the policy's own, with this weight; 0 is off.",
        0.0,
        100.0,
        advanced=True,
    )
    adv_generations: int = setting(
        1,
        "Policy answers per good answer",
        "Sampled once at the start, when their weight is not 0.",
        1,
        64,
        advanced=True,
    )
    response_length: int = setting(
        64, "Longest sampled answer in tokens", "An answer of the policy is cut there.", 1, 8192, advanced=True
    )
    annotator_weights: str = _people_setting()
    reliability: str = _reliability_setting(PROBABLE)

    def __post_init__(self) -> None:
        if self.reliability == "estimated" and self.ties != "half":
            raise BadSettings(
                "'reliability' set to estimated gives shares, in which a tie is half. Set 'ties' to half, or 'reliability' to off.",
                "settings_reliability",
            )
        if self.ties == "model" and self.strength_margin > 0:
            raise BadSettings(
                "'strength_margin' has no meaning with 'ties' set to model, which learns a margin of its own. "
                "Set 'strength_margin' to 0, or 'ties' to half or drop.",
                "settings_margin",
            )


@dataclass(frozen=True, kw_only=True)
class SFTSettings(CommonSettings):
    """Supervised fine-tuning on demonstrations, edited answers and winners."""

    learning_rate: float = setting(
        3e-3,
        "Learning rate",
        "Step size of the adapter. 3e-3 suits the starter model; larger ones take 1e-4.",
        0.0,
        1.0,
    )
    num_train_epochs: int = setting(3, "Epochs", "Passes over the answers; more than a few overfit.", 1, 1000)
    batch_size: int = setting(16, "Answers per step", "How many answers one step averages.", 1, 4096)
    warmup_share: float = setting(0.03, "Warm-up share", "Share of steps in which the rate rises.", 0.0, 1.0)
    min_answers: int = setting(20, "Fewest answers", "A job with fewer answers to learn from is refused.", 1, 1_000_000)


@dataclass(frozen=True, kw_only=True)
class DPOSettings(CommonSettings):
    """Direct preference optimisation: from judged pairs straight to a policy."""

    learning_rate: float = setting(
        2e-3,
        "Learning rate",
        "Step size of the adapter. 2e-3 suits the starter model; larger ones take 1e-5.",
        0.0,
        1.0,
    )
    num_train_epochs: int = setting(1, "Epochs", "Passes over the pairs; more than a few overfit.", 1, 1000)
    batch_size: int = setting(16, "Pairs per step", "How many pairs one step averages.", 1, 4096)
    beta: float = setting(
        0.1, "Beta", "Larger keeps the policy closer to where it starts: 0.1 for sigmoid, about 1 for ipo.", 1e-6, 100.0
    )
    loss_type: str = setting(
        "sigmoid",
        "Loss",
        "sigmoid is DPO; ipo aims at a margin of 1 / (2 beta) nats per token: raise beta to about 1 with it.",
        choices=("sigmoid", "ipo"),
    )
    label_smoothing: float = setting(
        0.0, "Label smoothing", "Share of judgements believed to be wrong; only for sigmoid.", 0.0, 0.5, advanced=True
    )
    min_pairs: int = setting(20, "Fewest pairs", "A job with fewer decided pairs to train on is refused.", 1, 1_000_000)
    annotator_weights: str = _people_setting()
    reliability: str = _reliability_setting(PROBABLE)

    def __post_init__(self) -> None:
        if self.loss_type == "ipo" and self.label_smoothing > 0:
            raise BadSettings(
                "'label_smoothing' has no meaning with 'loss_type' set to ipo, whose margin is finite by itself. "
                "Set 'label_smoothing' to 0, or 'loss_type' to sigmoid.",
                "settings_smoothing",
            )


@dataclass(frozen=True, kw_only=True)
class KTOSettings(CommonSettings):
    """Kahneman-Tversky optimisation: from single answers, called good or bad, to a policy."""

    learning_rate: float = setting(
        3e-3,
        "Learning rate",
        "Step size of the adapter. 3e-3 suits the starter model; larger ones take 1e-5.",
        0.0,
        1.0,
    )
    num_train_epochs: int = setting(1, "Epochs", "Passes over the answers; more than a few overfit.", 1, 1000)
    batch_size: int = setting(
        16,
        "Answers per step",
        "How many answers one step averages. The KL is estimated from them too: 16 or more.",
        2,
        4096,
    )
    beta: float = setting(0.1, "Beta", "Larger keeps the policy closer to where it starts.", 1e-6, 100.0)
    desirable_weight: float = setting(
        1.0,
        "Weight of desirable answers",
        "Number times weight of desirable answers should be 1 to 1.33 times that of undesirable ones.",
        1e-6,
        1e6,
    )
    undesirable_weight: float = setting(
        1.0,
        "Weight of undesirable answers",
        "Change one of the two weights, not both; the run says when they are out of balance.",
        1e-6,
        1e6,
    )
    min_of_each: int = setting(
        10,
        "Fewest answers of each kind",
        "A job with fewer desirable or fewer undesirable answers to train on is refused.",
        1,
        1_000_000,
    )
    annotator_weights: str = _people_setting()
    reliability: str = _reliability_setting(
        "estimated: where people call one answer good and bad, each counts by the log odds of naming the better of two answers "
        "(Dawid & Skene); held-out figures stay what people said."
    )


@dataclass(frozen=True, kw_only=True)
class RoundsSettings:
    """A series of rounds: a reward job, then an IFT job that follows it, each with its own settings."""

    kind: str = setting(
        "adversarial",
        "Kind",
        "adversarial: against the policy's own answers. cooperative: with new judgements of them.",
        choices=("adversarial", "cooperative"),
    )
    rounds: int = setting(3, "Rounds", "How many at most; a series may end earlier.", 1, 20)
    adv_coef: float = setting(
        0.1,
        "Weight of the policy's answers",
        "Beside the judgements; only in adversarial rounds.",
        1e-6,
        100.0,
        advanced=True,
    )
    min_new_judgements: int = setting(
        50, "New judgements between rounds", "Of the newest policy's answers; only in cooperative rounds.", 1, 1_000_000
    )
    max_accuracy_fall: float = setting(
        0.02,
        "Largest fall of accuracy",
        "The series ends when held-out human accuracy is this much below its first round's.",
        0.0,
        1.0,
        advanced=True,
    )


KINDS: Mapping[str, type[CommonSettings]] = {
    "reward": RewardSettings,
    "ppo": PPOSettings,
    "ift": IFTSettings,
    "dpo": DPOSettings,
    "kto": KTOSettings,
    "sft": SFTSettings,
    "pretrain": PretrainSettings,
}


def weights_of(text: str) -> dict[str, float]:
    """Names and numbers of a text such as "ann 0.5, bob 0". A name may hold spaces; BadSettings if one stands twice."""
    found: dict[str, float] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, number = entry.rsplit(maxsplit=1)
        if name in found:
            raise BadSettings(
                f"'annotator_weights' names {name} twice. Give each person one weight.", "weights_twice", name=name
            )
        found[name] = float(number)
    return found


def weights_text(weights: Mapping[str, float]) -> str:
    """The reverse of ``weights_of``."""
    return ", ".join(f"{name} {f'{weight:.6f}'.rstrip('0').rstrip('.')}" for name, weight in weights.items())
