"""The prompt endpoint: POST /v1/prompts/<template>/<version> with a token; values in, a completion out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from backend import serving
from backend.access import Denied
from backend.engines.address import Refused
from backend.engines.answers import EngineError
from backend.engines.kept import SamplingSettings
from backend.engines.keys import NoKey
from backend.problem import Problem
from backend.prompts.budget import BudgetProblem
from backend.prompts.chat import PromptProblem
from backend.prompts.fewshot import FewShotProblem
from backend.prompts.problem import TemplateProblem
from backend.serving import Asked, CannotServe, Served
from feedback_db.types import Message
from ui.context import Ui
from ui.gate import RateLimit

PER_MINUTE = 600  # requests of one token
AT_ONCE = 24  # answers under way, the others wait in line: of 40 threads some stay free for labels, however slow an engine is; our choice
BEARER = re.compile(r"Bearer +(\S+)", re.IGNORECASE)


class Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: str


class Body(BaseModel):
    """Unknown keys and numbers in quotes are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    values: Annotated[dict[str, str], Field(max_length=64)] = {}
    conversation: Annotated[list[Turn], Field(max_length=256)] = []
    model: Annotated[str, Field(min_length=1, max_length=200)] = "live"
    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 96
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


def add_routes(app: FastAPI, ui: Ui, clock: Callable[[], float]) -> None:
    limit = RateLimit(PER_MINUTE, 60, clock)
    room = asyncio.Semaphore(AT_ONCE)

    @app.post("/v1/prompts/{name:path}/{version}")
    async def complete(request: Request, name: str, version: str) -> JSONResponse:
        secret = BEARER.fullmatch(request.headers.get("authorization", ""))
        token = secret[1] if secret else None
        try:
            admitted, _ = await run_in_threadpool(serving.admitted, ui.store, token)
            if wait := limit.wait_seconds(admitted.id or 0):
                return _error(429, f"At most {PER_MINUTE} requests a minute. Try again in {wait} s.", "too_fast", wait)
            body = Body.model_validate_json(await request.body())
            asked = _asked(name, version, body)
            async with room:
                return JSONResponse(_view(await run_in_threadpool(serving.answer, ui.store, ui.engine, token, asked)))
        except ValidationError as problem:
            first = problem.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "body"
            return _error(422, f"{field}: {first['msg']}.", "bad_body")
        except CannotServe as problem:
            return _error(problem.status, str(problem), problem.code)
        except Denied as problem:
            return _error(403, str(problem), problem.code)
        except EngineError as problem:
            full = problem.status == 429
            return _error(
                429 if full else 502, str(problem), (problem.status and problem.code) or "engine", 1 if full else 0
            )
        except (Refused, NoKey) as problem:  # of a remote engine: the rest of the request is in order
            return _error(404 if problem.code == "engine_gone" else 502, str(problem), problem.code)
        except Problem as problem:  # of the template, the values or the budget
            is_of_the_prompt = isinstance(problem, TemplateProblem | FewShotProblem | PromptProblem | BudgetProblem)
            return _error(422, str(problem), (not is_of_the_prompt and problem.code) or "bad_prompt")


def _asked(name: str, version: str, body: Body) -> Asked:
    turns: list[Message] = [{"role": turn.role, "content": turn.content} for turn in body.conversation]
    sampling = SamplingSettings(temperature=body.temperature, top_p=body.top_p, max_tokens=body.max_tokens)
    return Asked(name, version, body.values, turns, body.model, sampling, body.seed)


def _view(served: Served) -> dict[str, Any]:
    said, template, model = served.answer, served.template, served.model
    return {
        "completion": said.text,
        "finish_reason": said.finish_reason,
        "template": {"name": template.name, "version": template.version, "digest": template.digest.hex()},
        "model": {"name": model.name, "digest": model.digest.hex() if model.digest else None},
        "demonstrations": list(served.demonstration_ids),
        "dropped": list(served.dropped_ids),
        "usage": {"prompt_tokens": said.prompt_tokens, "completion_tokens": said.tokens},
        "completion_id": served.completion_id,
    }


def _error(status: int, message: str, code: str, retry_after: int = 0) -> JSONResponse:
    headers = {"retry-after": str(retry_after)} if retry_after else {}
    return JSONResponse({"error": {"message": message, "code": code}}, status, headers=headers)
