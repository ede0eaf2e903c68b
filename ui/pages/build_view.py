"""What the build page shows beside the editor: the exact prompt, the bank of demonstrations, the versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend import prompting
from backend.engines.client import EngineError
from backend.prompting import BadInput, Draft
from backend.prompts.budget import BudgetProblem
from backend.prompts.chat import PromptProblem
from backend.prompts.fewshot import FewShotProblem
from backend.prompts.problem import TemplateProblem
from feedback_db import NotFound
from ui.context import Ui
from ui.views import drawn
from ui.views.words import clock

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
    shown = ", ".join(map(str, seen.demonstration_ids))
    dropped = ", ".join(map(str, seen.dropped_ids))
    left = max(0, seen.max_tokens - seen.tokens)
    return drawn.drawing(
        drawn.budget(
            seen.tokens, seen.max_tokens, say("build.tokens", used=seen.tokens, of=seen.max_tokens, left=left)
        ),
        drawn.note(say("build.dropped", ids=dropped) if dropped else "", "warn"),
        drawn.note(say("build.shown", ids=shown) if shown else ""),
        drawn.note(ui.engine.last_event or "", "warn"),
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


def bank_shown(ui: Ui, project_id: int, draft: Draft, picked: Sequence[int]) -> dict[str, Any]:
    """All demonstrations a draft may draw from; ``picked`` are the chosen ones in order, shown when choosing is by hand."""
    say = ui.guard.say
    found = prompting.demonstrations(
        ui.store, ui.guard.person(), project_id, scenario=draft.scenario, language=draft.language
    )
    return {
        "rows": [{"id": one.id, "input": one.input, "output": one.output, "label": one.label or ""} for one in found],
        "picked": list(picked),
        "picks": draft.few_shot.get("choose", "fixed") == "fixed",
        "words": {
            "caption": say("build.bank", n=len(found)),
            "empty": say("build.bank_empty"),
            **{name: say(f"build.{name}") for name in ("use", "up", "down", "input", "output", "label")},
        },
    }


def versions_shown(ui: Ui, project_id: int, name: str, chosen: int | None) -> dict[str, Any]:
    say = ui.guard.say
    found = prompting.versions(ui.store, ui.guard.person(), project_id, name)
    rows = [
        (
            version.template.id or 0,
            (
                f"v{version.template.version}",
                version.template.note or "–",
                str(version.template.few_shot.get("k", 0)),
                version.by or say("pick.the_app"),
                clock(version.template.created_at),
            ),
        )
        for version in found
    ]
    columns = [say(f"build.{column}") for column in ("version", "note", "k", "by", "when")]
    return drawn.drawing(
        drawn.table(
            columns, rows, caption=say("build.versions"), empty=say("build.no_versions"), chosen=chosen, selects=True
        )
    )
