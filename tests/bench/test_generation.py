"""What the generation measurement asks both sides, when it refuses to time them, and what it makes of what they tell."""

import importlib.util
import itertools
import json
import math
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from backend.engines.local.asking import Piece
from backend.engines.local.loading import load_base
from backend.engines.local.model import verify_adapter
from backend.engines.local.resolver import Resolved
from backend.registry import artifacts
from bench import bandwidth, clients, engine_side, generation, workload
from bench.training import PeerFailed

SIDE = {"units": 96, "cpu_seconds": 2.0, "seconds": 4.0, "peak_mb": 7.4, "greedy": [[1, 2]]}


def fake(monkeypatch, tmp_path, **told):
    """Sides that tell at once what they are given; what each was asked is kept."""
    asked = []

    def run(command, order, way):
        asked.append((way, json.loads(json.dumps(order))))
        return {**SIDE, **told.get(way, {})}

    monkeypatch.setattr(generation, "run", run)
    monkeypatch.setattr(workload, "adapters", lambda folder, size, count: [workload.Adapter("a", "b")] * count)
    lines = [json.dumps({"prompt": [at] * 150}) for at in range(400)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), "utf-8")
    return asked


def test_every_side_is_asked_the_same_in_turn_and_compared_once(monkeypatch, tmp_path):
    asked = fake(monkeypatch, tmp_path)
    rows, facts = generation.beside_peers(generation.WORK[0], "6M", "float32", tmp_path, 2)
    ways = ["writing", "call_per_candidate", "call_per_adapter", "mixed_batch"]
    assert [way for way, _ in asked] == ways * 2
    assert [order["is_compared"] for _, order in asked] == [True] * 4 + [False] * 4
    assert all({**order, "is_compared": True} == asked[0][1] for _, order in asked)
    assert [(row.ratio, row.reach) for row in rows] == [(1.0, ">= 10"), (1.0, ">= 3.5"), (1.0, ">= 3")]
    assert facts["ours"]["tokens_per_cpu_second"] == [48.0, 48.0] and facts["mixed_batch"]["peak_mb"] == [7, 7]


def test_no_prompt_is_asked_twice_and_each_pass_has_sixteen_answers(monkeypatch, tmp_path):
    fake(monkeypatch, tmp_path)
    for work in generation.WORK:
        order = generation.passes_of(tmp_path, work, "6M")
        prompts = order["checked"] + [prompt for one in order["passes"] for prompt in one]
        assert len({prompt[0] for prompt in prompts}) == len(prompts) == work.prompts * (1 + generation.PASSES["6M"])
        assert {len(prompt) for prompt in prompts} == {generation.PROMPT}
        assert max(1, work.adapters) * work.prompts * work.several == generation.ROWS


def test_whole_numbers_are_ours_alone_beside_peers_in_float32(monkeypatch, tmp_path):
    asked = fake(monkeypatch, tmp_path)
    generation.beside_peers(generation.WORK[1], "6M", "int8", tmp_path, 1)
    assert {(order["dtype"], order["quantisation"]) for _, order in asked} == {("float32", "int8")}
    assert generation.order_of(tmp_path, "6M", "bfloat16", 0)["quantisation"] == "none"


@pytest.mark.parametrize("dtype", ["float32", generation.PUBLISHED, "bfloat16"])
def test_greedy_answers_that_differ_end_the_measurement_in_float32(monkeypatch, tmp_path, dtype):
    fake(monkeypatch, tmp_path, continuous_batch={"greedy": [[1, 3]]})
    monkeypatch.setattr(workload, "published", lambda folder, size: f"{size}-bfloat16")
    if dtype != "bfloat16":
        with pytest.raises(PeerFailed, match="generate_batch"):
            generation.beside_peers(generation.WORK[1], "6M", dtype, tmp_path, 1)
    else:
        generation.beside_peers(generation.WORK[1], "6M", dtype, tmp_path, 1)


