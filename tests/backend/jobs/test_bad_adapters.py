"""Twelve ways in which an adapter can be wrong; PEFT loads most of them in silence. Training and the engine refuse each."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.engines.local.loading import load_base as load_engine
from backend.engines.local.model import ModelProblem
from backend.jobs.folder import Job
from backend.registry import artifacts
from backend.registry.artifacts import BadArtifact
from backend.training import job as training_job
from backend.training.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from backend.training.shared_base import Shape, load_base
from tests.backend.training import tiny

Change = Callable[[Path], None]
FIVE_GIGABYTES = 5 << 30


def adapter(folder: Path, base: Path) -> None:
    """What a training leaves: both matrices of every layer have learnt something."""
    trained = load_base(str(base))
    trained.add("policy", Shape(4, 8), seed=0)
    draw = torch.Generator().manual_seed(0)
    for weight in trained.weights("policy"):
        weight.data.add_(0.1 * torch.randn(weight.shape, generator=draw))
    trained.save("policy", folder)


def facts(base: Path) -> dict[str, Any]:
    return {"base_fingerprint": artifacts.fingerprint(base), "tokenizer": artifacts.tokens_digest(base)}


def with_state(change: Callable[[dict[str, torch.Tensor]], None]) -> Change:
    def changed(folder: Path) -> None:
        state = load_file(folder / ADAPTER_WEIGHTS)
        change(state)
        save_file(state, folder / ADAPTER_WEIGHTS)

    return changed


def with_config(**values: Any) -> Change:
    def changed(folder: Path) -> None:
        config = json.loads((folder / ADAPTER_CONFIG).read_text())
        (folder / ADAPTER_CONFIG).write_text(json.dumps({**config, **values}))

    return changed


def first_a(state: dict[str, torch.Tensor]) -> str:
    return next(name for name in sorted(state) if ".lora_A." in name)


def zeroed(state: dict[str, torch.Tensor]) -> None:
    for tensor in state.values():
        tensor.zero_()


def half_zeroed(state: dict[str, torch.Tensor]) -> None:
    for name in sorted(state)[: len(state) // 2]:
        state[name].zero_()


def not_numbers(state: dict[str, torch.Tensor]) -> None:
    state[first_a(state)][0, 0] = torch.nan


def one_missing(state: dict[str, torch.Tensor]) -> None:
    del state[first_a(state)]


def one_too_many(state: dict[str, torch.Tensor]) -> None:
    state[first_a(state).replace("layers.0", "layers.7")] = torch.ones(4, 32)


def far_too_large(folder: Path) -> None:
    """A header that promises one tensor, and a hole in the file where its numbers would stand."""
    about = {
        "base_model.model.lora_A.weight": {
            "dtype": "F32",
            "shape": [FIVE_GIGABYTES // 4],
            "data_offsets": [0, FIVE_GIGABYTES],
        }
    }
    header = json.dumps(about).encode()
    with (folder / ADAPTER_WEIGHTS).open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + FIVE_GIGABYTES)


def cut(folder: Path) -> None:
    os.truncate(folder / ADAPTER_WEIGHTS, (folder / ADAPTER_WEIGHTS).stat().st_size // 2)


def linked(folder: Path) -> None:
    elsewhere = folder.parent.parent / "elsewhere.safetensors"
    shutil.move(folder / ADAPTER_WEIGHTS, elsewhere)
    (folder / ADAPTER_WEIGHTS).symlink_to(elsewhere)


def another(path: Path, **differences: int) -> Path:
    """A base like ours but for these entries of its config."""
    torch.manual_seed(0)
    config = tiny.causal().config
    for name, value in differences.items():
        setattr(config, name, value)
    type(tiny.causal())(config).save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.folder(tmp_path / "base")


def refused_by_both(models: Path, saved: artifacts.Saved, base: Path, named: str) -> None:
    job = Job(job=1, kind="ppo", settings={}, seed=0, base=str(base), models=str(models), rows_digest="")
    with pytest.raises(BadArtifact, match=named):
        training_job.verified(job, saved.folder)
        load_base(str(base)).load("policy", models / saved.folder)
    with pytest.raises(ModelProblem):
        load_engine(str(base), device="cpu").ensure_adapter(saved.digest, models / saved.folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (with_state(zeroed), "all zero"),
        (with_state(half_zeroed), "all zero"),
        (with_state(not_numbers), "not finite"),
        (with_state(one_missing), "does not fit the base"),
        (with_state(one_too_many), "does not fit the base"),
        (with_config(r=2), "does not fit the base"),
    ],
    ids=["zeroed", "half zeroed", "not a number", "a tensor missing", "a tensor too many", "another rank"],
)
def test_an_adapter_that_was_wrong_when_it_was_sealed_is_refused(
    change: Change, named: str, base: Path, tmp_path: Path
) -> None:
    def fill(folder: Path) -> None:
        adapter(folder, base)
        change(folder)

    refused_by_both(tmp_path / "models", artifacts.save(tmp_path / "models", fill, facts(base)), base, named)


@pytest.mark.parametrize(
    ("change", "named"),
    [(cut, "was changed"), (linked, "only plain"), (far_too_large, "was changed")],
    ids=["cut", "a link", "five gigabytes"],
)
def test_an_adapter_that_was_spoilt_afterwards_is_refused(
    change: Change, named: str, base: Path, tmp_path: Path
) -> None:
    saved = artifacts.save(tmp_path / "models", lambda folder: adapter(folder, base), facts(base))
    change(tmp_path / "models" / saved.folder)
    refused_by_both(tmp_path / "models", saved, base, named)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda path: tiny.folder(path, seed=1), "another base model"),
        (lambda path: another(path, num_hidden_layers=3), "another base model"),
    ],
    ids=["another base", "a deeper base"],
)
def test_an_adapter_of_another_base_is_refused(
    make: Callable[[Path], Path], named: str, base: Path, tmp_path: Path
) -> None:
    saved = artifacts.save(tmp_path / "models", lambda folder: adapter(folder, base), facts(base))
    refused_by_both(tmp_path / "models", saved, make(tmp_path / "other"), named)


def test_an_adapter_of_another_tokenizer_is_refused_though_the_weights_are_the_same(base: Path, tmp_path: Path) -> None:
    saved = artifacts.save(tmp_path / "models", lambda folder: adapter(folder, base), facts(base))
    words = base / "tokenizer.json"
    words.write_text(
        words.read_text().replace('"good"', '"swap"').replace('"bad"', '"good"').replace('"swap"', '"bad"')
    )
    refused_by_both(tmp_path / "models", saved, base, "another tokenizer")


def test_a_model_of_before_tokenizers_were_named_is_still_loaded(base: Path, tmp_path: Path) -> None:
    old = {"base_fingerprint": artifacts.fingerprint(base)}
    saved = artifacts.save(tmp_path / "models", lambda folder: adapter(folder, base), old)
    job = Job(job=1, kind="ppo", settings={}, seed=0, base=str(base), models=str(tmp_path / "models"), rows_digest="")
    assert training_job.verified(job, saved.folder).digest == saved.digest
    load_engine(str(base), device="cpu").ensure_adapter(saved.digest, tmp_path / "models" / saved.folder)


def test_one_far_too_large_is_refused_by_its_header_alone(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    adapter(folder, base)
    far_too_large(folder)
    with pytest.raises(BadArtifact, match="does not fit the base"):
        load_base(str(base)).load("policy", folder)


def test_the_engine_reads_no_adapter_that_is_larger_than_its_base(base: Path, tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        adapter(folder, base)
        with_state(lambda state: state.update({first_a(state): torch.ones(1_000_000)}))(folder)

    saved = artifacts.save(tmp_path / "models", fill, facts(base))
    with pytest.raises(ModelProblem, match="more than its base"):
        load_engine(str(base), device="cpu").ensure_adapter(saved.digest, tmp_path / "models" / saved.folder)


@pytest.mark.parametrize("setting", ["use_rslora", "use_dora", "lora_bias", "alpha_pattern", "modules_to_save"])
def test_a_setting_under_which_the_same_tensors_compute_something_else_is_refused(
    setting: str, base: Path, tmp_path: Path
) -> None:
    adapter(tmp_path, base)
    with_config(**{setting: {"layers.0": 1} if setting == "alpha_pattern" else True})(tmp_path)
    with pytest.raises(BadArtifact, match=f"not a plain LoRA adapter.*{setting}"):
        load_base(str(base)).load("policy", tmp_path)
