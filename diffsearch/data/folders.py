"""Folders of images: what is in them, which are held out, and how each becomes one array."""

from __future__ import annotations

import collections
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from diffsearch.data.pixels import to_pixels
from diffsearch.errors import DataError

Mode = Literal["auto", "grey", "rgb"]
Entry = tuple[Path, int, int]  # file, bytes, modification time in ns

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm"}
_TEST_NAMES = ("test", "val", "valid", "validation")
_GREY_MODES = {"1", "L", "LA", "I;16", "I;16B", "I"}
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what PIL raises on broken files
_SIZES = (128, 96, 64, 48, 32, 28, 16)


@dataclass(frozen=True)
class Plan:
    """Which files become which rows of which array, and how: everything that the decoded arrays depend on."""

    root: Path
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]
    classes: tuple[str, ...]
    train_base: Path  # a file's class is the first folder of its path below the base
    test_base: Path
    size: int | None
    mode: Mode

    def determinants(self) -> dict[str, Any]:
        """What the cache's key hashes: the paths, sizes and times of the files, and the options."""
        splits = {
            name: [[str(path), size, time] for path, size, time in entries]
            for name, entries in (("train", self.train), ("test", self.test))
        }
        return {"root": str(self.root), "size": self.size, "mode": self.mode, **splits}

    def decode(self, work: Path) -> tuple[str, ...]:
        """Write the arrays into `work` and return the classes; raises DataError naming a file that can't be read."""
        channels, height, width = self._shape()
        for name, entries, base in (
            ("train", self.train, self.train_base),
            ("test", self.test, self.test_base),
        ):
            if not entries:
                continue
            shape = (len(entries), channels, height, width)
            array = np.lib.format.open_memmap(work / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape)
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # PIL decodes outside the interpreter's lock
                images = pool.map(lambda entry: _read(entry[0], channels, height, width, self.size), entries)
                for row, image in enumerate(images):
                    array[row] = image
            array.flush()
            if self.classes:
                labels = [self.classes.index(_class_of(path, base)) for path, _, _ in entries]
                np.save(work / f"{name}_labels.npy", np.array(labels, np.int64))
        return self.classes

    def _shape(self) -> tuple[int, int, int]:
        headers = [_header(path) for path, _, _ in (*self.train, *self.test)]
        grey = self.mode == "grey" or (self.mode == "auto" and self._all_grey([mode for _, mode in headers]))
        channels = 1 if grey else 3
        if self.size is not None:
            return channels, self.size, self.size
        sizes = collections.Counter(size for size, _ in headers)
        if len(sizes) > 1:
            raise DataError(
                f"the images in {self.root} have {len(sizes)} different sizes; say `size: {_suggest(sizes)}` "
                f"to crop and scale each to a square"
            )
        ((width, height),) = sizes
        return channels, height, width

    def _all_grey(self, modes: list[str]) -> bool:
        """Whether every image is; raises DataError where some are and some aren't."""
        grey = [mode in _GREY_MODES for mode in modes]
        if any(grey) and not all(grey):
            files = (*self.train, *self.test)
            raise DataError(
                f"folder: {sum(grey):,} of {len(grey):,} images in {self.root} are grey ({files[grey.index(True)][0]})"
                f" and the others aren't ({files[grey.index(False)][0]}); say `mode: rgb` or `mode: grey`"
            )
        return all(grey)


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """What lies in a folder of images."""

    path: Path
    images: int
    sizes: tuple[tuple[int, int, int], ...]  # (width, height, images), the most common first
    modes: tuple[tuple[str, int], ...]  # PIL's mode → images
    grey: bool
    classes: tuple[str, ...]
    splits: tuple[str, ...]  # ("train", "test") where the folder has them, else ()
    suggested_size: int


def inspect_folder(path: Path) -> FolderFacts:
    """Count the images of a folder and read their headers; raises DataError as the data set would."""
    found = plan(path, None, "auto", 0.0)
    headers = [_header(file) for file, _, _ in (*found.train, *found.test)]
    sizes = collections.Counter(size for size, _ in headers)
    modes = collections.Counter(mode for _, mode in headers)
    return FolderFacts(
        path=path,
        images=len(headers),
        sizes=tuple((width, height, count) for (width, height), count in sizes.most_common()),
        modes=tuple(modes.most_common()),
        grey=all(mode in _GREY_MODES for mode in modes),
        classes=found.classes,
        splits=("train", found.test_base.name) if found.test else (),
        suggested_size=_suggest(sizes),
    )


