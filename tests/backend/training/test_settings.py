"""Settings: one record makes the form, the command line and the stored row."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from backend.training.settings import (
    KINDS,
    BadSettings,
    DPOSettings,
    IFTSettings,
    PPOSettings,
    RewardSettings,
    as_dict,
    make,
    options,
    weights_of,
    weights_text,
)

ROOT = Path(__file__).resolve().parents[3]


def test_the_web_process_reads_settings_and_the_runner_without_torch() -> None:
    code = (
        "import sys, backend.training.settings, backend.training.run, backend.jobs.runner, backend.jobs.folder, "
        "backend.registry.artifacts; assert not {'torch', 'transformers', 'peft', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("kind", KINDS.values())
def test_every_setting_has_a_label_a_help_text_and_a_default_that_it_accepts(kind: type) -> None:
    found = options(kind)
    assert {option.name for option in found} == {f.name for f in fields(kind)}
    for option in found:
        assert option.label and option.help.endswith(".")
        is_bounded = option.minimum is not None and option.maximum is not None
        assert option.choices or option.pattern or option.type is bool or is_bounded
    assert make(kind, {option.name: option.default for option in found}) == kind()


def test_settings_survive_the_stored_row_and_the_form() -> None:
    chosen = make(PPOSettings, {"learning_rate": "3e-4", "batch_size": "32", "kl_coef": 0})
    assert (chosen.learning_rate, chosen.batch_size, chosen.kl_coef) == (3e-4, 32, 0.0)
    assert make(PPOSettings, as_dict(chosen)) == chosen


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("no_such", 1),
        ("learning_rate", "fast"),
        ("learning_rate", -1),
        ("learning_rate", 1.5),
        ("learning_rate", float("nan")),
        ("batch_size", 2.5),
        ("batch_size", True),
        ("batch_size", 0),
        ("base_dtype", "int3"),
        ("num_train_epochs", None),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadSettings, match=name):
        make(RewardSettings, {name: value})


@pytest.mark.parametrize("text", ["", "  ", "ann 0.5", "Ann Lee  0.5,bob 0 ", "p-12ab 1, 王 2"])
def test_a_free_text_is_taken_as_it_stands(text: str) -> None:
    assert make(RewardSettings, {"annotator_weights": text}).annotator_weights == text


@pytest.mark.parametrize(
    "text", ["ann", "ann 0.5,", "ann 0.5 bob", "ann -1", "ann x", "0.5", "ann 1e3", 3, None, ",".join(["a 1"] * 600)]
)
def test_a_free_text_that_says_nothing_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(BadSettings, match="'annotator_weights' (must be like 'ann 0.5, bob 0'|has 2399 characters)"):
        make(RewardSettings, {"annotator_weights": text})


def test_weights_are_read_and_written_alike() -> None:
    found = weights_of("Ann Lee  0.5,bob 0 , c 1234.000001")
    assert found == {"Ann Lee": 0.5, "bob": 0.0, "c": 1234.000001}
    assert weights_text(found) == "Ann Lee 0.5, bob 0, c 1234.000001" and weights_of(weights_text(found)) == found
    with pytest.raises(BadSettings, match="names ann twice"):
        weights_of("ann 1, ann 1")


def test_a_margin_beside_the_ties_model_is_refused_with_the_way_out() -> None:
    with pytest.raises(BadSettings, match="Set 'strength_margin' to 0, or 'ties' to half or drop"):
        make(RewardSettings, {"ties": "model", "strength_margin": 0.5})
    assert make(RewardSettings, {"ties": "model", "label_smoothing": 0.1}).ties == "model"


@pytest.mark.parametrize(("given", "meant"), [(True, True), (False, False), ("true", True), ("False", False)])
def test_a_switch_is_true_or_false_from_a_form_a_row_or_a_word(given: object, meant: bool) -> None:
    assert make(PPOSettings, {"whiten_rewards": given}).whiten_rewards is meant


@pytest.mark.parametrize("given", [1, 0, 1.0, "yes", "", None])
def test_a_switch_is_nothing_else(given: object) -> None:
    with pytest.raises(BadSettings, match="'whiten_rewards' must be true or false"):
        make(PPOSettings, {"whiten_rewards": given})


@pytest.mark.parametrize("kind", [PPOSettings, IFTSettings])
def test_k1_in_the_loss_is_refused_with_the_reason(kind: Callable[..., object]) -> None:
    with pytest.raises(BadSettings, match="'kl_estimator' k1.* gradient of k1 has mean zero.* Choose k2"):
        kind(kl_penalty="loss")
    assert kind(kl_penalty="loss", kl_estimator="k2") and kind(kl_estimator="k3")


def test_a_warm_up_as_long_as_the_run_is_refused() -> None:
    with pytest.raises(BadSettings, match="'value_warmup_steps' is 4 and the run has 4 steps.* never"):
        PPOSettings(total_episodes=256, batch_size=64, value_warmup_steps=4)
    assert PPOSettings(total_episodes=256, batch_size=64, value_warmup_steps=3)


@pytest.mark.parametrize(("batch", "advice"), [(10, "such as 8"), (2, "such as 4")])
@pytest.mark.parametrize("kind", [PPOSettings, IFTSettings])
def test_a_step_that_cannot_hold_whole_groups_of_answers_is_refused(
    kind: Callable[..., object], batch: int, advice: str
) -> None:
    with pytest.raises(BadSettings, match=f"'batch_size' is {batch}.*{advice}"):
        kind(batch_size=batch, num_generations=4)
    assert kind(batch_size=12, num_generations=4)


def test_smoothing_beside_ipo_is_refused_with_the_way_out() -> None:
    with pytest.raises(BadSettings, match="'loss_type' to sigmoid"):
        DPOSettings(loss_type="ipo", label_smoothing=0.1)
    assert DPOSettings(loss_type="ipo") and DPOSettings(label_smoothing=0.1)
