"""Files that survive a kill at any moment: whole files are replaced, lines are appended after mending a torn tail."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffsearch.errors import StoreError

PART = ".part"  # what a killed writer leaves behind ends so


def replace_file(path: Path, content: bytes) -> None:
    """Write a whole file so that readers see the old one or the new one, never a part; its folder is made.

    Raises:
        StoreError: the disk refuses; what was there before is still there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
        part = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.chmod(0o644)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"can't write {path}: {error.strerror or error}. Nothing that was there is lost.") from error


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON line and fsync it; a torn last line, left by a kill, is truncated first."""
    line = json.dumps(record, sort_keys=True, allow_nan=False).encode() + b"\n"
    try:
        with path.open("a+b") as file:
            mend_tail(file.fileno())
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"can't append to {path}: {error.strerror or error}") from error


def mend_tail(descriptor: int) -> None:
    """Truncate a file to its last newline."""
    size = os.fstat(descriptor).st_size
    end = size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; the kernel lets go of it when its holder dies.

    It only saves work: where a file system has no locks, this holds none.
    """
    with path.open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a JSON-lines file; a torn last one is dropped, a broken one in the middle is an error."""
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise StoreError(f"{path}:{number}: not a JSON line ({error}). Move the file away to go on.") from error
