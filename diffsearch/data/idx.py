"""MNIST's file format, where such files may lie, and how they are fetched.

Format (http://yann.lecun.com/exdb/mnist, as archived): two zero bytes, 0x08 for unsigned bytes, the number of
dimensions, each dimension as a big-endian 32-bit integer, then the values.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from diffsearch.errors import DataError

_PARTS = {
    "train": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
FILES_OF: Mapping[str, str] = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "kmnist": "KMNIST",
}  # name → torchvision's class
_SYSTEM = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}  # Debian's package dataset-fashion-mnist


def places(name: str, cache: Path, root: str | None) -> list[Path]:
    """The folders that may hold the files of a set, in the order in which they are looked at."""
    if root is not None:
        base = Path(root).expanduser()
        return [base / FILES_OF[name] / "raw", base / "raw", base]
    system = [_SYSTEM[name]] if name in _SYSTEM else []
    return [cache / "downloads" / FILES_OF[name] / "raw", *system]


def find(name: str, folders: Sequence[Path]) -> dict[str, Path] | None:
    """Part → file in the first folder that has all four, plain or gzipped; None where none has."""
    for folder in folders:
        files = {}
        for part, stem in _PARTS.items():
            present = [path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()]
            if present:
                files[part] = present[0]
        if len(files) == len(_PARTS):
            return files
    return None


def absent(name: str, folders: Sequence[Path]) -> str:
    """The message for a set that isn't on this machine."""
    looked = ", ".join(str(folder) for folder in folders)
    return (
        f"{name} is not on this machine: looked for {_PARTS['train']}(.gz) and its three companions in {looked}.\n"
        f"    `diffsearch data fetch {name}` downloads them, or say where they lie with `root:`."
    )


def download(name: str, cache: Path) -> dict[str, Path]:
    """Fetch the four files with torchvision into the cache; raises DataError where that fails."""
    from torchvision import datasets

    try:
        getattr(datasets, FILES_OF[name])(str(cache / "downloads"), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{name} can't be downloaded ({error}); copy its files here and say `root:`") from error
    files = find(name, places(name, cache, None))
    if files is None:
        raise DataError(absent(name, places(name, cache, None)))
    return files


def read(path: Path) -> np.ndarray:
    """The array of one file: uint8, (N, H, W) for images and (N,) for labels.

    Raises:
        DataError: unreadable, not this format, or cut short.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise DataError(f"{path} is not an idx file of bytes")
    header = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    if len(content) - header != int(np.prod(shape)):
        raise DataError(f"{path} is cut short: {len(content) - header} bytes where its header says {shape}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
