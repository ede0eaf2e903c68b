"""What the build page shows beside the editor: the exact prompt, and what each part of it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend import prompting
from backend.engines.client import EngineError
from backend.prompting import BadInput, Draft
from backend.prompts.budget import BudgetProblem
from backend.prompts.chat import PromptProblem
from backend.prompts.fewshot import FewShotProblem
from backend.prompts.problem import TemplateProblem
from backend.prompts.segments import Segment
from feedback_db import NotFound
from ui.context import Ui
from ui.views import drawn
from ui.views.words import engine_event

PROBLEMS = (BadInput, BudgetProblem, EngineError, FewShotProblem, PromptProblem, TemplateProblem)


def prompt_shown(
    ui: Ui, project_id: int, draft: Draft, values: Mapping[str, str], case_id: int | None
) -> dict[str, Any]:
    """The messages as a model would see them; what is wrong with the draft stands in their place, not in a pop-up."""
    say = ui.guard.say
    try:
        seen = prompting.preview(ui.store, ui.engine, ui.guard.person(), project_id, draft, values, case_id)
    except (*PROBLEMS, NotFound) as problem:
        return drawn.drawing(drawn.note(ui.text.problem(problem, ui.guard.language()), "bad"))
    dropped = ", ".join(map(str, seen.dropped_ids))
    empty = ", ".join(name for name in prompting.variables(ui.guard.person(), draft) if not values.get(name))
    left = max(0, seen.max_tokens - seen.tokens)
    return drawn.drawing(
        drawn.segments(
            [(part.kind, _named(ui, part), part.tokens) for part in seen.segments],
            seen.max_tokens,
            say("build.tokens", used=seen.tokens, of=seen.max_tokens, left=left),
        ),
        drawn.note(say("build.dropped", ids=dropped) if dropped else "", "warn"),
        drawn.note(say("build.empty", names=empty) if empty else "", "warn"),
        drawn.note(engine_event(ui), "warn"),
        drawn.messages(
            {
                "role": message["role"],
                "label": say(f"role_of.{message['role']}"),
                "text": message["content"],
                "foot": "",
            }
            for message in seen.messages
        ),
    )


def _named(ui: Ui, part: Segment) -> str:
    name = ui.guard.say(f"build.segment.{part.kind}")
    return f"{name} {part.demonstration_id}" if part.demonstration_id else name
