"""Settings: one record makes the form, the command line and the stored row."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from backend.training.settings import KINDS, BadSettings, PPOSettings, RewardSettings, as_dict, make, options

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
        assert option.choices or option.pattern or (option.minimum is not None and option.maximum is not None)
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