def plan(path: Path, size: int | None, mode: Mode, test_fraction: float) -> Plan:
    """Find the images, their classes and their splits; opens none of them.

    Raises:
        DataError: no such folder, no images in it or in its train/, or options that mean nothing.
    """
    if size is not None and size < 4:
        raise DataError(f"folder: size: {size} is too small; the smallest is 4 pixels")
    check_fraction("folder", test_fraction)
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"folder: no such folder: {root}")
    train_base = test_base = root
    if (root / "train").is_dir():
        train_base = root / "train"
        test_base = next((root / name for name in _TEST_NAMES if (root / name).is_dir()), train_base)
    files = _images(train_base)
    if not files:
        raise DataError(f"folder: no images in {train_base} (looked for {', '.join(sorted(_SUFFIXES))})")
    if test_base is not train_base:
        train, test = files, _images(test_base)
        if not test:
            raise DataError(f"folder: no images in {test_base}")
    else:
        train, test = _hold_out(files, test_fraction)
    classes = sorted(
        {_class_of(file, base) for entries, base in ((train, train_base), (test, test_base)) for file, _, _ in entries}
    )
    named = () if "" in classes else tuple(classes)  # images beside the sub-folders: then these aren't classes
    if named:
        _refuse_empty(train_base, {_class_of(file, train_base) for file, _, _ in train}, named)
    return Plan(root.resolve(), tuple(train), tuple(test), named, train_base, test_base, size, mode)


def _refuse_empty(base: Path, filled: set[str], classes: tuple[str, ...]) -> None:
    """Every class has training images; raises DataError naming one that has none."""
    folders = {path.name for path in base.iterdir() if path.is_dir() and not path.name.startswith(".")}
    if empty := sorted({*folders, *classes} - filled):
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise DataError(f"folder: class '{empty[0]}'{more} has no training images in {base}; fill it or take it away")


def _images(base: Path) -> list[Entry]:
    paths = sorted(
        path
        for path in base.rglob("*")
        if path.suffix.lower() in _SUFFIXES and not _is_hidden(path, base) and path.is_file()
    )
    return [(path, stat.st_size, stat.st_mtime_ns) for path in paths for stat in [path.stat()]]


def _is_hidden(path: Path, base: Path) -> bool:
    """Whether the file, or a folder on the way to it, is one that programs keep for themselves."""
    return any(part.startswith(".") for part in path.relative_to(base).parts)


def _hold_out(files: list[Entry], fraction: float) -> tuple[list[Entry], list[Entry]]:
    train, test = hold_out_rows(len(files), fraction)
    return [files[row] for row in train], [files[row] for row in test]


def check_fraction(name: str, test_fraction: float) -> None:
    """Raise DataError unless that share can be held out."""
    if not 0 <= test_fraction < 1:
        raise DataError(f"{name}: test_fraction: {test_fraction:g} is not within 0 and 1")


def hold_out_rows(count: int, fraction: float) -> tuple[list[int], list[int]]:
    """Rows of `count` to train on and to test on, both ascending; by a fixed draw, so always split alike."""
    held = min(round(count * fraction), count - 1)
    drawn = set(np.random.default_rng(0).permutation(count)[:held].tolist())
    return [row for row in range(count) if row not in drawn], sorted(drawn)


def _class_of(path: Path, base: Path) -> str:
    parts = path.relative_to(base).parts
    return parts[0] if len(parts) > 1 else ""


def _suggest(sizes: collections.Counter[tuple[int, int]]) -> int:
    """The largest usual side that enlarges no image, at most 64, which a small model can learn."""
    smallest = min(min(size) for size in sizes)
    return next((side for side in _SIZES if side <= min(smallest, 64)), _SIZES[-1])


def _header(path: Path) -> tuple[tuple[int, int], str]:
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112) in (5, 6, 7, 8)  # the camera was held upright
            size = (image.height, image.width) if turned else image.size
            return size, image.mode
    except _UNREADABLE as error:
        raise DataError(f"{path} is not a readable image: {error}") from error


def _read(path: Path, channels: int, height: int, width: int, size: int | None) -> np.ndarray:
    """One image file as uint8 (C, H, W)."""
    try:
        with Image.open(path) as opened:
            return to_pixels(opened, channels, None if size is None else (width, height))
    except _UNREADABLE as error:
        raise DataError(f"{path} is not a readable image: {error}") from error
