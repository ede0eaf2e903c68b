"""The settings of every kind of training job, one record each.

Standard library only, as settings.py. Names are TRL's where TRL has the setting.
"""

from dataclasses import dataclass
from typing import Any

from backend.training.fields import BadSettings, setting


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
        2048, "Tokens per pass", "Padded tokens in one forward pass: memory against speed.", 16, 1 << 20, advanced=True
    )
    base_dtype: str = setting(
        "auto",
        "Base weights",
        "bfloat16 halves memory and time where the processor has it; auto takes it for bases above 50 million weights.",
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
    annotator_weights: str = _people_setting()

    def __post_init__(self) -> None:
        if self.ties == "model" and self.strength_margin > 0:
            raise BadSettings(
                "'strength_margin' has no meaning with 'ties' set to model, which learns a margin of its own. "
                "Set 'strength_margin' to 0, or 'ties' to half or drop."
            )


@dataclass(frozen=True, kw_only=True)
class OnPolicySettings(CommonSettings):
    """What the methods share that sample answers and follow a reward model."""

    learning_rate: float = setting(
        3e-3,
        "Learning rate",
        "Step size of the adapter. 3e-3 suits the starter model; larger ones take 1e-5.",
        0.0,
        1.0,
    )
    total_episodes: int = setting(768, "Episodes", "Answers sampled in the whole run.", 1, 10_000_000)
    batch_size: int = setting(64, "Episodes per step", "Answers sampled before each update.", 1, 65536)
    num_generations: int = setting(4, "Answers per prompt", "The prompt is read once for all of them.", 1, 256)
    kl_coef: float = setting(0.05, "KL coefficient", "Price of one nat away from the base.", 0.0, 100.0)
    kl_penalty: str = setting(
        "reward",
        "KL charged in",
        "reward: as part of what is paid; loss: beside it, with a gradient of its own, under k2 or k3.",
        choices=("reward", "loss"),
        advanced=True,
    )
    kl_estimator: str = setting(
        "k1",
        "KL estimate",
        "k1 has the right mean and may be negative; k2 is half its square; k3 is never negative.",
        choices=("k1", "k2", "k3"),
        advanced=True,
    )
    temperature: float = setting(1.0, "Temperature", "Of sampling and of every log-probability.", 0.01, 10.0)
    response_length: int = setting(64, "Longest answer in tokens", "An answer is cut there.", 1, 8192)
    missing_eos_penalty: float = setting(
        1.0,
        "Penalty for no end",
        "Subtracted from the score of an answer without an end token.",
        0.0,
        100.0,
        advanced=True,
    )
    reward_clip: float = setting(5.0, "Score clip", "Scores are held within this.", 0.01, 1000.0, advanced=True)
    ensemble: str = setting(
        "mean",
        "Score of an ensemble",
        "Of a reward model with several members: their mean, the least of them, or uwo, the mean less their disagreement.",
        choices=("mean", "min", "uwo"),
        advanced=True,
    )
    uwo_coef: float = setting(
        1.0, "Price of disagreement", "uwo subtracts this times the members' deviation.", 0.0, 100.0, advanced=True
    )
    spread_stop: float = setting(
        0.0,
        "Disagreement stop",
        "The run stops when the members disagree this many times as much as at first; 0 is off.",
        0.0,
        1000.0,
        advanced=True,
    )
    kl_stop: float = setting(
        15.0, "KL stop", "The run stops when answers are this many nats from the base.", 0.1, 10000.0
    )
    entropy_stop: float = setting(
        0.1, "Entropy stop", "The run stops below this share of its first entropy; 0 is off.", 0.0, 1.0, advanced=True
    )
    eval_cases: int = setting(
        50, "Held-out prompts", "Held-out prompts answered before and after training.", 0, 100000, advanced=True
    )

    def __post_init__(self) -> None:
        if (self.kl_penalty, self.kl_estimator) == ("loss", "k1"):
            raise BadSettings(
                "'kl_penalty' loss cannot go with 'kl_estimator' k1: on sampled tokens the gradient of k1 has mean zero, "
                "so nothing would hold the policy. Choose k2, or charge it in the reward."
            )


@dataclass(frozen=True, kw_only=True)
class PPOSettings(OnPolicySettings):
    """PPO with a KL penalty to the bare base."""

    learning_rate: float = setting(
        3e-3,
        "Learning rate",
        "Step size of adapter and value head. 3e-3 suits the starter model; larger ones take 1e-5.",
        0.0,
        1.0,
    )
    num_ppo_epochs: int = setting(1, "Passes per batch", "How often each batch is trained on.", 1, 64)
    num_mini_batches: int = setting(
        4, "Updates per pass", "Into how many parts a batch is cut.", 1, 1024, advanced=True
    )
    kl_target: float = setting(
        0.0, "KL target", "Nats per answer that the coefficient aims at; 0 keeps it fixed.", 0.0, 1000.0, advanced=True
    )
    kl_horizon: int = setting(10000, "KL horizon", "Episodes over which it adapts.", 1, 10_000_000, advanced=True)
    value_adapter: str = setting(
        "none",
        "Value adapter",
        "none: a head on the policy's states; own: an adapter for the values alone; reward: that starts as the reward model.",
        choices=("none", "own", "reward"),
    )
    value_warmup_steps: int = setting(
        0, "Value warm-up", "First steps in which the values learn and the policy rests.", 0, 1_000_000, advanced=True
    )
    whiten_rewards: bool = setting(
        False, "Whiten rewards", "Scales each batch's rewards to variance 1; their mean stays.", advanced=True
    )
    approx_kl_stop: float = setting(
        0.1,
        "Batch KL stop",
        "A batch is left once the policy is this many nats per token from the one that sampled it; 0 is off.",
        0.0,
        100.0,
        advanced=True,
    )
    cliprange: float = setting(0.2, "Policy clip", "How far a token's ratio pays.", 1e-6, 10.0, advanced=True)
    cliprange_value: float = setting(0.2, "Value clip", "How far a value moves at once.", 1e-6, 1000.0, advanced=True)
    vf_coef: float = setting(0.1, "Value loss weight", "Weight of the value loss.", 0.0, 100.0, advanced=True)
    gamma: float = setting(1.0, "Discount", "1: a later token's reward counts in full.", 0.0, 1.0, advanced=True)
    lam: float = setting(0.95, "GAE lambda", "1: no bias, more noise.", 0.0, 1.0, advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        steps = max(1, self.total_episodes // self.batch_size)
        if self.value_warmup_steps >= steps:
            raise BadSettings(
                f"'value_warmup_steps' is {self.value_warmup_steps} and the run has {steps} steps: the policy would never "
                "be trained. Lower it, or raise 'total_episodes'."
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
        3e-3,
        "Learning rate",
        "Step size of the adapter. 3e-3 suits the starter model; larger ones take 1e-5.",
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


@dataclass(frozen=True, kw_only=True)
class IFTSettings(OnPolicySettings):
    """REINFORCE on the learned reward with a leave-one-out baseline."""

    num_generations: int = setting(
        4, "Answers per prompt", "Each answer is measured against the others; 1 takes a moving average.", 1, 256
    )


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(CommonSettings):
    """Continued pretraining of an adapter on plain texts, with the objective of the base's family."""

    learning_rate: float = setting(
        3e-3,
        "Learning rate",
        "Step size of the adapter. 3e-3 suits the starter model; larger ones take 1e-4.",
        0.0,
        1.0,
    )
    num_train_epochs: int = setting(1, "Epochs", "Passes over the texts.", 1, 1000)
    batch_size: int = setting(
        16, "Texts per step", "How many texts, or pieces of long ones, one step averages.", 1, 4096
    )
    warmup_share: float = setting(0.03, "Warm-up share", "Share of steps in which the rate rises.", 0.0, 1.0)
    mlm_probability: float = setting(
        0.15, "Masked share", "BERT: share of the tokens that are hidden and predicted.", 0.01, 0.9, advanced=True
    )
    noise_density: float = setting(
        0.15, "Removed share", "T5: share of the tokens that are cut out and written again.", 0.01, 0.9, advanced=True
    )
    mean_noise_span_length: float = setting(
        3.0, "Tokens per span", "T5: mean length of what is cut out at one place.", 1.0, 100.0, advanced=True
    )
    plm_probability: float = setting(
        1 / 6, "Predicted share", "XLNet: share of the tokens that are predicted.", 0.01, 0.9, advanced=True
    )
    max_span_length: int = setting(
        5, "Longest span", "XLNet: most tokens predicted side by side.", 1, 100, advanced=True
    )
    min_texts: int = setting(20, "Fewest texts", "A job with fewer texts to learn from is refused.", 1, 1_000_000)
