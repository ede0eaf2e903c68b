"""A server with vLLM's routes: the base and adapters by name, adapters added and taken out while it runs, its errors.

It reads of an adapter folder what vLLM reads (adapter_config.json with its rank, adapter_model.safetensors), and answers with the
name of the adapter that was asked, so that a wrong one shows.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from safetensors import safe_open

BASE = "Qwen/Qwen2.5-0.5B-Instruct"


class Refused(Exception):
    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class Vllm:
    """What ``vllm serve BASE --api-key KEY --enable-lora --max-lora-rank R --lora-modules NAME=FOLDER ...`` would hold."""

    def __init__(self, key: str, max_lora_rank: int, lora_modules: dict[str, Path]) -> None:
        self.key, self.max_lora_rank = key, max_lora_rank
        self.adapters: dict[str, str] = {}
        self.port = 0
        for name, folder in lora_modules.items():
            self.load({"lora_name": name, "lora_path": str(folder)})

    def models(self, _: Any) -> dict[str, Any]:
        card = {"object": "model", "created": 1, "owned_by": "vllm", "max_model_len": 32768, "permission": []}
        cards = [{**card, "id": BASE, "root": BASE, "parent": None}]
        cards += [{**card, "id": name, "root": path, "parent": BASE} for name, path in self.adapters.items()]
        return {"object": "list", "data": cards}

    def load(self, body: dict[str, Any]) -> str:
        name, path = body.get("lora_name"), body.get("lora_path")
        if not name or not path:
            raise Refused(400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided.")
        if name in self.adapters:
            raise Refused(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded.")
        config = Path(path) / "adapter_config.json"
        if not config.is_file():
            raise Refused(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for {path}")
        rank = json.loads(config.read_text())["r"]
        if rank > self.max_lora_rank:
            said = f"LoRA rank {rank} is greater than max_lora_rank {self.max_lora_rank}."
            raise Refused(400, "BadRequestError", said)
        with safe_open(Path(path) / "adapter_model.safetensors", framework="np") as file:
            strange = [key for key in file.keys() if not key.startswith("base_model.model.") or ".lora_" not in key]  # noqa: SIM118
        if strange:
            raise Refused(400, "BadRequestError", f"unexpected modules: {strange[:2]}")
        self.adapters[name] = path
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, body: dict[str, Any]) -> str:
        name = body.get("lora_name")
        if name not in self.adapters:
            raise Refused(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        return f"Success: LoRA adapter '{name}' removed successfully."

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        self._known(body)
        count = sum(len(message["content"].split()) for message in body["messages"])
        return {"count": count, "max_model_len": 32768, "tokens": list(range(count)), "token_strs": None}

    def chat(self, body: dict[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
        """A whole answer, or the chunks of a stream."""
        model = self._known(body)
        text = f"{model} says so"
        usage = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
        head = {"id": "chatcmpl-1", "created": 1, "model": model}
        if not body.get("stream"):
            told = (
                [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}] if body.get("logprobs") else None
            )
            message = {
                "role": "assistant",
                "content": text,
                "refusal": None,
                "tool_calls": [],
                "reasoning_content": None,
            }
            choice = {"index": 0, "message": message, "finish_reason": "stop", "stop_reason": None}
            choice |= {"logprobs": {"content": told} if told else None, "token_ids": None}
            more = {
                "system_fingerprint": None,
                "service_tier": None,
                "prompt_logprobs": None,
                "kv_transfer_params": None,
            }
            return {**head, "object": "chat.completion", "choices": [choice], "usage": usage, **more}
        deltas: list[dict[str, Any]] = [
            {"role": "assistant", "content": ""},
            *({"content": it} for it in text.split(" ")),
        ]
        chunks = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas]
        chunks.append({"index": 0, "delta": {"content": ""}, "finish_reason": "stop", "stop_reason": None})
        streamed = [{**head, "object": "chat.completion.chunk", "choices": [chunk]} for chunk in chunks]
        if (body.get("stream_options") or {}).get("include_usage"):
            streamed.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
        return streamed

    def _known(self, body: dict[str, Any]) -> str:
        model = str(body.get("model"))
        if model != BASE and model not in self.adapters:
            raise Refused(404, "NotFoundError", f"The model `{model}` does not exist.")
        return model


@contextmanager
def vllm(key: str, max_lora_rank: int = 16, **lora_modules: Path) -> Iterator[Vllm]:
    """The server in a thread. Names of adapters are given with _ for -."""
    state = Vllm(key, max_lora_rank, {name.replace("_", "-"): folder for name, folder in lora_modules.items()})
    routes = {
        ("GET", "/v1/models"): state.models,
        ("POST", "/v1/chat/completions"): state.chat,
        ("POST", "/v1/load_lora_adapter"): state.load,
        ("POST", "/v1/unload_lora_adapter"): state.unload,
        ("POST", "/tokenize"): state.tokenize,
        ("GET", "/health"): lambda _: {},
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                if self.path.startswith("/v1") and self.headers.get("Authorization") != f"Bearer {state.key}":
                    self._send(401, {"error": "Unauthorized"})
                    return
                route = routes.get((self.command, self.path))
                if route is None:
                    self._send(404, {"detail": "Not Found"})
                    return
                said: Any = route(json.loads(raw) if raw else None)
                self._stream(said) if isinstance(said, list) else self._send(200, said)
            except Refused as refused:
                error = {"message": str(refused), "type": refused.kind, "param": None, "code": refused.status}
                self._send(refused.status, {"error": error})

        do_GET = do_POST = _answer

        def _send(self, status: int, said: Any) -> None:
            raw = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def _stream(self, chunks: list[dict[str, Any]]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Connection", "close")
            self.end_headers()
            for line in [*map(json.dumps, chunks), "[DONE]"]:
                self.wfile.write(f"data: {line}\n\n".encode())
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
