"""Checkpoints of a training run: written whole or not at all, checked before use, equal to the bit after a resume.

A loop that can go on after a kill needs three lines, given ``saves: Checkpoints``:

    live = Live({"policy": base.weights(ADAPTER)}, optimizer)   # all that training changes in place
    first, facts = saves.resume(live)                           # (0, {}) at the start
    for step in range(first, total_steps):
        ...
        saves.keep(step + 1, live, {"curve": curve})            # after the last thing this step does

``facts`` is whatever else the loop carries, as JSON: curves, coefficients, the state of guards. There is no state of
random numbers, since every draw is seeded by its step (draws.py): a step that was cut short is done again from its
start. ``keep`` writes when ``save_minutes`` have passed; pass ``now=True`` before something long, such as an evaluation.
A loop adds to the lists in its facts but does not change what is in them.

On the disk, under the run's folder: checkpoint-000120/ {one <group>.safetensors per group, optimizer.safetensors,
state.json, MANIFEST.json}. Nothing is pickled.
"""

import hashlib
import inspect
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as as_bytes
from torch import Tensor

from backend.training.run import CHECKPOINT, Run, SetAside

TEMPORARY = "tmp-"
MANIFEST = "MANIFEST.json"
STATE = "state.json"
OPTIMIZER = "optimizer"
KEPT = 2  # a second one, should the newest be damaged on the disk


class OtherRun(ValueError):
    """The checkpoint belongs to other data, settings or models than this run; the message names what differs."""


class Damaged(Exception):
    """A checkpoint is not what its manifest says; the message says why."""


class Found(NamedTuple):
    step: int  # steps done
    tensors: dict[str, dict[str, Tensor]]  # group -> name -> tensor
    state: dict[str, Any]


class Live(NamedTuple):
    """What a loop changes in place: groups of tensors, each in a fixed order, and the optimizer over them."""

    weights: Mapping[str, Sequence[Tensor]]
    optimizer: torch.optim.Optimizer


class Resumed(NamedTuple):
    step: int  # steps done: the loop goes on with this one
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. ``expected`` says what it is made from; a checkpoint of anything else is refused.

    As a context it writes the last whole step when the run is set aside, so that a pause loses less than a step.
    Without a run it keeps nothing: for trainings that nobody resumes.
    """

    def __init__(
        self,
        run: Run | None,
        expected: Mapping[str, Any],
        minutes: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run = run
        self.expected = json.loads(json.dumps(expected))  # as it will be read
        self.seconds = 60 * minutes
        self._clock = clock
        self._last_save = clock()
        self._kept: Found | None = None  # the last whole step, when it is not on the disk yet

    def resume(self, live: Live) -> Resumed:
        """Put the newest whole checkpoint into the live tensors; (0, {}) when there is none. Raises OtherRun."""
        if self.run is None:
            return Resumed(0, {})
        found = newest_valid(self.run.folder, self.expected, self.run.message)
        if found is None:
            return Resumed(0, {})
        put_back(live, found)
        was, here = found.state["process"], about_this_process()
        other = [f"{what} {was.get(what)} there, {here[what]} here" for what in here if was.get(what) != here[what]]
        if other:
            self.run.message(f"Equal weights are not promised after step {found.step}: {'; '.join(other)}.")
        self.run.message(f"Goes on after step {found.step}.")
        return Resumed(found.step, found.state["facts"])

    def once(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors that a run computes before its first step and never again: kept beside its checkpoints, on the CPU.

        A file that is damaged, or of another run, counts as none.
        """
        if self.run is None:
            return make()
        file, about = self.run.folder / f"{name}.safetensors", hashlib.sha256(as_json(self.expected)).hexdigest()
        try:
            content = file.read_bytes()
            told, content = content[:64].decode(), content[64:]
            if told == hashlib.sha256(content + about.encode()).hexdigest():
                return read_tensors(content)
        except (OSError, ValueError):
            pass
        found = {key: _copy(value) for key, value in make().items()}
        content = as_bytes(found)
        half = file.with_name(f"{TEMPORARY}{file.name}")
        _write_synced(half, hashlib.sha256(content + about.encode()).hexdigest().encode() + content)
        os.rename(half, file)
        return found

    def keep(self, step: int, live: Live, facts: Mapping[str, Any], now: bool = False) -> None:
        """Remember that ``step`` steps are done, on the disk when it is time or ``now``. Call it between steps only."""
        if self.run is None:
            return
        self._kept = Found(step, *taken_from(live, facts, self.expected))
        if now or self._clock() - self._last_save >= self.seconds:
            self._write()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, SetAside):
            self._write()

    def _write(self) -> None:
        if self.run is not None and self._kept is not None:
            self.run.flush()
            save(self.run.folder, *self._kept)
            self._kept, self._last_save = None, self._clock()


NONE = Checkpoints(None, {}, 0)


