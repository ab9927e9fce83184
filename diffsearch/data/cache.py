"""Decoded data sets on disk: each is decoded once a node, by one of its workers, and memory-mapped by all.

An entry is a folder of `.npy` arrays and a `facts.json`. It is built beside its place under a file lock and renamed
into it when it is whole, so an entry either doesn't exist or is complete. The lock only saves work: where a file
system has no locks, the first finished entry wins and the others are dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from diffsearch.errors import DataError
from diffsearch.files import locked

_CHUNK_BYTES = 1 << 24


def default_cache() -> Path:
    """`$DIFFSEARCH_CACHE`, else the user's cache folder of this system."""
    configured = os.environ.get("DIFFSEARCH_CACHE")
    return Path(configured) if configured else Path(platformdirs.user_cache_dir("diffsearch"))


def key(name: str, **determinants: Any) -> str:
    """File name of an entry: `<name>-<16 hex>`, the hash over all that the decoded arrays depend on."""
    plain = json.dumps(determinants, sort_keys=True, default=str)
    return f"{name}-{hashlib.sha256(plain.encode()).hexdigest()[:16]}"


def entry(cache: Path, name: str, build: Callable[[Path], Mapping[str, Any]]) -> Path:
    """The folder of entry `name`, built by `build` if it isn't there.

    Args:
        cache: folder of all entries.
        name: from `key`.
        build: writes `.npy` files into the folder it is given and returns facts, which become `facts.json`.
            It may raise; then nothing of it stays.

    Raises:
        DataError: the cache folder can't be written.
    """
    final = cache / "data" / name
    if (final / "facts.json").is_file():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with locked(final.with_name(name + ".lock")):
            if not (final / "facts.json").is_file():
                _build(final, build)
    except OSError as error:
        raise DataError(f"can't write the cache {cache}: {error}; set DIFFSEARCH_CACHE to another folder") from error
    return final


def _build(final: Path, build: Callable[[Path], Mapping[str, Any]]) -> None:
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        facts = build(work)
        (work / "facts.json").write_text(json.dumps(facts, indent=1))
        for path in work.iterdir():
            _sync(path)
        work.chmod(0o755)  # mkdtemp's 0700 would hide a shared cache from its other users
        try:
            work.replace(final)
        except OSError:
            if not (final / "facts.json").is_file():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def read_array(folder: Path, name: str) -> np.ndarray | None:
    """Array `name` of an entry, memory-mapped and read-only; None where the entry has none."""
    path = folder / f"{name}.npy"
    if not path.is_file():
        return None
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read ({error}); delete {folder} and run again") from error
    return array


def content_hash(*arrays: np.ndarray | None) -> str:
    """16 hex digits of sha256 over shapes, dtypes and values, in order; None is skipped."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            continue
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
        for start in range(0, len(array), rows):  # a memory-mapped set needn't fit in memory
            digest.update(np.ascontiguousarray(array[start : start + rows]).tobytes())
    return digest.hexdigest()[:16]


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
