"""The files of one upload, by name: as they are, or out of a zip, which is never unpacked to the disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from backend.exchange.plan import BadFile

MOST_FILES = 1_000
MOST_BYTES = 50_000_000  # of an upload, unpacked
MOST_RATIO = 100  # unpacked to packed: beyond it is a bomb


class Upload(NamedTuple):
    """``main`` is the file that is read; the others are there for it to name."""

    main: str
    files: dict[str, bytes]

    @property
    def data(self) -> bytes:
        return self.files[self.main]

    def named(self, reference: str) -> str | None:
        """The file that a reference such as file://data/cases.csv means, inside the upload and nowhere else."""
        wanted = PurePosixPath(reference.removeprefix("file://").replace("\\", "/"))
        text = wanted.as_posix().removeprefix("./")
        if text in self.files:
            return text
        same = [name for name in self.files if PurePosixPath(name).name == wanted.name and ".." not in wanted.parts]
        return same[0] if len(same) == 1 else None


def gather(paths: Sequence[Path | str], *, guess_main: bool = False) -> Upload:
    """The first file is the main one; or, when that is to be guessed, the one that names most of the others. Raises BadFile."""
    files: dict[str, bytes] = {}
    for path in map(Path, paths):
        try:
            if path.stat().st_size > MOST_BYTES:
                raise BadFile("file_size", file=path.name, most=MOST_BYTES // 1_000_000)
            files[path.name] = path.read_bytes()
        except OSError:
            raise BadFile("file_gone", file=path.name) from None
    if not files:
        raise BadFile("no_file")
    if sum(map(len, files.values())) > MOST_BYTES:
        raise BadFile("file_size", file=next(iter(files)), most=MOST_BYTES // 1_000_000)
    return of_bytes(max(files, key=lambda name: _names(files, name)) if guess_main else next(iter(files)), files)


def _names(files: dict[str, bytes], name: str) -> int:
    """How many of the other files a file names."""
    return sum(other.encode("utf-8") in files[name] for other in files if other != name)


def of_bytes(main: str, files: dict[str, bytes]) -> Upload:
    """An upload whose main file may be a zip: then its flow.json, or the only file of its top folder, is the main one."""
    if not (main.endswith((".zip", ".cfzip")) or files[main][:4] == b"PK\x03\x04"):
        return Upload(main, files)
    if main.endswith(".xlsx"):
        raise BadFile("file_xlsx", file=main)
    inside = _unzipped(main, files[main])
    named = [name for name in inside if PurePosixPath(name).name == "flow.json"] or [
        name for name in inside if PurePosixPath(name).name.startswith("promptfooconfig")
    ]
    found = named or sorted(inside, key=lambda name: (name.count("/"), name))
    if not found or (not named and len(inside) > 1):
        raise BadFile("zip_main", file=main)
    return Upload(found[0], inside)


def _unzipped(name: str, data: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            packed = max(1, sum(entry.compress_size for entry in entries))
            size = sum(entry.file_size for entry in entries)
            if len(entries) > MOST_FILES or size > MOST_BYTES or size > packed * MOST_RATIO:
                raise BadFile("zip_bomb", file=name, files=MOST_FILES, most=MOST_BYTES // 1_000_000)
            files: dict[str, bytes] = {}
            for entry in entries:
                place = PurePosixPath(entry.filename.replace("\\", "/"))
                if place.is_absolute() or ".." in place.parts or place.as_posix() in files:
                    raise BadFile("zip_path", file=name, path=entry.filename[:100])
                if entry.flag_bits & 1:
                    raise BadFile("zip_locked", file=name)
                with archive.open(entry) as inner:  # what the directory says of sizes may be a lie
                    content = inner.read(entry.file_size + 1)
                if len(content) > entry.file_size:
                    raise BadFile("zip_bomb", file=name, files=MOST_FILES, most=MOST_BYTES // 1_000_000)
                files[place.as_posix()] = content
            return files
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zipfile.zlib.error, RuntimeError, UnicodeError):  # type: ignore[attr-defined]
        raise BadFile("zip_broken", file=name) from None
