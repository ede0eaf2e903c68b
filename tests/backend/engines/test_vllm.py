"""vLLM as a remote engine: its adapters by name, and what its answers and errors hold beyond OpenAI's."""

from __future__ import annotations

from typing import Any

import pytest

from backend.engines.address import target_of
from backend.engines.answers import EngineError
from backend.engines.guarded import Guarded, client_of
from backend.engines.remote import RemoteClient
from tests.backend.engines.stub import Reaction, Stub, chat, events, reply, stub

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
