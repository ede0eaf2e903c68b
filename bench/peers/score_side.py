# mypy: ignore-errors
"""transformers' side of the prompts measurement; it imports no code of this project.

The order comes as JSON on the standard input: way, base (a folder), threads, prompts (texts up to where an answer begins), labels
(texts, each one token). Prints one line of JSON.
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
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402


def per_label(model, tokenizer, prompt, labels):
    """A forward for each label, of whose logits only the last two places' are made."""
    found = []
    for label in labels:
        ids = tokenizer(prompt + label, add_special_tokens=False)["input_ids"]
        logits = model(torch.tensor([ids]), use_cache=False, logits_to_keep=2).logits[0, 0]
        found.append(logits.log_softmax(-1)[ids[-1]].item())
    return found


def per_case(model, tokenizer, prompt, labels):
    """One forward for all labels: they are of one token each."""
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ends = [tokenizer(prompt + label, add_special_tokens=False)["input_ids"][-1] for label in labels]
    logps = model(torch.tensor([ids]), use_cache=False, logits_to_keep=1).logits[0, -1].log_softmax(-1)
    return [logps[end].item() for end in ends]


WAYS = {"per_label": per_label, "per_case": per_case}

if __name__ == "__main__":
    order = json.load(sys.stdin)
    torch.set_num_threads(order["threads"])
    torch.set_grad_enabled(False)
    tokenizer = AutoTokenizer.from_pretrained(order["base"])
    model = AutoModelForCausalLM.from_pretrained(order["base"], dtype=torch.float32).eval()
    way = WAYS[order["way"]]
    way(model, tokenizer, order["warm"], order["labels"])
    wall, cpu = time.perf_counter(), time.process_time()
    scores = [way(model, tokenizer, prompt, order["labels"]) for prompt in order["prompts"]]
    told = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "scores": scores,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(told), flush=True)
