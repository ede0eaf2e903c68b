# mypy: ignore-errors
"""transformers' and peft's side of the generation measurement; it imports no code of this project.

The order comes as JSON on the standard input: way, base (a folder), dtype, threads, adapters (folders), checked and passes
(prompts as token ids), new (tokens of every answer), several (answers to a prompt), is_compared. Prints one line of JSON.
"""

import json
import os
import resource
import sys
import time
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
warnings.simplefilter("ignore")

import torch  # noqa: E402 after the environment is set
from peft import PeftModel  # noqa: E402
from transformers import AutoModelForCausalLM, GenerationConfig  # noqa: E402
from transformers.generation.configuration_utils import ContinuousBatchingConfig  # noqa: E402

PAGED = {
    "page_size": 64,
    "num_blocks": 96,
    "max_batch_tokens": 512,
}  # generate_batch's cache for what is asked here, and not much more
SHORT = 4  # tokens of the warm-up where nothing is compared


def settings(new, is_greedy, **more):
    """No end token, so that every answer has this many tokens; the whole distribution where tokens are drawn."""
    drawn = {"do_sample": False} if is_greedy else {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0}
    return GenerationConfig(max_new_tokens=new, eos_token_id=None, pad_token_id=0, **drawn, **more)


def names(order):
    return [f"adapter{at}" for at in range(len(order["adapters"]))]


def generated(model, rows, config, **more):
    """Answers to prompts of one length, as ids."""
    prompts = torch.tensor(rows)
    found = model.generate(input_ids=prompts, attention_mask=torch.ones_like(prompts), generation_config=config, **more)
    return found[:, prompts.shape[1] :].tolist()


def call_per_candidate(model, prompts, several, config, order):
    found = []
    for name in names(order):
        model.set_adapter(name)
        found += [generated(model, [prompt], config)[0] for prompt in prompts for _ in range(several)]
    return found


def call_per_adapter(model, prompts, several, config, order):
    found = []
    for name in names(order):
        model.set_adapter(name)
        found += generated(model, [prompt for prompt in prompts for _ in range(several)], config)
    return found


def mixed_batch(model, prompts, several, config, order):
    rows = [(prompt, name) for name in names(order) for prompt in prompts for _ in range(several)]
    return generated(model, [prompt for prompt, _ in rows], config, adapter_names=[name for _, name in rows])


def return_sequences(model, prompts, several, config, order):
    config.num_return_sequences = several
    return generated(model, prompts, config)


def continuous_batch(model, prompts, several, config, order):
    """Left to itself: its cache is a large part of memory, and half of the time or more goes into it."""
    return paged(model, prompts, several, config, ContinuousBatchingConfig())


def fitted_batch(model, prompts, several, config, order):
    return paged(model, prompts, several, config, ContinuousBatchingConfig(**PAGED))


def paged(model, prompts, several, config, paging):
    rows = [prompt for prompt in prompts for _ in range(several)]
    found = model.generate_batch(rows, generation_config=config, continuous_batching_config=paging, progress_bar=False)
    return [list(one.generated_tokens) for one in found.values()]


WAYS = {
    "call_per_candidate": call_per_candidate,
    "call_per_adapter": call_per_adapter,
    "mixed_batch": mixed_batch,
    "return_sequences": return_sequences,
    "continuous_batch": continuous_batch,
    "fitted_batch": fitted_batch,
}


def loaded(order):
    model = AutoModelForCausalLM.from_pretrained(order["base"], dtype=getattr(torch, order["dtype"])).eval()
    model.generation_config.eos_token_id = None
    for name, folder in zip(names(order), order["adapters"], strict=True):
        if isinstance(model, PeftModel):
            model.load_adapter(folder, adapter_name=name)
        else:
            model = PeftModel.from_pretrained(model, folder, adapter_name=name)
    return model.eval()


def measure(order):
    """Greedy answers first, one to a prompt, which are compared with the other side's; then the passes that are timed."""
    model, way, new = loaded(order), WAYS[order["way"]], order["new"]
    compared = way(model, order["checked"], 1, settings(new if order["is_compared"] else SHORT, True), order)
    wall, cpu = time.perf_counter(), time.process_time()
    answers = []
    for prompts in order["passes"]:
        answers += way(model, prompts, order["several"], settings(new, False), order)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    wanted = len(order["passes"]) * len(order["passes"][0]) * order["several"] * max(1, len(order["adapters"]))
    if [len(answer) for answer in answers] != [new] * wanted:
        sys.exit(f"{order['way']} wrote {[len(answer) for answer in answers]} tokens, not {wanted} times {new}")
    return {"greedy": compared, "seconds": seconds, "cpu_seconds": cpu_seconds, "units": wanted * new}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    torch.set_num_threads(asked["threads"])
    told = measure(asked)
    print(json.dumps({**told, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)
