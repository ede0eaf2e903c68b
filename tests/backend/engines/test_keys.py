"""Where keys of remote engines stand, and that only a reference is ever kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.engines.keys import NoKey, checked, read, without_keys

KEY = "sk-test-0123456789abcdef"


def test_a_key_is_read_from_the_environment_or_a_private_file(tmp_path: Path):
    (tmp_path / "box").write_text(KEY + "\n")
    (tmp_path / "box").chmod(0o600)
    assert read("env:BIG_API_KEY", tmp_path, {"BIG_API_KEY": f" {KEY} "}) == KEY
    assert read("file:box", tmp_path, {}) == KEY
    assert read("", tmp_path, {}) == ""


@pytest.mark.parametrize(
    "reference", [KEY, "env:PATH", "env:HOME_KEY", "env:big_API_KEY", "file:../box", "file:a/b", "file:.box", "box"]
)
def test_what_is_no_reference_is_refused_and_not_repeated(reference: str, tmp_path: Path):
    with pytest.raises(NoKey, match="not the key itself") as refused:
        checked(reference)
    assert KEY not in str(refused.value)


def test_a_key_file_that_others_may_read_or_that_is_a_link_is_refused(tmp_path: Path):
    file = tmp_path / "box"
    file.write_text(KEY)
    file.chmod(0o640)
    with pytest.raises(NoKey, match="chmod 600") as refused:
        read("file:box", tmp_path)
    assert KEY not in str(refused.value)
    file.chmod(0o600)
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(NoKey, match="holds no key"):
        read("file:link", tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(NoKey):
        read("file:folder", tmp_path)


def test_processes_that_call_no_remote_engine_are_given_no_key():
    given = {"PATH": "/bin", "BIG_API_KEY": KEY, "A_API_KEY": KEY, "API_KEYS": "x"}
    assert without_keys(given) == {"PATH": "/bin", "API_KEYS": "x"}


@pytest.mark.parametrize("held", ["", "two words", "line\r\nHost: evil", "schlüssel"])
def test_what_is_no_key_is_refused_and_not_repeated(held: str, tmp_path: Path):
    with pytest.raises(NoKey, match=r"holds no key|is no key") as refused:
        read("env:BIG_API_KEY", tmp_path, {"BIG_API_KEY": held})
    assert held == "" or held not in str(refused.value)
