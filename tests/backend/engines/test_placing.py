"""Device, number format, attention and quantisation of the engine's base: what each does, and why one cannot be had."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from backend.decoder import int8
from backend.engines.local import placing
from backend.engines.local.loading import Setting, load_base
from backend.engines.local.mixed import MixedRows
from backend.engines.local.model import Base, ModelProblem
from backend.engines.local.prefixes import Prefixes
from backend.engines.local.prompts import Fewest, Prompt
from backend.engines.local.resolver import Resolved
from backend.engines.local.resting import Rest
from backend.engines.local.scheduler import Scheduler
from backend.engines.process import EngineProcess
from tests.backend.engines.test_scheduler import GREEDY, Asked, request


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Read by transformers' own attention, as every base is that is not wired like Llama."""
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    torch.manual_seed(0)
    shape = {"n_positions": 128, "n_embd": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
    ids = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape, **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def texts(base: Base, adapter: Resolved | None = None) -> list[str]:
    scheduler = Scheduler(base, row_limit=16)
    asked = [
        Asked(scheduler, request(base, prompt, adapter, sampling=GREEDY, max_tokens=24, n=2))
        for prompt in ([5, 40, 41], [60, 61, 62, 63])
    ]
    found = [text for one in asked for text in one.texts()]
    scheduler.close()
    return found


def health(base: Base) -> dict[str, Any]:
    scheduler = Scheduler(base)
    found = Rest(base, scheduler).health()
    scheduler.close()
    return {key: found[key] for key in ("device", "dtype", "attention", "quantisation")}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_plain_and_fused_attention_write_the_same_greedy_text(base_folder: Path, gpt2: Path, family: str):
    folder = str(gpt2 if family == "gpt2" else base_folder)
    bases = {kind: load_base(folder, Setting("cpu", attention=kind)) for kind in ("auto", "eager", "sdpa")}
    said = {kind: texts(base) for kind, base in bases.items()}
    assert said["eager"] == said["sdpa"] == said["auto"] and len(set(said["eager"])) == 2
    assert [health(bases[kind])["attention"] for kind in ("auto", "eager", "sdpa")] == ["sdpa", "eager", "sdpa"]
    logits = [bases[kind].logits([[5, 6, 7, 8]]) for kind in ("eager", "sdpa")]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float16"])
def test_weights_are_kept_in_the_number_format_that_was_asked_and_health_says_so(base_folder: Path, dtype: str):
    base = load_base(str(base_folder), Setting("cpu", dtype))
    kept = "float32" if dtype == "auto" else dtype
    assert {str(weight.dtype) for weight in base.model.parameters()} == {f"torch.{kept}"}
    assert health(base) == {"device": "cpu", "dtype": kept, "attention": "sdpa", "quantisation": "none"}
    assert len(set(texts(base))) == 2


def test_auto_keeps_the_files_own_format_on_an_accelerator_and_float32_on_a_processor():
    assert placing.dtype_of("auto", torch.device("cuda")) == "auto"
    assert placing.dtype_of("auto", torch.device("cpu")) is torch.float32


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (Setting("cuda:7"), "There is no device cuda:7 that torch can use here"),
        (Setting("mps"), "There is no device mps"),
        (Setting("nonsense"), "nonsense is not a device. Use auto, cpu"),
        (Setting("cpu", dtype="float99"), "float99 is not a number format"),
        (Setting("cpu", attention="flash_attention_2"), "needs an NVIDIA GPU and the package flash-attn"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_to_set(base_folder: Path, setting: Setting, says: str):
    with pytest.raises(ModelProblem, match=says):
        load_base(str(base_folder), setting)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantisation_without_bitsandbytes_says_what_to_install(
    base_folder: Path, bits: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(placing, "find_spec", lambda name: None)
    with pytest.raises(ModelProblem, match=f"{bits} weights need the package bitsandbytes.*pip install bitsandbytes"):
        load_base(str(base_folder), Setting("cpu", quantisation=bits))


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("bits", "most"), [("8bit", 0.6), ("4bit", 0.4)])
def test_quantised_weights_take_less_and_say_nearly_the_same(
    base_folder: Path, adapters: dict[str, Resolved], bits: str, most: float
):
    plain, base = (
        load_base(str(base_folder), device="cpu"),
        load_base(str(base_folder), Setting("cpu", "auto", "auto", bits)),
    )

    def layers(one: Base) -> int:
        return sum(weight.nbytes for name, weight in one.model.named_parameters() if "layers" in name)

    before = layers(base), layers(plain)
    assert before[0] < most * before[1] and base.stack is None
    assert health(base)["quantisation"] == bits
    with base.scope(None):
        near = torch.nn.functional.cosine_similarity(base.logits([[5, 6, 7]]), plain.logits([[5, 6, 7]]), dim=-1)
    assert float(near.min()) > 0.8
    bare = texts(base)
    assert texts(base, adapters["model-1"]) != bare and texts(base) == bare


def test_the_engine_process_is_given_what_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    engine = EngineProcess(tmp_path, "none", device="cpu", dtype="bfloat16", attention="eager", quantisation="4bit")
    told: list[list[str]] = []

    class Started:
        returncode = 3

        def __init__(self, command: list[str], **_: Any) -> None:
            told.append(command)

        def poll(self) -> int:
            return self.returncode

    monkeypatch.setattr("backend.engines.process.subprocess.Popen", Started)
    with pytest.raises(Exception, match="ended while it was starting"):
        engine.client()
    words = told[0]
    given = {word: words[at + 1] for at, word in enumerate(words) if word.startswith("--")}
    assert words[0] == sys.executable
    assert (given["--device"], given["--dtype"]) == ("cpu", "bfloat16")
    assert (given["--attention"], given["--quantisation"]) == ("eager", "4bit")


@pytest.fixture(scope="module")
def in_whole_numbers(base_folder: Path) -> Base:
    if not int8.is_there():
        pytest.skip("this build of torch or this processor has no such products")
    return load_base(str(base_folder), Setting("cpu", quantisation="int8"))


def test_whole_numbers_say_nearly_the_same_and_adapters_stay_beside_them(
    base_folder: Path, in_whole_numbers: Base, adapters: dict[str, Resolved]
):
    plain = load_base(str(base_folder), device="cpu")
    assert health(in_whole_numbers)["quantisation"] == "int8"
    bare = texts(in_whole_numbers)
    assert texts(in_whole_numbers, adapters["model-1"]) != bare and texts(in_whole_numbers) == bare
    prompt = [Prompt(list(range(5, 60)), None, "base")]
    with torch.no_grad():
        first = [
            MixedRows(one.stack, 128, Prefixes(0), Fewest(4, 4)).add(prompt, [0])  # type: ignore[arg-type]
            for one in (plain, in_whole_numbers)
        ]
    assert not torch.equal(*first)
    assert float(torch.nn.functional.cosine_similarity(*first)) > 0.999
    with in_whole_numbers.scope(None), plain.scope(None):  # scores are computed with the weights as they were
        assert torch.equal(in_whole_numbers.logits([[5, 6, 7]]), plain.logits([[5, 6, 7]]))


def test_in_whole_numbers_a_seed_gives_the_same_text_in_any_company(in_whole_numbers: Base):
    def written(scheduler: Scheduler, seed: int) -> Asked:
        prompt = list(range(5, 12 + 3 * seed))
        return Asked(scheduler, request(in_whole_numbers, prompt, seed=seed, max_tokens=12))

    scheduler = Scheduler(in_whole_numbers, row_limit=16)
    alone = [written(scheduler, seed).texts() for seed in range(12)]
    together = [one.texts() for one in [written(scheduler, seed) for seed in range(12)]]
    scheduler.close()
    assert together == alone and len({text for (text,) in alone}) > 6


def test_whole_numbers_that_cannot_be_had_are_refused_with_what_to_set(
    base_folder: Path, gpt2: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(
        ModelProblem, match="int8 weights are for a processor.*Set 'quantisation' to 8bit, 4bit or none"
    ):
        placing.check_quantisation("int8", torch.device("cuda"))
    if int8.is_there():
        with pytest.raises(
            ModelProblem, match="int8 weights are for bases wired like Llama.*Set 'quantisation' to none"
        ):
            load_base(str(gpt2), Setting("cpu", quantisation="int8"))
    monkeypatch.setattr(int8, "is_there", lambda: False)
    with pytest.raises(ModelProblem, match="int8 weights are for a processor"):
        load_base(str(base_folder), Setting("cpu", quantisation="int8"))
