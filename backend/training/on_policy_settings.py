"""Settings of the methods that sample answers and follow a reward model: PPO and IFT. Standard library only."""

from dataclasses import dataclass

from backend.training.options import BadSettings, CommonSettings, setting


@dataclass(frozen=True, kw_only=True)
class OnPolicySettings(CommonSettings):
    """What the methods share that sample answers and follow a reward model."""

    learning_rate: float = setting(
        2e-3,
        "Learning rate",
        "Step size of the adapter. 2e-3 suits the starter model; larger ones take 1e-5.",
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
                "so nothing would hold the policy. Choose k2, or charge it in the reward.",
                "settings_kl",
            )
        if rest := self.batch_size % self.num_generations:
            near = self.batch_size - rest or self.num_generations
            raise BadSettings(
                f"'batch_size' is {self.batch_size}, and each prompt has 'num_generations' {self.num_generations} answers, so a "
                f"step cannot have so many. Set 'batch_size' to a multiple of them, such as {near}.",
                "settings_batch",
                batch=self.batch_size,
                answers=self.num_generations,
                near=near,
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
                "be trained. Lower it, or raise 'total_episodes'.",
                "settings_warmup",
                warmup=self.value_warmup_steps,
                steps=steps,
            )


@dataclass(frozen=True, kw_only=True)
class IFTSettings(OnPolicySettings):
    """REINFORCE on the learned reward with a leave-one-out baseline."""

    num_generations: int = setting(
        4, "Answers per prompt", "Each answer is measured against the others; 1 takes a moving average.", 1, 256
    )
