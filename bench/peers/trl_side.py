# mypy: ignore-errors
"""TRL's side of the training measurement. Runs in an environment of its own, where TRL is installed, and imports no code
of this project. Arguments: JSON with method, setting, size, folder, amount and batch. Prints one line of JSON."""

import json
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.update(TRL_EXPERIMENTAL_SILENCE="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
warnings.simplefilter("ignore")

import torch  # noqa: E402 after the environment is set
import transformers  # noqa: E402
from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)

COMPARED = 8  # rows of the batch whose loss both sides tell
RESPONSE = 32  # tokens of a sampled answer
SEVERAL = 4  # answers to one prompt
PRECISION = {"default": {}, "best": {"gradient_checkpointing": False, "bf16": True}}


class Clock(TrainerCallback):
    """Seconds from the first step to the end of the last; setting up is not counted."""

    def __init__(self):
        self.begun = self.ended = now()

    def on_train_begin(self, *_, **__):
        self.begun = now()

    def on_step_end(self, *_, **__):
        self.ended = now()


def now():
    """Seconds of the clock, and of this process on all its threads."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def spent(begun, ended):
    return {"seconds": ended[0] - begun[0], "cpu_seconds": ended[1] - begun[1]}


def rows_of(order):
    with (Path(order["folder"]) / "rows.jsonl").open(encoding="utf-8") as stream:
        return [json.loads(line) for line, _ in zip(stream, range(order["amount"]), strict=False)]


def lora(task, **more):
    return LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type=task, **more)


def common(order, batch=8):
    """TRL's defaults but for what keeps the disk and the network out of it; the batch of a step is the order's."""
    several = order["setting"] == "best"
    size = min(order.get("device_batch", batch), order["batch"]) if several else batch
    steps = max(1, order["batch"] // size) if several else 1
    dtypes = {"default": torch.float32, "best": torch.bfloat16}
    return {
        "output_dir": tempfile.mkdtemp(),
        "use_cpu": not torch.cuda.is_available(),
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "num_train_epochs": 1,
        "dataloader_pin_memory": False,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": steps,
        **PRECISION[order["setting"]],
    }, dtypes[order["setting"]]


def causal(order, dtype):
    return AutoModelForCausalLM.from_pretrained(Path(order["folder"]) / f"base-{order['size']}", dtype=dtype)


def judge(order, dtype=torch.float32):
    return AutoModelForSequenceClassification.from_pretrained(
        Path(order["folder"]) / f"reward-{order['size']}", dtype=dtype, num_labels=1
    )


def tokenizer_of(order):
    return AutoTokenizer.from_pretrained(Path(order["folder"]) / "tokenizer")


def first_loss(trainer):
    """The loss of the first rows before any step, by TRL's own code."""
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[i] for i in range(COMPARED)]))
    trainer.model.train()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        return float(trainer.compute_loss(trainer.model, batch))


def timed(trainer):
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    return spent(clock.begun, clock.ended)


def reward(order):
    from trl import RewardConfig, RewardTrainer

    chosen = [
        {"chosen_ids": r["prompt"] + r["chosen"], "rejected_ids": r["prompt"] + r["rejected"]} for r in rows_of(order)
    ]
    options, dtype = common(order)
    trainer = RewardTrainer(
        model=judge(order, dtype),
        args=RewardConfig(**options),
        train_dataset=Dataset.from_list(chosen),
        processing_class=tokenizer_of(order),
        peft_config=lora("SEQ_CLS", modules_to_save=["score"]),
    )
    loss = first_loss(trainer)
    return {"loss": loss, **timed(trainer), "units": len(chosen)}


def sft(order):
    from trl import SFTConfig, SFTTrainer

    rows = rows_of(order)
    texts = [{"prompt": row["texts"][0], "completion": row["texts"][1]} for row in rows]
    options, dtype = common(order)
    trainer = SFTTrainer(
        model=causal(order, dtype),
        args=SFTConfig(**options),
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer_of(order),
        peft_config=lora("CAUSAL_LM"),
    )
    loss = first_loss(trainer)
    tokens = sum(len(row["prompt"]) + len(row["chosen"]) for row in rows)
    return {"loss": loss, **timed(trainer), "units": tokens}


