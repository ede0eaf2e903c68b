"""One training job, from its folder to a saved and verified model. Called by backend/jobs/worker.py."""

import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from backend.jobs.folder import ROWS, BadJob, Job, write_held_out, write_scores
from backend.registry import artifacts
from backend.registry.artifacts import BadArtifact, Manifest, Saved
from backend.training import (
    adversarial,
    dpo,
    families,
    ift,
    judge,
    kto,
    ppo,
    pretrain,
    probe,
    reward,
    scoring,
    sft,
    tree,
)
from backend.training import settings as settings_of
from backend.training.checkpoint import Checkpoints
from backend.training.data import (
    ComparisonRow,
    Tokens,
    read_answers,
    read_comparisons,
    read_good_answers,
    read_prompts,
    read_queue,
    read_texts,
    read_unpaired,
)
from backend.training.on_policy import ADAPTER
from backend.training.run import Run
from backend.training.settings import (
    DPOSettings,
    IFTSettings,
    KTOSettings,
    OnPolicySettings,
    PPOSettings,
    PretrainSettings,
    RewardSettings,
    ScoreSettings,
    SFTSettings,
)
from backend.training.shared_base import Shape, SharedBase, base_folder, load_base

REPORT = "report.json"
SAME_SCORE = 1e-5
PROBE_ROWS = 8


class NotTheSame(RuntimeError):
    """What was saved does not behave like what was trained."""


def train_reward(job: Job, folder: Path, run: Run) -> tuple[Saved, dict[str, Any]]:
    settings = settings_of.make(RewardSettings, job.settings)
    threads = set_threads(settings.threads)
    named = {"start": job.start, "reward": job.reward, "policy": job.policy}
    parents = {role: verified(job, name) if name else None for role, name in named.items()}
    rows = read_comparisons(folder / ROWS, with_good=settings.adv_coef > 0)
    base = load_base(job.base, settings.base_dtype)
    against = opposed(base, job, folder, settings, run)
    with saves_of(job, settings, run, parents) as saves:
        features = kept_features(base, job)
        push = adversarial.pusher(base, against.pairs, settings, job.seed, run) if against else None
        trained = reward.train(
            base, rows, settings, job.seed, run, start=_path(job, job.start), saves=saves, features=features, push=push
        )
    write_held_out(folder, trained.held_out)
    told = {**trained.report, **about_the_policy(base, job, trained.judge, rows, against, settings, run)}
    facts = facts_of(job, base, settings_of.as_dict(settings), threads, parents)

    def fill(target: Path) -> None:
        judge.save(base, trained.judge, target)
        write_report(target, {"kind": "reward", **told})

    def reload(target: Path) -> None:
        items, _ = reward.encode(base, rows, settings)
        sequences = [sequence for item in items for sequence in item.sequences][:PROBE_ROWS]
        was = judge.scores(base, trained.judge, sequences, 4096)
        loaded = judge.load(base, target, adapter="reloaded")
        _must_agree(was, judge.scores(base, loaded, sequences, 4096))

    return keep(job, fill, reload, facts), told


def kept_features(base: SharedBase, job: Job) -> probe.Features:
    """Features of the bare base, from the file that all jobs of a data folder share."""
    digest = artifacts.fingerprint(base_folder(job.base))
    return probe.Features(base, digest, Path(job.models).parent / "features" / f"{digest[:16]}.safetensors")


def opposed(base: SharedBase, job: Job, folder: Path, settings: RewardSettings, run: Run) -> adversarial.Against | None:
    """Good answers beside the policy's own, when their weight is not 0. No policy named: the bare base is the policy."""
    if not settings.adv_coef:
        return None
    if job.policy:
        base.load(ADAPTER, Path(job.models) / job.policy)
    good = read_good_answers(folder / ROWS)
    return adversarial.oppose(base, ADAPTER if job.policy else None, good, settings, job.seed, run)


def about_the_policy(
    base: SharedBase,
    job: Job,
    trained: judge.Judge,
    rows: Sequence[ComparisonRow],
    against: adversarial.Against | None,
    settings: RewardSettings,
    run: Run,
) -> dict[str, Any]:
    """What the report says beside accuracy: good answers told from the policy's own, and its newest answers."""
    found: dict[str, Any] = {}
    if against:
        found["adversarial"] = adversarial.told(base, trained, _path(job, job.reward), against, settings)
    if any(row.is_newest for row in rows):
        found["newest"] = adversarial.newest(base, trained, rows, settings, run)
    return found


def train_ppo(job: Job, folder: Path, run: Run) -> tuple[Saved, dict[str, Any]]:
    return follow_reward(job, folder, run, settings_of.make(PPOSettings, job.settings), ppo.train)


