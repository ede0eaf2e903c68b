"""What starting needs: a light import, an environment with nothing but requirements.txt, a web process without torch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench import start

ROOT = Path(__file__).resolve().parent.parent


def test_help_imports_neither_torch_nor_gradio():
    command = [sys.executable, "-X", "importtime", "app.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {match[1] for match in re.finditer(r"\|\s+([\w.]+)$", done.stderr, re.MULTILINE)}
    assert "backend.cli" in imported
    assert not imported & {"torch", "transformers", "peft", "gradio"}


def test_pages_import_no_library_of_statistics():
    """They are for the process that reckons."""
    code = "import sys, ui.web; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"scipy", "sklearn", "statsmodels", "crowdkit"} & set(done.stdout.split())


def test_the_running_web_process_holds_no_torch_and_at_most_300_mb(tmp_path):
    with start.whetstone(tmp_path) as started:
        used = start.memory(started.pid)
        assert not used.has_torch
        assert used.rss_mb <= start.LIMIT_MB
        names = {Path(mapped.path).name for mapped in psutil.Process(started.pid).memory_maps()}
        assert not {name for name in names if name.startswith(("libtorch", "libcudart"))}


def test_the_data_folder_is_closed_to_others(tmp_path):
    with start.whetstone(tmp_path):
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "data" / "feedback.db").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_environment_made_by_make_setup_alone_runs_the_app(tmp_path):
    """What is installed is requirements.txt and nothing else; the environment of the tests is hidden."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "MAKE"))
    }
    venv = tmp_path / "venv"
    made = subprocess.run(
        ["make", "setup", f"VENV={venv}", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    installed = subprocess.run([venv / "bin" / "pip", "list"], capture_output=True, text=True, check=True, env=clean)
    assert "pytest" not in installed.stdout
    for arguments in (["--help"], ["demo", "--help"], ["import", "--help"]):
        done = subprocess.run(
            [venv / "bin" / "python", "app.py", *arguments],
            cwd=ROOT,
            env=clean,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "usage:" in done.stdout
    code = "import ui.web, backend.engines.local.__main__, backend.jobs.worker"
    subprocess.run([venv / "bin" / "python", "-c", code], cwd=ROOT, env=clean, check=True)
