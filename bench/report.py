"""What every measurement ends in: a table, a dated file in results/, and one line of JSON.

``python -m bench.report FILE`` writes the table of a dated file as the documents have it.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import psutil

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("gradio", "torch", "transformers", "peft", "sqlite-utils", "fastapi", "uvicorn")
DRAWS = 2000


@dataclass(frozen=True)
class Row:
    """One comparison. ``ratio`` is ours over theirs (or over a limit), with a 95 % interval; ``reach`` says what is wanted."""

    work: str
    against: str
    ratio: float
    low: float
    high: float
    reach: str  # "<= 1.5" or ">= 2"
    ok: bool


@dataclass(frozen=True)
class Difference:
    """One comparison in units of its own. ``difference`` is ours less theirs, with a 95 % interval."""

    work: str
    against: str
    difference: float
    low: float
    high: float
    reach: str  # "> 0": the whole interval should be
    ok: bool


class Found(NamedTuple):
    """What a measurement came to: the rows of its table, and what its dated file keeps beside them."""

    rows: Sequence[Row | Difference]
    facts: dict[str, Any] = {}


def row(work: str, against: str, ours: Sequence[float], theirs: Sequence[float] | float, at_most: float) -> Row:
    """A row whose ratio is of medians and should be small; the interval is a bootstrap over the repeats."""
    ratio, low, high = _ratio(ours, [theirs] if isinstance(theirs, int | float) else theirs)
    return Row(work, against, round(ratio, 3), round(low, 3), round(high, 3), f"<= {at_most:g}", ratio <= at_most)


def at_least(work: str, against: str, ours: Sequence[float], theirs: Sequence[float], reach: float) -> Row:
    """A row whose ratio should be large, such as one of speeds; otherwise as ``row``."""
    ratio, low, high = _ratio(ours, theirs)
    return Row(work, against, round(ratio, 3), round(low, 3), round(high, 3), f">= {reach:g}", ratio >= reach)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Ratio of the medians, and its 95 % bootstrap interval."""
    ratio = statistics.median(ours) / statistics.median(theirs)
    rng = Random(0)
    drawn = sorted(
        statistics.median(rng.choices(ours, k=len(ours))) / statistics.median(rng.choices(theirs, k=len(theirs)))
        for _ in range(DRAWS)
    )
    return ratio, drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS) - 1]


def publish(name: str, rows: Sequence[Row | Difference], facts: dict[str, Any] | None = None) -> int:
    """Print and keep the rows. Returns 0: a reach that was missed is a finding, not a failure of the measurement."""
    print(table(rows))
    result = {"rows": [asdict(one) for one in rows], "machine": machine(), "versions": versions(), **(facts or {})}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, ensure_ascii=False)
    stamp = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
    (RESULTS / f"{stamp}-{name}.json").write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", "utf-8")
    print(text, flush=True)
    return 0


def table(rows: Sequence[Row | Difference]) -> str:
    """``rows`` are of one kind."""
    return aligned(_lines(rows))


def markdown(rows: Sequence[Row | Difference]) -> str:
    """The same table for a document."""
    head, *lines = _lines(rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


def _lines(rows: Sequence[Row | Difference]) -> list[Sequence[str]]:
    """The head of a table and a line for each row."""
    lines: list[Sequence[str]] = [
        ("work", "against", *(fields(one)[2].name for one in rows[:1]), "95 % interval", "reach", "")
    ]
    for one in rows:
        work, against, value, low, high, reach, ok = astuple(one)
        lines.append((work, against, f"{value:.2f}", f"{low:.2f} to {high:.2f}", reach, "ok" if ok else "MISSED"))
    return lines


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    kept = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["rows"]
    print(markdown([(Row if "ratio" in one else Difference)(**one) for one in kept]))