def train_ift(job: Job, folder: Path, run: Run) -> tuple[Saved, dict[str, Any]]:
    return follow_reward(job, folder, run, settings_of.make(IFTSettings, job.settings), ift.train)


def train_sft(job: Job, folder: Path, run: Run) -> tuple[Saved, dict[str, Any]]:
    settings = settings_of.make(SFTSettings, job.settings)
    rows = read_answers(folder / ROWS)

    def learn(base: SharedBase, saves: Checkpoints) -> dict[str, Any]:
        return sft.train(base, rows, settings, job.seed, run, saves)

    return train_policy(job, run, settings, [row.messages for row in rows], learn)


def train_dpo(job: Job, folder: Path, run: Run) -> tuple[Saved, dict[str, Any]]:
    settings = settings_of.make(DPOSettings, job.settings)
    rows = read_comparisons(folder / ROWS, with_prompts=True)

    def learn(base: SharedBase, saves: Checkpoints) -> dict[str, Any]:
        return dpo.train(base, rows, settings, job.seed, run, saves)

    return train_policy(job, run, settings, [row.prompts[0] for row in rows], learn)


def train_kto(job: Job, folder: Path, run: Run) -> tuple[Saved, dict[str, Any]]:
    settings = settings_of.make(KTOSettings, job.settings)
    rows = read_unpaired(folder / ROWS)

    def learn(base: SharedBase, saves: Checkpoints) -> dict[str, Any]:
        return kto.train(base, rows, settings, job.seed, run, saves)

    return train_policy(job, run, settings, [row.messages for row in rows], learn)


def train_pretrain(job: Job, folder: Path, run: Run) -> tuple[Saved, dict[str, Any]]:
    settings = settings_of.make(PretrainSettings, job.settings)
    rows = read_texts(folder / ROWS)

    def learn(base: SharedBase, saves: Checkpoints) -> dict[str, Any]:
        return pretrain.train(base, rows, settings, job.seed, run, saves)

    return train_policy(job, run, settings, [[{"role": "user", "content": row.text}] for row in rows], learn)


def follow_reward(
    job: Job, folder: Path, run: Run, settings: OnPolicySettings, train: Callable[..., dict[str, Any]]
) -> tuple[Saved, dict[str, Any]]:
    """A policy that answers prompts and learns from a reward model's scores."""
    if not job.reward:
        raise BadJob(f"A job of the kind {job.kind} needs a reward model and names none. Train a reward model first.")
    judged_by, judge_folder = verified(job, job.reward), Path(job.models) / job.reward
    rows = read_prompts(folder / ROWS)

    def learn(base: SharedBase, saves: Checkpoints) -> dict[str, Any]:
        return train(base, judge.load(base, judge_folder), rows, settings, job.seed, run, saves)

    return train_policy(job, run, settings, [row.messages for row in rows], learn, {"reward": judged_by})


def score_queue(job: Job, folder: Path, run: Run) -> tuple[None, dict[str, Any]]:
    """Say which waiting comparisons to ask first; the web process puts them into that order."""
    settings = settings_of.make(ScoreSettings, job.settings)
    set_threads(settings.threads)
    base = load_base(job.base, settings.base_dtype)
    members = None
    if job.reward:
        verified(job, job.reward)
        members = judge.load(base, Path(job.models) / job.reward)
    ordered = scoring.order(base, read_queue(folder / ROWS), settings, job.seed, run, kept_features(base, job), members)
    write_scores(folder, ordered.rows)
    return None, ordered.report


def train_policy(
    job: Job,
    run: Run,
    settings: settings_of.CommonSettings,
    prompts: Sequence[list[dict[str, str]]],
    learn: Callable[[SharedBase, Checkpoints], dict[str, Any]],
    teachers: Mapping[str, Manifest] | None = None,
) -> tuple[Saved, dict[str, Any]]:
    """Put the adapter "policy" on the base, let ``learn`` train it, save it, and check it on some of the prompts."""
    threads = set_threads(settings.threads)
    parents = {"start": verified(job, job.start) if job.start else None, **(teachers or {})}
    base = load_base(job.base, settings.base_dtype)
    if job.kind != "pretrain":
        families.require_writer(base.family, job.kind.upper())
    if job.start:
        base.load(ADAPTER, Path(job.models) / job.start)
    else:
        base.add(ADAPTER, Shape(settings.lora_r, settings.lora_alpha), job.seed)
    with saves_of(job, settings, run, parents) as saves:
        report = learn(base, saves)
    facts = facts_of(job, base, settings_of.as_dict(settings), threads, parents)

    def fill(target: Path) -> None:
        base.save(ADAPTER, target)
        write_report(target, {"kind": job.kind, **report})

    def reload(target: Path) -> None:
        base.load("reloaded", target)
        tokens = Tokens(base.tokenizer, base.longest)
        few = [tokens.cut(tokens.prefix(messages), base.longest - 1) for messages in prompts[:PROBE_ROWS]]
        _must_agree(last_logits(base, ADAPTER, few), last_logits(base, "reloaded", few))

    return keep(job, fill, reload, facts), report


