"""Settings of the job that says which comparisons to ask first. Standard library only, as settings.py."""

from dataclasses import dataclass

from backend.training.options import setting

RULES = ("disagreement", "uncertainty", "coverage")


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Which rule orders the queue, and what it may cost."""

    rule: str = setting(
        "disagreement",
        "Rule",
        "disagreement: where the reward model's members differ, or probes without such; uncertainty: where a probe would learn most; "
        "coverage: what is least like anything judged.",
        choices=RULES,
    )
    most: int = setting(
        1000,
        "Chosen one by one",
        "So many are chosen in turn, each knowing the ones before; the rest follows.",
        1,
        20_000,
    )
    max_length: int = setting(1024, "Longest text in tokens", "A longer case loses its beginning.", 16, 131072)
    tokens_per_microbatch: int = setting(2048, "Tokens per pass", "Padded tokens in one forward pass.", 16, 1 << 20)
    base_dtype: str = setting("auto", "Base weights", "As for training.", choices=("auto", "float32", "bfloat16"))
    threads: int = setting(0, "Threads", "0 takes the processor's cores, at most 4.", 0, 256)
