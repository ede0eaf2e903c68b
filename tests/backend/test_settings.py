"""What the operator decides: where it is read, and what is refused with the key and the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.settings import BadSetting, Settings, load


def test_the_command_line_comes_before_the_environment_and_that_before_the_file(tmp_path: Path):
    (tmp_path / "settings.toml").write_text('dtype = "float16"\nattention = "eager"\nquantisation = "8bit"\n')
    environment = {"WHETSTONE_DTYPE": "float32", "WHETSTONE_QUANTISATION": "4bit"}
    found = load({"data_dir": tmp_path, "dtype": "bfloat16", "device": None}, environment)
    assert (found.device, found.dtype, found.attention, found.quantisation) == ("auto", "bfloat16", "eager", "4bit")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "cuda:12", "mps"])
def test_a_device_is_named_as_torch_names_it(tmp_path: Path, device: str):
    assert load({"data_dir": tmp_path, "device": device}, {}).device == device


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("device", "gpu", "may be auto, cpu, cuda, cuda:1, mps, not 'gpu'"),
        ("device", "cuda:x", "not 'cuda:x'"),
        ("dtype", "int8", "may be auto, float32, bfloat16, float16, not 'int8'"),
        ("attention", "flash", "may be auto, sdpa, eager, flash_attention_2, not 'flash'"),
        ("quantisation", "4", "may be none, int8, 8bit, 4bit, not '4'"),
    ],
)
def test_a_value_that_is_not_known_is_refused_with_what_there_is(tmp_path: Path, key: str, value: str, says: str):
    with pytest.raises(BadSetting, match=says) as caught:
        load({"data_dir": tmp_path}, {f"WHETSTONE_{key.upper()}": value})
    assert str(caught.value).startswith(f"The setting '{key}' in the environment")


def test_the_hosts_of_remote_engines_are_names_with_or_without_a_port(tmp_path: Path):
    hosts = ("api.example.com", "192.168.1.20:8000", "[::1]:9000", "Ollama:11434")
    assert load({"data_dir": tmp_path, "engine_hosts": " , ".join(hosts) + ","}, {}).engine_hosts == hosts
    (tmp_path / "settings.toml").write_text('engine_hosts = ["api.example.com", "[::1]:9000"]\n')
    assert load({"data_dir": tmp_path}, {}).engine_hosts == ("api.example.com", "[::1]:9000")
    for slip in (
        "https://api.example.com",
        "api.example.com/v1",
        "*",
        "*.example.com",
        "user@host",
        "host:0",
        "host:",
        "::1",
    ):
        with pytest.raises(
            BadSetting, match="'engine_hosts' in the environment has .* is no host. Write host, or host:port"
        ):
            load({"data_dir": tmp_path}, {"WHETSTONE_ENGINE_HOSTS": f"good.example.com,{slip}"})
    (tmp_path / "settings.toml").write_text("engine_hosts = 5\n")
    with pytest.raises(BadSetting, match="engine_hosts"):
        load({"data_dir": tmp_path}, {})


def test_nothing_said_is_what_is_safe_everywhere():
    plain = Settings()
    assert (plain.device, plain.dtype, plain.attention, plain.quantisation) == ("auto", "auto", "auto", "none")
