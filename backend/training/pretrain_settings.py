"""Settings of pretraining; settings.py hands them on."""

from dataclasses import dataclass

from backend.training.options import CommonSettings, setting


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