def test_a_step_is_its_bytes_per_second_of_the_bandwidth(monkeypatch, tmp_path):
    told = {"bytes": 3e9, "seconds": 1.0, "cpu_seconds": 0.5, "bytes_per_second": 8e9, "bytes_per_cpu_second": 12e9}
    asked = fake(monkeypatch, tmp_path, step=told)
    (row,), facts = generation.step("90M", "float32", 4, tmp_path, 1)
    assert (row.ratio, row.reach, row.ok) == (0.5, ">= 0.5", True)
    assert "12 GB/s" in row.against and facts["bytes"] == [3e9]
    assert asked[0][1]["several"] == 4 and asked[0][1]["threads"] == 1
    assert not any(order["has_second"] for _, order in asked), "peers have one thread"


def test_several_threads_are_told_by_the_clock(monkeypatch, tmp_path):
    told = {"bytes": 3e9, "seconds": 1.0, "cpu_seconds": 1.5, "bytes_per_second": 8e9, "bytes_per_cpu_second": 5e9}
    asked = fake(monkeypatch, tmp_path, step=told, writing={"seconds": 1.0}, return_sequences={"seconds": 4.0})
    (row,), _ = generation.step("90M", "float32", 16, tmp_path, 1, threads=2)
    assert (row.ratio, row.ok) == (0.375, False) and "8 GB/s" in row.against
    rows, _ = generation.beside_peers(generation.WORK[1], "6M", "float32", tmp_path, 1, threads=2)
    assert rows[0].ratio == 4.0
    assert {order["threads"] for _, order in asked} == {2}


@pytest.mark.parametrize("shared", [0, 96])
def test_clients_are_told_by_throughput_and_by_the_wait_for_the_first_token(monkeypatch, tmp_path, shared):
    told = {f"{name}_tokens_per_second": speed for name, speed in (("alone", 10.0), ("together", 60.0))}
    told |= {f"{name}_first_token_seconds": wait for name, wait in (("alone", 0.1), ("together", 0.3))}
    asked = fake(monkeypatch, tmp_path, clients=told)
    rows, _ = generation.many_clients("6M", "float32", tmp_path, quick=True, shared=shared)
    assert [(row.ratio, row.reach, row.ok) for row in rows] == [(6.0, ">= 5", True), (3.0, "<= 2", False)]
    order = asked[0][1]
    prompts = order["checked"] + order["passes"][0]
    assert len(prompts) == 1 + order["alone"] + order["requests"] and order["seed"] == 0
    assert order["has_second"] is None, "the engine as it is started"
    assert len({tuple(prompt[:shared]) for prompt in prompts}) == 1, "what is common is known before anything is timed"
    assert len({tuple(prompt[shared:]) for prompt in prompts}) == len(prompts)


