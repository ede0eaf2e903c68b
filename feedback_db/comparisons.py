"""Completions and the comparisons made of them."""

from __future__ import annotations

from dataclasses import replace

from .store import Store, as_json
from .types import Basis, Comparison, Completion, Prompt, Sampling


def keep_sampling(store: Store, sampling: Sampling) -> Sampling:
    """The stored row of these settings, added when new."""
    with store.write():
        found = store.find(Sampling, "digest = ?", [sampling.digest])
        return found[0] if found else store.add(sampling)


def keep_completion(store: Store, completion: Completion) -> Completion:
    """Store a completion; one that was already generated with the same prompt, model, sampling and seed is returned instead."""
    with store.write():
        found = store.find(
            Completion,
            "prompt_id = ? and model_id = ? and sampling_id = ? and seed = ? and repeat = ?",
            [completion.prompt_id, completion.model_id, completion.sampling_id, completion.seed, completion.repeat],
        )
        return found[0] if found else store.add(completion)


def free_repeat(store: Store, completion: Completion) -> int:
    """The first number that no completion of the same prompt, model, sampling and seed has; 0 is for the whole answer."""
    return store.value(
        "select coalesce(max(repeat), 0) + 1 from completions where prompt_id = ? and model_id = ? and sampling_id = ? and seed = ?",
        [completion.prompt_id, completion.model_id, completion.sampling_id, completion.seed],
    )


def completions_of(store: Store, comparison_id: int) -> list[Completion]:
    """In canonical positions."""
    return store.find(
        Completion,
        "id in (select completion_id from comparison_items where comparison_id = ?)",
        [comparison_id],
        f"(select position from comparison_items where comparison_id = {comparison_id:d} and completion_id = completions.id)",
    )


def prompt_of(store: Store, completion_id: int) -> Prompt:
    return store.find(Prompt, "id = (select prompt_id from completions where id = ?)", [completion_id])[0]


def add_comparison(store: Store, comparison: Comparison, completion_ids: list[int]) -> Comparison:
    """A comparison with its items, in the order given; what their prompts differ in is found out here."""
    with store.write() as db:
        added = store.add(replace(comparison, basis=basis_of(store, completion_ids)))
        db.conn.executemany(
            "insert into comparison_items(comparison_id, position, completion_id) values (?,?,?)",
            [(added.id, position, completion) for position, completion in enumerate(completion_ids)],
        )
        return added


def basis_of(store: Store, completion_ids: list[int]) -> Basis:
    """What a win among these answers speaks for: equal prompts, a set of demonstrations, or a template."""
    (found,) = store.rows(
        "select count(distinct p.digest) as prompts, count(distinct coalesce(p.template_id, 0)) as templates from json_each(?) i"
        " join completions t on t.id = i.value join prompts p on p.id = t.prompt_id",
        [as_json(completion_ids)],
    )
    if found["prompts"] < 2:
        return "prompt"
    return "template" if found["templates"] > 1 else "demonstrations"


def existing_comparison(store: Store, completion_ids: list[int]) -> Comparison | None:
    """The comparison that holds exactly these completions, if there is one: nobody should judge the same pair twice."""
    holding_first = "select comparison_id from comparison_items where completion_id = ?"
    marks = ",".join("?" * len(completion_ids))
    found = store.find(
        Comparison,
        f"id in ({holding_first}) and size = ? and status <> 'retired' and gold is null and (select count(*) from "
        f"comparison_items i where i.comparison_id = comparisons.id and i.completion_id in ({marks})) = ?",
        [completion_ids[0], len(completion_ids), *completion_ids, len(completion_ids)],
    )
    return found[0] if found else None


def waiting_to_be_written(store: Store, case_id: int) -> Comparison | None:
    """The open request for an ideal answer to this case."""
    return next(
        iter(store.find(Comparison, "case_id = ? and kind = 'demonstration' and status = 'open'", [case_id], limit=1)),
        None,
    )


def open_count(store: Store, project_id: int, most: int = -1) -> int:
    """Comparisons that still want judgements; stops counting at ``most``, if that is given."""
    return store.value(
        "select count(*) from (select 1 from comparisons where project_id = ? and status = 'open' and slots_left > 0 "
        "and gold is null limit ?)",
        [project_id, most],
    )


def open_of(store: Store, project_id: int, model_id: int) -> int:
    """Open comparisons of a project that hold answers of this model."""
    return store.value(
        "select count(*) from comparisons where project_id = ? and status = 'open' and gold is null and id in "
        "(select i.comparison_id from comparison_items i join completions c on c.id = i.completion_id "
        "where c.model_id = ?)",
        [project_id, model_id],
    )


UNJUDGED_OF = (
    "status = 'open' and judged = 0 and slots_left = overlap and gold is null and id in "
    "(select i.comparison_id from comparison_items i join completions c on c.id = i.completion_id where c.model_id = ?)"
)


def unjudged_of(store: Store, model_id: int) -> int:
    """Open comparisons that hold answers of this model and that nobody has begun to judge."""
    return store.value(f"select count(*) from comparisons where {UNJUDGED_OF}", [model_id])


def retire_unjudged_of(store: Store, model_id: int) -> int:
    """Close those comparisons. Returns how many."""
    with store.write() as db:
        cursor = db.conn.execute(f"update comparisons set status = 'retired' where {UNJUDGED_OF}", [model_id])
        return cursor.rowcount


def asked_prompts(store: Store, project_id: int) -> list[tuple[Prompt, str]]:
    """The distinct prompts that comparisons of this project were made from, each with the split of its case."""
    found = store.find(
        Prompt,
        "project_id = ? and id in (select c.prompt_id from completions c join comparison_items i on i.completion_id = c.id "
        "join comparisons k on k.id = i.comparison_id where k.project_id = ?)",
        [project_id, project_id],
    )
    rows = store.rows("select id, split from cases where project_id = ?", [project_id])
    splits = {row["id"]: row["split"] for row in rows}
    return [(prompt, splits[prompt.case_id]) for prompt in found]


def seeds_used(store: Store, prompt_id: int, model_id: int) -> set[int]:
    rows = store.rows(
        "select distinct seed from completions where prompt_id = ? and model_id = ?", [prompt_id, model_id]
    )
    return {row["seed"] for row in rows}


def times_answered(store: Store, project_id: int, model_id: int) -> dict[tuple[int, int], int]:
    """(template id, case id) -> how many completions of this model there are."""
    rows = store.rows(
        "select p.template_id, p.case_id, count(*) as n from completions c join prompts p on p.id = c.prompt_id "
        "where p.project_id = ? and c.model_id = ? group by 1, 2",
        [project_id, model_id],
    )
    return {(row["template_id"], row["case_id"]): row["n"] for row in rows}
