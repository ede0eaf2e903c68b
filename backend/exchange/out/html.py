"""One HTML file to hand around: no script, nothing from elsewhere, a policy that forbids both, every text escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape

from backend.exchange.out.sheet import Answered, Exported, Sheet
from backend.exchange.plan import Notes
from backend.prompts.rows import rows_told
from feedback_db.cases import conversation
from feedback_db.types import Message

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = (
    ":root{color-scheme:light dark;--line:#d0d7de;--soft:#f6f8fa;--good:#1a7f37;--bad:#b42318}"
    "@media(prefers-color-scheme:dark){:root{--line:#3d444d;--soft:#20262d;--good:#4ac26b;--bad:#ff8a80}}"
    "body{font:15px/1.55 system-ui,'Noto Sans CJK SC',sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "h1{font-size:1.5rem}h2{font-size:1.15rem;border-bottom:1px solid var(--line);padding-bottom:.2rem;margin-top:2.2rem}h3{font-size:1rem}"
    "dl{margin:.4rem 0}dt{font-size:.8rem;opacity:.75;margin-top:.5rem}dd{margin:0}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.5 ui-monospace,monospace;background:var(--soft);"
    "border:1px solid var(--line);border-radius:6px;padding:.5rem .7rem;margin:.2rem 0}"
    ".good{color:var(--good)}.bad{color:var(--bad)}@media print{body{margin:0;max-width:none}}"
)


def page(sheet: Sheet, notes: Notes) -> Exported:
    parts = [f"<h1>{escape(sheet.title)}</h1>"]
    for one in sheet.templates:
        version = f"v{one.template.version}, {one.template.mode}"
        parts.append(f"<section><h2>{escape(one.label)} <small>({escape(version)})</small></h2><dl>")
        parts.append(_turns({"role": row["role"], "content": row.get("text", "…")} for row in rows_told(one.template)))
        for i, shown in enumerate(one.demonstrations or (), 1):
            parts.append(_term(f"demonstration {i}", f"{shown.input}\n→ {shown.output}"))
        parts.append("</dl></section>")
    if sheet.checks:
        rows = "\n".join(json.dumps(row, ensure_ascii=False) for row in sheet.checks)
        rows += "" if sheet.threshold is None else f"\nthreshold {sheet.threshold:g}"
        parts.append(f"<section><h2>checks</h2><pre>{escape(rows)}</pre></section>")
    for place, case in enumerate(sheet.cases):
        answers = [one for one in sheet.answers if one.case == place]
        parts.append(f'<section><h2 id="case-{place + 1}">case {place + 1}</h2>')
        written = sheet.written[place] if not answers else {}
        if not written and not answers:
            parts.append(f"<dl>{_turns(conversation(case.values, case.conversation))}</dl>")
        for label, messages in written.items():
            parts.append(f"<h3>{escape(label)}</h3><dl>{_turns(messages)}</dl>")
        if case.expected is not None:
            parts.append(f"<dl>{_term('expected', case.expected)}</dl>")
        parts += [_answer(one) for one in answers]
        parts.append("</section>")
    whole = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"<title>{escape(sheet.title)}</title><style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )
    return Exported("prompts.html", "text/html", whole.encode("utf-8"), tuple(notes.kept))


def _answer(one: Answered) -> str:
    head = f"<h3>{escape(one.title)}</h3><dl>{_turns(one.messages)}"
    if one.problem:
        return f"{head}{_term('no answer', one.problem)}</dl>"
    mark = f'<span class="{"good" if one.passed else "bad"}">{"passed" if one.passed else "failed"}</span>, score {one.score:.2f}'
    reasons = f"<pre>{escape(chr(10).join(one.reasons))}</pre>" if one.reasons else ""
    return f"{head}<dt>answer: {mark}</dt><dd><pre>{escape(one.text)}</pre>{reasons}</dd></dl>"


def _turns(messages: Iterable[Message]) -> str:
    return "".join(_term(turn["role"], turn["content"]) for turn in messages if turn["content"])


def _term(name: str, text: str) -> str:
    return f"<dt>{escape(name)}</dt><dd><pre>{escape(text)}</pre></dd>"
