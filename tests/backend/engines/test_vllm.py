"""vLLM as a remote engine: its adapters by name, and what its answers and errors hold beyond OpenAI's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.engines.address import target_of
from backend.engines.answers import EngineError
from backend.engines.client import EngineClient
from backend.engines.guarded import Guarded, client_of
from backend.engines.local.resolver import Resolved
from backend.engines.remote import RemoteClient
from backend.training.settings import DPOSettings, IFTSettings, PPOSettings, SFTSettings
from tests.backend.engines import vllm_stub
from tests.backend.engines.stub import KEY, Reaction, Stub, chat, events, reply, stub
from tests.backend.engines.vllm_stub import Vllm, vllm

HELLO = [{"role": "user", "content": "where is my parcel"}]
BASE = "Qwen/Qwen2.5-0.5B-Instruct"
MODELS = {
    "object": "list",
    "data": [
        {"id": BASE, "object": "model", "owned_by": "vllm", "root": BASE, "parent": None, "max_model_len": 32768},
        {"id": "model-12", "object": "model", "owned_by": "vllm", "root": "/data/models/0a1b", "parent": BASE},
    ],
}


def client_of_stub(server: Stub) -> RemoteClient:
    target = target_of(f"http://127.0.0.1:{server.port}/v1", [f"127.0.0.1:{server.port}"])
    return RemoteClient(client_of(target, Guarded(target)), lambda: "", 32768, pause=lambda _: None)


def told(text: str) -> dict[str, Any]:
    """A whole answer with the fields vLLM adds."""
    logprobs = {"content": [{"token": "a", "logprob": -0.25, "bytes": [97], "top_logprobs": []}]}
    answer = chat(text, logprobs=logprobs, stop_reason=None, token_ids=None)
    return {
        **answer,
        "model": "model-12",
        "system_fingerprint": None,
        "prompt_logprobs": None,
        "kv_transfer_params": None,
    }


def streamed(*texts: str) -> Reaction:
    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason, "stop_reason": None}
        return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "model-12", "choices": [choice]}

    usage = {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}}
    return events(
        [
            chunk({"role": "assistant", "content": ""}),
            *(chunk({"content": it}) for it in texts),
            chunk({}, "stop"),
            usage,
        ]
    )


def test_base_and_adapters_are_offered_by_name():
    with stub(reply(MODELS)) as server:
        assert client_of_stub(server).models() == [BASE, "model-12"]


def test_an_adapter_answers_by_its_name_whole_and_streamed():
    with stub(reply(told("On its way.")), streamed("On ", "its way.")) as server:
        client = client_of_stub(server)
        whole = client.complete(HELLO, model="model-12", seed=7, max_tokens=20)[0]
        last = list(client.stream(HELLO, model="model-12", seed=7, max_tokens=20))[-1].answer
    assert [asked.body["model"] for asked in server.requests] == ["model-12", "model-12"]
    assert (whole.text, whole.mean_logp, whole.fingerprint, whole.model) == ("On its way.", -0.25, "", "model-12")
    assert last is not None and (last.text, last.tokens, last.prompt_tokens) == ("On its way.", 3, 12)


def test_an_adapter_that_is_not_loaded_is_told_as_vllm_tells_it():
    said = "The model `model-13` does not exist."
    old = {"object": "error", "message": said, "type": "NotFoundError", "param": None, "code": 404}
    new = {"error": {"message": said, "type": "NotFoundError", "param": "model", "code": 404}}
    for body in (old, new):
        with stub(reply(body, 404)) as server:
            with pytest.raises(EngineError, match="model-13` does not exist"):
                client_of_stub(server).complete(HELLO, model="model-13")
            assert len(server.requests) == 1


# the steps of docs/engine.md, against a server with vLLM's routes that reads our own adapter folders


@pytest.fixture
def box(adapters: dict[str, Resolved]) -> Iterator[Vllm]:
    with vllm(KEY, model_1=adapters["model-1"].adapter) as started:
        yield started


@pytest.fixture
def remote(box: Vllm) -> Iterator[RemoteClient]:
    target = target_of(f"http://127.0.0.1:{box.port}/v1", [f"127.0.0.1:{box.port}"])
    client = RemoteClient(client_of(target, Guarded(target)), lambda: KEY, 32768, pause=lambda _: None)
    yield client
    client.close()


def post(server: Vllm, route: str, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.post(f"http://127.0.0.1:{server.port}{route}", json=body, headers=headers, trust_env=False)


def test_an_adapter_of_ours_is_served_by_its_name_whole_and_streamed(remote: RemoteClient):
    client = remote
    assert client.models() == [vllm_stub.BASE, "model-1"]
    for model in (vllm_stub.BASE, "model-1"):
        whole = client.complete(HELLO, model=model, seed=7, max_tokens=20)[0]
        last = list(client.stream(HELLO, model=model, seed=7, max_tokens=20))[-1].answer
        assert (whole.text, whole.mean_logp, whole.finish_reason) == (f"{model} says so", -0.5, "stop")
        assert last is not None and (last.text, last.tokens) == (f"{model}saysso", 3)


def test_an_adapter_is_added_and_taken_out_while_it_runs(
    box: Vllm, remote: RemoteClient, adapters: dict[str, Resolved]
):
    client, folder = remote, str(adapters["model-2"].adapter)
    with pytest.raises(EngineError, match="model-2` does not exist"):
        client.complete(HELLO, model="model-2")
    added = post(box, "/v1/load_lora_adapter", lora_name="model-2", lora_path=folder)
    assert (added.status_code, added.text) == (200, "Success: LoRA adapter 'model-2' added successfully.")
    assert client.models()[1:] == ["model-1", "model-2"]
    assert client.complete(HELLO, model="model-2")[0].text == "model-2 says so"
    assert post(box, "/v1/load_lora_adapter", lora_name="model-2", lora_path=folder).status_code == 400
    assert post(box, "/v1/load_lora_adapter", lora_name="model-3", lora_path=f"{folder}0").status_code == 404
    assert post(box, "/v1/unload_lora_adapter", lora_name="model-2").status_code == 200
    with pytest.raises(EngineError, match="model-2` does not exist"):
        client.complete(HELLO, model="model-2")


def test_a_rank_above_the_flag_is_refused_and_the_default_of_a_job_is_not(adapters: dict[str, Resolved]):
    with vllm(KEY, max_lora_rank=2) as small:
        told = post(small, "/v1/load_lora_adapter", lora_name="model-1", lora_path=str(adapters["model-1"].adapter))
        assert told.status_code == 400 and "rank 4 is greater than max_lora_rank 2" in told.text
    words = (Path(__file__).parents[3] / "docs" / "engine.md").read_text(encoding="utf-8")
    assert {settings().lora_r for settings in (SFTSettings, IFTSettings, PPOSettings, DPOSettings)} == {16}
    assert "--max-lora-rank 16" in words and "`lora_r` of a job, 16 unless set" in words


def test_tokens_are_counted_on_the_route_that_both_have(box: Vllm):
    client = EngineClient(f"http://127.0.0.1:{box.port}", KEY)
    counted = client.tokenize(HELLO, "model-1")
    assert (counted.count, counted.max_model_len) == (4, 32768)
    client.close()


def test_a_wrong_key_is_told_in_our_words(box: Vllm, remote: RemoteClient):
    box.key = "another"
    with pytest.raises(EngineError, match="key"):
        remote.models()