TRAINERS: Mapping[str, Callable[[Job, Path, Run], tuple[Saved | None, dict[str, Any]]]] = {
    "reward": train_reward,
    "score": score_queue,
    "sft": train_sft,
    "dpo": train_dpo,
    "kto": train_kto,
    "ppo": train_ppo,
    "ift": train_ift,
    "pretrain": train_pretrain,
}


def saves_of(
    job: Job, settings: settings_of.CommonSettings, run: Run, parents: Mapping[str, Manifest | None]
) -> Checkpoints:
    """The job's checkpoints, bound to everything that decides its weights."""
    values = settings_of.as_dict(settings)
    minutes = values.pop("save_minutes")
    values["base_dtype"] = families.precision_of(base_folder(job.base), settings.base_dtype)
    made_from = {
        "kind": job.kind,
        "settings": values,
        "seed": job.seed,
        "rows": job.rows_digest,
        "base": artifacts.fingerprint(base_folder(job.base)),
        **{name: manifest.digest for name, manifest in parents.items() if manifest},
    }
    return Checkpoints(run, made_from, minutes)


def keep(job: Job, fill: Callable[[Path], None], reload: Callable[[Path], None], facts: Mapping[str, Any]) -> Saved:
    """Save, verify, load again and compare; a model that does not pass does not stay."""
    models = Path(job.models)
    saved = artifacts.save(models, fill, facts)
    try:
        artifacts.verify(models / saved.folder)
        reload(models / saved.folder)
    except (BadArtifact, NotTheSame):
        shutil.rmtree(models / saved.folder, ignore_errors=True)
        raise
    return saved


def facts_of(
    job: Job, base: SharedBase, settings: dict[str, Any], threads: int, parents: Mapping[str, Manifest | None]
) -> dict[str, Any]:
    """What the manifest says beside its files; nothing that changes when the same job runs again."""
    template = getattr(base.tokenizer, "chat_template", None) or ""
    return {
        "kind": "reward" if job.kind == "reward" else "policy",
        "base_fingerprint": artifacts.fingerprint(base_folder(job.base)),
        "tokenizer": artifacts.tokens_digest(base_folder(job.base)),
        "base": base.name,
        "parents": job.lineage,
        "made_from": {name: manifest.digest for name, manifest in parents.items() if manifest},
        "snapshot": dict(job.snapshot),
        "rows_digest": job.rows_digest,
        "settings": settings,
        "seed": job.seed,
        "threads": threads,
        "base_dtype": str(base.dtype).removeprefix("torch."),
        "chat_template": template if isinstance(template, str) else json.dumps(template, sort_keys=True),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
    }


def verified(job: Job, name: str) -> Manifest:
    """A model folder whose every byte is right and that belongs to this job's base."""
    manifest = artifacts.verify(Path(job.models) / name)
    if manifest.facts.get("base_fingerprint") != artifacts.fingerprint(base_folder(job.base)):
        raise BadArtifact(
            f"The model {name} was trained on another base model. Choose one of this base, or train again."
        )
    artifacts.refuse_other_tokens(name, manifest, artifacts.tokens_digest(base_folder(job.base)))
    return manifest


def set_threads(wanted: int) -> int:
    threads = wanted or min(os.cpu_count() or 1, 4)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing here reads it
    return threads


@torch.no_grad()
def last_logits(base: SharedBase, adapter: str, prompts: list[list[int]]) -> torch.Tensor:
    """What a policy would write first behind each prompt, or what a base that cannot write makes of its last token."""
    with base.scope(adapter):
        if base.family in families.WRITERS:
            states = tree.predicting(base, [[[*prompt, base.end_id]] for prompt in prompts], [1] * len(prompts))[:, 0]
        else:
            states = tree.ends(base, [[prompt] for prompt in prompts])
        return base.logits(states).log_softmax(-1)


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    text = json.dumps(report, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / REPORT).write_text(text, encoding="utf-8")


def _must_agree(was: torch.Tensor, now: torch.Tensor) -> None:
    error = float((was - now).abs().max())
    if not error <= SAME_SCORE:
        raise NotTheSame(f"The saved model differs from the trained one by {error:.2g}.")


def _path(job: Job, name: str | None) -> Path | None:
    return Path(job.models) / name if name else None
