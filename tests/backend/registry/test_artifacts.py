"""A model folder is whole, or it does not exist."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.registry.artifacts import BadArtifact, fingerprint, save, verify

ROOT = Path(__file__).resolve().parents[3]
FACTS = {"base_fingerprint": "ab" * 32, "snapshot": {"id": 1}, "settings": {"seed": 0}, "parents": None}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "report.json").write_text("{}")


def test_a_saved_model_verifies_and_is_named_by_its_digest(tmp_path: Path) -> None:
    saved = save(tmp_path / "models", fill, FACTS)
    manifest = verify(tmp_path / "models" / saved.folder)
    assert saved.folder == saved.digest[:16] and manifest.digest == saved.digest
    assert dict(manifest.facts) == FACTS and set(manifest.files) == {"adapter_model.safetensors", "report.json"}
    assert names(tmp_path / "models") == [saved.folder]


def test_equal_content_is_saved_once_and_other_facts_are_another_model(tmp_path: Path) -> None:
    assert save(tmp_path, fill, FACTS) == save(tmp_path, fill, FACTS)
    assert save(tmp_path, fill, {**FACTS, "seed": 1}).folder != save(tmp_path, fill, FACTS).folder
    assert len(names(tmp_path)) == 2


def torn(folder: Path) -> None:
    os.truncate(folder / "adapter_model.safetensors", 3)


def changed(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"weighty")


def missing(folder: Path) -> None:
    (folder / "report.json").unlink()


def extra(folder: Path) -> None:
    (folder / "more.json").write_text("{}")


def pickled(folder: Path) -> None:
    (folder / "optimizer.pt").write_bytes(b"\x80")


def linked(folder: Path) -> None:
    (folder / "report.json").rename(folder.parent / "elsewhere.json")
    (folder / "report.json").symlink_to(folder.parent / "elsewhere.json")


def nested(folder: Path) -> None:
    (folder / "more").mkdir()


def relabelled(folder: Path) -> None:
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    (folder / "MANIFEST.json").write_text(json.dumps({**manifest, "base_fingerprint": "cd" * 32}))


def unlabelled(folder: Path) -> None:
    (folder / "MANIFEST.json").unlink()


def half_labelled(folder: Path) -> None:
    os.truncate(folder / "MANIFEST.json", 20)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (torn, "adapter_model.safetensors was changed"),
        (changed, "adapter_model.safetensors was changed"),
        (missing, "report.json is missing"),
        (extra, "more.json"),
        (pickled, "optimizer.pt"),
        (linked, "report.json"),
        (nested, "more"),
        (relabelled, "MANIFEST.json was changed"),
        (unlabelled, "no readable MANIFEST.json"),
        (half_labelled, "no readable MANIFEST.json"),
    ],
)
def test_a_spoilt_folder_is_refused_by_name(tmp_path: Path, spoil: Callable[[Path], None], named: str) -> None:
    folder = tmp_path / save(tmp_path, fill, FACTS).folder
    spoil(folder)
    with pytest.raises(BadArtifact, match=named):
        verify(folder)


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match="missing"):
        verify(tmp_path / "0123456789abcdef")


def test_a_failed_or_forbidden_save_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        fill(folder)
        raise OSError("disk full")

    def forbidden(folder: Path) -> None:
        (folder / "model.bin").write_bytes(b"x")

    for wrong, error in ((fails, OSError), (forbidden, BadArtifact), (lambda _: None, BadArtifact)):
        with pytest.raises(error):
            save(tmp_path, wrong, FACTS)
    assert names(tmp_path) == []


def test_a_kill_at_any_sync_or_rename_leaves_nothing_or_the_whole_model(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from backend.registry import artifacts\n"
        "left = [int(sys.argv[2])]\n"
        "def deadly(call):\n"
        "    def run(*args):\n"
        "        left[0] -= 1\n"
        "        if left[0] == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return call(*args)\n"
        "    return run\n"
        "os.fsync, os.rename = deadly(os.fsync), deadly(os.rename)\n"
        "def fill(folder):\n"
        "    for name in ('a.safetensors', 'b.json'): (folder / name).write_text('x')\n"
        "artifacts.save(Path(sys.argv[1]), fill, {})\n"
    )
    outcomes = []
    for moment in range(1, 8):
        models = tmp_path / str(moment)
        ended = subprocess.run([sys.executable, "-c", code, str(models), str(moment)], cwd=ROOT, check=False)
        whole = [name for name in names(models) if not name.startswith("tmp-")]
        for name in whole:
            verify(models / name)
        outcomes.append((ended.returncode, len(whole)))
    # three files, the folder, the rename, the parent; the seventh moment never comes
    assert outcomes == [(-signal.SIGKILL, 0)] * 5 + [(-signal.SIGKILL, 1), (0, 1)]


def test_what_a_killed_save_left_is_swept_later_but_not_at_once(tmp_path: Path) -> None:
    for name, age in (("tmp-old", 7200), ("tmp-new", 0)):
        (tmp_path / name).mkdir()
        now = (tmp_path / name).stat().st_mtime
        os.utime(tmp_path / name, (now - age, now - age))
    saved = save(tmp_path, fill, FACTS)
    assert names(tmp_path) == sorted([saved.folder, "tmp-new"])


def test_the_fingerprint_follows_config_and_weights_and_nothing_else(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    with pytest.raises(BadArtifact, match="safetensors"):
        fingerprint(base)
    (base / "model.safetensors").write_bytes(b"one")
    first = fingerprint(base)
    (base / "tokenizer.json").write_text("{}")
    assert fingerprint(base) == first and len(first) == 64
    (base / "model.safetensors").write_bytes(b"two")
    os.utime(base / "model.safetensors", ns=(1, 1))
    second = fingerprint(base)
    (base / "config.json").write_text('{"a": 1}')
    assert len({first, second, fingerprint(base)}) == 3