def dpo(order):
    from trl import DPOConfig, DPOTrainer

    rows = rows_of(order)
    texts = [dict(zip(("prompt", "chosen", "rejected"), row["texts"], strict=True)) for row in rows]
    options, dtype = common(order)
    options["precompute_ref_log_probs"] = order["setting"] == "best"
    before = []
    plain = DPOTrainer._precompute_ref_logps

    def precompute(self, *args, **kwargs):
        begun = now()
        made = plain(self, *args, **kwargs)
        before.append(spent(begun, now()))
        return made

    DPOTrainer._precompute_ref_logps = precompute
    trainer = DPOTrainer(
        model=causal(order, dtype),
        args=DPOConfig(**options),
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer_of(order),
        peft_config=lora("CAUSAL_LM"),
    )
    first_loss(trainer)
    told = trainer._metrics["train"]["logps/chosen"][0]  # at the start the loss is ln 2 whatever the model says
    trainer._metrics["train"].clear()
    parts = [timed(trainer), *before]
    return {"loss": told, **{key: sum(part[key] for part in parts) for key in parts[0]}, "units": len(texts)}


def ift(order):
    from trl import RLOOConfig, RLOOTrainer

    rows = rows_of(order)[: order["amount"] // SEVERAL]
    options, dtype = common(order)
    options |= {"num_generations": SEVERAL, "max_completion_length": RESPONSE}
    tokenizer = tokenizer_of(order)
    tokenizer.chat_template = None
    judging = judge(order)
    judging.config.pad_token_id = tokenizer.pad_token_id
    trainer = RLOOTrainer(
        model=causal(order, dtype),
        args=RLOOConfig(**options),
        reward_funcs=[judging],
        reward_processing_classes=[tokenizer],
        train_dataset=Dataset.from_list([{"prompt": row["texts"][0]} for row in rows]),
        processing_class=tokenizer,
        peft_config=lora("CAUSAL_LM"),
    )
    return {"loss": first_logp(trainer.model, order), **timed(trainer), "units": len(rows) * SEVERAL}


def ppo(order):
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    rows = rows_of(order)[: order["amount"]]
    options, dtype = common(order)
    options |= {
        "gradient_accumulation_steps": max(1, order["batch"] // 8),
        "total_episodes": order["amount"],
        "response_length": RESPONSE,
        "num_sample_generations": 0,
        "temperature": 1.0,
        "stop_token": "eos",
    }
    tokenizer = tokenizer_of(order)
    policy = causal(order, dtype)
    trainer = PPOTrainer(
        args=PPOConfig(**options),
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=judge(order, dtype),
        value_model=judge(order, dtype),
        train_dataset=Dataset.from_list([{"input_ids": row["prompt"]} for row in rows]),
        eval_dataset=Dataset.from_list([{"input_ids": row["prompt"]} for row in rows[:8]]),
        peft_config=lora("CAUSAL_LM"),
    )
    logp = first_logp(trainer.policy_model, order)
    begun = now()
    trainer.train()
    return {"loss": logp, **spent(begun, now()), "units": order["amount"]}


@torch.no_grad()
def first_logp(model, order):
    """Mean log-probability of the first rows' answers under the untrained policy, by TRL's own gathering."""
    from trl.trainer.utils import selective_log_softmax

    found = []
    for row in rows_of(order)[:COMPARED]:
        ids = torch.tensor([row["prompt"] + row["chosen"]], device=next(model.parameters()).device)
        count = len(row["chosen"])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -count - 1 : -1]
        found.append(selective_log_softmax(logits.float(), ids[:, -count:]).mean())
    return float(torch.stack(found).mean())


METHODS = {"reward": reward, "sft": sft, "dpo": dpo, "ift": ift, "ppo": ppo}

if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    torch.manual_seed(0)
    if torch.cuda.is_available():  # loads its kernels on their first use
        METHODS[asked["method"]]({**asked, "amount": min(32, asked["amount"])})
        torch.cuda.reset_peak_memory_stats()
    told = METHODS[asked["method"]](asked)
    told["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if torch.cuda.is_available():
        told["peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps(told), flush=True)