def test_prompts_are_cut_at_the_front_and_too_few_are_refused(tmp_path):
    lines = [json.dumps({"prompt": list(range(length))}) for length in (3, 9, 5, 6)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), "utf-8")
    assert workload.prompts(tmp_path, 2, 5) == [[4, 5, 6, 7, 8], [0, 1, 2, 3, 4]]
    with pytest.raises(ValueError, match="4 prompts of 5 tokens are needed and the pairs have 3"):
        workload.prompts(tmp_path, 4, 5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder as the measurement makes it, with models of a few thousand weights."""
    folder = tmp_path_factory.mktemp("workload")
    workload.trained_tokenizer(list(workload.made_pairs(40))).save_pretrained(folder / "tokenizer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(workload.SIZES, "tiny", workload.Shape(layers=2, width=16, inner=24, heads=2))
        workload.save_models(folder, "tiny")
    lines = [json.dumps({"prompt": [20 + at] * 150}) for at in range(generation.WORN)]
    (folder / "rows.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


def test_adapters_are_whole_by_the_registrys_rules_unlike_and_made_once(made):
    found = workload.adapters(made, "tiny", 2)
    assert found == workload.adapters(made, "tiny", 2) and found[0].digest != found[1].digest
    for one in found:
        verify_adapter(Path(one.folder), one.digest, artifacts.fingerprint(made / "base-tiny"))


def test_a_base_that_was_published_in_bfloat16_is_computed_in_float32_with_adapters_of_its_own(made):
    order = generation.order_of(made, "tiny", generation.PUBLISHED, 1)
    assert (order["dtype"], order["quantisation"]) == ("float32", "none")
    half, whole = (
        LlamaForCausalLM.from_pretrained(place, dtype=torch.float32).state_dict()
        for place in (order["base"], made / "base-tiny")
    )
    assert all(torch.equal(half[name], whole[name].bfloat16().float()) for name in whole)
    assert any(not torch.equal(half[name], whole[name]) for name in whole)
    verify_adapter(Path(order["adapters"][0]), order["digests"][0], artifacts.fingerprint(Path(order["base"])))
    assert generation.order_of(made, "tiny", generation.PUBLISHED, 1) == order, "made once"


def test_a_step_reads_every_weight_but_the_input_embedding_and_each_rows_cache():
    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4}
    for is_tied in (False, True):
        model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=is_tied)).to(torch.bfloat16)
        layer = 8 * 8 * 2 + 8 * 4 * 2 + 3 * 8 * 12 + 2 * 8
        weights = 2 * layer + 8 + 11 * 8
        assert bandwidth.step_bytes(model, 3, 5) == 2 * (weights + 2 * 2 * 1 * 4 * 3 * 5)


def test_the_bandwidth_is_that_of_a_block_read_once(monkeypatch):
    monkeypatch.setattr(bandwidth, "READ_BYTES", 1 << 22)
    monkeypatch.setattr(bandwidth, "_timed", lambda act: (act(), (0.5, 0.25))[1])
    assert bandwidth.measured() == (2.0 * (1 << 22), 4.0 * (1 << 22))


def test_arrivals_come_at_random_and_at_the_asked_rate():
    times = clients.arrivals(4000, 20.0, Random(0))
    assert times == sorted(times) and times[-1] == pytest.approx(200, rel=0.05)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert sum(gap < 0.05 for gap in gaps) / len(gaps) == pytest.approx(1 - math.exp(-1), abs=0.02)


def test_no_run_asks_for_more_than_another():
    for seed in range(5):
        times = clients.arrivals(256, 5.0, Random(seed))
        assert len(times) == 256 and times[63] <= 12.8 <= times[64] and times[-1] <= 51.2


def piece(so_far: int, reason: str | None = None) -> Piece:
    return Piece(0, "", [], reason, so_far, 0.0, 0.25)


def test_the_first_token_is_counted_from_when_the_request_was_due():
    assert clients.first_token_seconds(clients.Asked(1.0, 0.5, [(2.0, piece(2))])) == 0.75


def test_the_wait_that_is_told_is_the_95th_percentile():
    assert clients.percentile([float(at) for at in range(101)]) == pytest.approx(95.0, abs=1e-9)


def test_tokens_are_counted_from_the_first_quarter_of_the_arrivals_to_the_last():
    pieces = [[(1.5, piece(4)), (2.5, piece(6, "length"))], [(4.5, piece(3)), (9.0, piece(8, "length"))], [], []]
    together = [clients.Asked(due, 0.0, one) for due, one in zip((0.0, 2.0, 4.0, 6.0), pieces, strict=True)]
    assert clients.steady_tokens_per_second(together) == (2 + 3) / 4


@pytest.fixture
def order(made, monkeypatch):
    monkeypatch.setattr(generation, "WORN", 2)
    return {
        **generation.order_of(made, "tiny", "float32", 2),
        "checked": [[5, 6, 7, 8], [9, 8, 7, 6]],
        "passes": [[[10, 11, 12, 13], [14, 13, 12, 11]]],
        "new": generation.NEW // 8,
        "several": 2,
        "is_compared": True,
    }


@pytest.fixture
def served(order):
    engine = engine_side.Engine(order)
    yield engine
    engine.scheduler.close()


def test_our_memory_is_used_until_one_more_prompt_puts_another_out(monkeypatch, order):
    monkeypatch.setattr(engine_side, "MEMORY", 4 * 300_000)  # a quarter keeps prompts of 49 kB
    engine = engine_side.Engine(order)
    monkeypatch.setattr(
        engine, "answers", lambda requests, inner=engine.answers: (asked.append(requests), inner(requests))
    )
    asked: list[list[object]] = []
    engine.age([[20 + at] * 150 for at in range(20)], 1)
    cache = engine.scheduler.prefixes
    engine.scheduler.close()
    assert 3 <= len(asked) < 20 and 0.8 * cache.limit_bytes < cache.held_bytes <= cache.limit_bytes
    assert {len(requests) for requests in asked} == {2}, "each model's"


def test_our_side_writes_every_answer_to_its_last_token(order, served):
    told = engine_side.measure_writing(order, served)
    assert told["units"] == 2 * 2 * 2 * 6 and told["cpu_seconds"] > 0
    assert [len(tokens) for tokens in told["greedy"]] == [6] * 4
    assert told["greedy"][:2] != told["greedy"][2:]  # the adapters are not the same


def test_no_token_ends_an_answer_of_itself(order, served):
    assert load_base(order["base"], device="cpu").end_tokens
    assert not served.base.end_tokens


def test_an_answer_that_ends_early_is_no_measurement(order, served):
    with pytest.raises(RuntimeError, match="not 6"):
        served.base.end_tokens = frozenset(range(served.base.vocabulary))
        served.answers(served.requests(order["checked"], 1, 6))


def test_a_failure_of_the_engine_ends_the_measurement(order, served, tmp_path):
    served.models = [Resolved("gone", tmp_path / "gone", "0" * 64)]
    with pytest.raises(RuntimeError, match="The engine failed"):
        served.answers(served.requests(order["checked"], 1, 6))


def test_our_side_tells_a_step_and_its_bytes(monkeypatch, order):
    monkeypatch.setattr(bandwidth, "READ_BYTES", 1 << 22)
    alone = engine_side.Engine({**order, "adapters": [], "digests": []})
    told = engine_side.measure_step({**order, "passes": [[[10, 11, 12, 13]]]}, alone)
    alone.scheduler.close()
    assert told["bytes"] == bandwidth.step_bytes(alone.base.model, 2, 4 + 3)
    assert told["bytes_per_second"] > 0 and told["seconds"] > 0


def test_clients_are_answered_together(order, served):
    order = {**order, "passes": [[[at] * 5 for at in range(5, 60)]], "alone": 4, "requests": 24, "rate": 4.0, "seed": 0}
    told = engine_side.measure_clients(order, served)
    assert told["together_tokens_per_second"] > 0 and told["alone_tokens_per_second"] > 0
    assert told["together_tokens_per_cpu_second"] > 0 and told["alone_tokens_per_cpu_second"] > 0
    assert 0 < told["together_first_token_median_seconds"] <= told["together_first_token_seconds"]


@pytest.fixture
def peers_side(monkeypatch):
    """The peers' side, read afresh: it sets the environment and what is warned of, which end with the test."""
    for name in ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "")
    spec = importlib.util.spec_from_file_location("generate_side", generation.ROOT / generation.THEIRS[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("work", generation.WORK, ids=lambda work: work.label)
def test_every_peer_writes_our_greedy_answers_and_as_many_tokens(order, made, peers_side, work):
    order = {**order, **generation.order_of(made, "tiny", "float32", min(work.adapters, 2)), "several": work.several}
    engine = engine_side.Engine(order)
    ours = engine_side.measure_writing(order, engine)
    engine.scheduler.close()
    for peer in work.peers:
        theirs = peers_side.measure({**order, "way": peer.way})
        assert (peer.way, theirs["greedy"]) == (peer.way, ours["greedy"])
        assert theirs["units"] == ours["units"]