def save(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Write a checkpoint and drop all but the newest two.

    A kill at any moment leaves the whole folder or a ``tmp-`` folder that nothing reads.
    """
    sweep(folder)
    target = folder / f"{CHECKPOINT}{step:06d}"
    temporary = folder / f"{TEMPORARY}{target.name}"
    temporary.mkdir()
    try:
        contents = {f"{group}.safetensors": as_bytes(dict(named)) for group, named in tensors.items()}
        contents[STATE] = as_json({"step": step, **state})
        files = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in contents.items()}
        for name, content in {**contents, MANIFEST: as_json(files)}.items():
            _write_synced(temporary / name, content)
        _sync(temporary)
        if target.exists():  # a run that went back behind it does the same step again
            discard(target)
        os.rename(temporary, target)
        _sync(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in in_order(folder)[:-KEPT]:
        discard(old)
    return target


def newest_valid(folder: Path, expected: Mapping[str, Any], tell: Callable[[str], None]) -> Found | None:
    """The newest checkpoint that is whole; damaged ones are removed, and ``tell`` hears why.

    Raises OtherRun, naming what differs, when it was made from something else than ``expected``.
    """
    sweep(folder)
    for path in reversed(in_order(folder)):
        try:
            found = read(path)
        except Damaged as reason:
            tell(f"{path.name} is skipped: {reason}.")
            discard(path)
            continue
        refuse_other(path.name, found.state["expected"], expected)
        return found
    return None


def read(path: Path) -> Found:
    """Every byte is compared with the manifest before it is used. Raises Damaged."""
    try:
        files = json.loads((path / MANIFEST).read_bytes())
        contents = {name: (path / name).read_bytes() for name in sorted(files)}
        for name, content in contents.items():
            if files[name] != {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}:
                raise Damaged(f"{name} is not what was saved")
        state = json.loads(contents.pop(STATE))
        tensors = {name.removesuffix(".safetensors"): read_tensors(content) for name, content in contents.items()}
        return Found(state.pop("step"), tensors, state)
    except FileNotFoundError as missing:
        raise Damaged(f"{Path(missing.filename).name} is missing") from missing
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as cause:
        raise Damaged(f"it cannot be read ({cause})") from cause


def refuse_other(name: str, made_from: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Going on from another run's weights would give a model whose report and lineage are false."""
    differing = [key for key in sorted({*made_from, *expected}) if made_from.get(key) != expected.get(key)]
    if not differing:
        return
    told = []
    for key in differing:
        was, now = made_from.get(key), expected.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            parts = [part for part in sorted({*was, *now}) if was.get(part) != now.get(part)]
            told += [f"{key} ({part} {was.get(part)} there, {now.get(part)} here)" for part in parts]
        else:
            told.append(f"{key} ({_short(was)} there, {_short(now)} here)")
    raise OtherRun(f"{name} belongs to another run: {', '.join(told)}. Start a new job.")


def in_order(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted(folder.glob(f"{CHECKPOINT}*"), key=lambda path: (len(path.name), path.name))


def discard(path: Path) -> None:
    """Renamed first: half a folder must not look like a checkpoint."""
    doomed = path.with_name(f"{TEMPORARY}old-{path.name}")
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def sweep(folder: Path) -> None:
    """Remove what a killed save or removal left behind. A run's folder has one writer, so nothing of it is in use."""
    for path in folder.glob(f"{TEMPORARY}*{CHECKPOINT}*"):
        shutil.rmtree(path)


def taken_from(
    live: Live, facts: Mapping[str, Any], expected: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Copies on the CPU of all that is live, and the state beside them."""
    tensors = {group: {f"{i:04d}": _copy(w) for i, w in enumerate(some)} for group, some in live.weights.items()}
    was = live.optimizer.state_dict()
    moments = {f"{i}.{name}": value for i, values in was["state"].items() for name, value in values.items()}
    tensors[OPTIMIZER] = {name: _copy(value) for name, value in moments.items() if isinstance(value, Tensor)}
    state = {
        "expected": dict(expected),
        "process": about_this_process(),
        "facts": {name: list(fact) if isinstance(fact, list) else fact for name, fact in facts.items()},
        "optimizer": {
            "groups": [dict(group) for group in was["param_groups"]],
            "numbers": {name: value for name, value in moments.items() if not isinstance(value, Tensor)},
        },
    }
    return tensors, state


def put_back(live: Live, found: Found) -> None:
    """The reverse, in place. Raises OtherRun when tensors or shapes differ."""
    for group, some in live.weights.items():
        saved = found.tensors.get(group, {})
        if [tuple(saved[name].shape) for name in sorted(saved)] != [tuple(weight.shape) for weight in some]:
            raise OtherRun(f"The checkpoint of step {found.step} has other tensors for '{group}'. Start a new job.")
        with torch.no_grad():
            for name, weight in zip(sorted(saved), some, strict=True):
                weight.copy_(saved[name])
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**found.tensors[OPTIMIZER], **found.state["optimizer"]["numbers"]}.items():
        place, _, what = name.partition(".")
        state.setdefault(int(place), {})[what] = value
    live.optimizer.load_state_dict({"state": state, "param_groups": found.state["optimizer"]["groups"]})


def about_this_process() -> dict[str, Any]:
    """What decides, beside the settings, how sums are rounded: another order of a batch is another rounding."""
    return {
        "program": program_digest(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.is_available(),
    }


@lru_cache(maxsize=1)
def program_digest() -> str:
    """Of the files of this folder as they were when the process asked first."""
    whole = hashlib.sha256()
    for path in sorted(Path(inspect.getfile(Run)).parent.glob("*.py")):
        whole.update(path.read_bytes())
    return whole.hexdigest()[:12]


def as_json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode()


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _short(value: Any) -> str:
    return value[:16] if isinstance(value, str) else str(value)


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
