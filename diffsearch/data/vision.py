"""The data sets that torchvision reads: colour pictures, each from its own files on disk, fetched only when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffsearch import registry
from diffsearch.data import cache as cache_files
from diffsearch.data.datasets import ImageData, decoded, spaced
from diffsearch.data.folders import check_fraction, hold_out_rows
from diffsearch.data.pixels import to_pixels
from diffsearch.errors import DataError

Arguments = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class VisionSet:
    """How one set is read.

    Args:
        kind: class in torchvision.datasets.
        folder: what it makes below its root.
        train, test: arguments for each part of a split.
        size: side of the square that images are cropped and scaled to where none is asked for.
        labelled: whether an image has one class.
        files: the attribute in which the class lists its images' files, for messages; None: they are in no files.
    """

    kind: str
    folder: str
    train: Arguments
    test: Arguments
    size: int
    labelled: bool = True
    files: str | None = None


SETS: Mapping[str, VisionSet] = {
    "cifar10": VisionSet("CIFAR10", "cifar-10-batches-py", ({"train": True},), ({"train": False},), 32),
    "stl10": VisionSet("STL10", "stl10_binary", ({"split": "train"},), ({"split": "test"},), 96),
    "flowers102": VisionSet(
        "Flowers102",
        "flowers-102",
        ({"split": "train"}, {"split": "val"}),
        ({"split": "test"},),
        64,
        files="_image_files",
    ),
    "oxford-pets": VisionSet(
        "OxfordIIITPet", "oxford-iiit-pet", ({"split": "trainval"},), ({"split": "test"},), 64, files="_images"
    ),
    "celeba": VisionSet(
        "CelebA", "celeba", ({"split": "train"},), ({"split": "test"},), 64, labelled=False, files="filename"
    ),
}


def _reader(name: str) -> Callable[..., ImageData]:
    def read(
        cache: Path,
        *,
        size: int | None = None,
        root: str | None = None,
        download: bool = False,
        images: int | None = None,
        test_fraction: float | None = None,
    ) -> ImageData:
        """One of torchvision's sets, in RGB.

        Args:
            size: side of the square that every image is cropped and scaled to, in pixels; None: 32 for cifar10, 96 for
                stl10, which is their own, and 64 for the others.
            root: folder that torchvision's files lie in; None: the cache.
            download: fetch them where they are absent.
            images: keep that many training images, evenly spaced over the set; the test images are all kept.
            test_fraction: share of all images that is held out, by a fixed draw; None: the set's own test images.
        """
        if size is not None and size < 4:
            raise DataError(f"{name}: size: {size} is too small; the smallest is 4 pixels")
        if test_fraction is not None:
            check_fraction(name, test_fraction)
        vision, base = SETS[name], place(name, cache, root).parent
        if download:
            fetch(name, cache, root)
        if not place(name, cache, root).exists():
            raise DataError(absent(name, cache, root))
        side = size or vision.size
        split = {} if test_fraction is None else {"test_fraction": test_fraction}  # caches of before stay good
        entry = cache_files.key(name, files=_stamp(base / vision.folder), size=side, images=images, **split)
        return decoded(cache, entry, name, lambda work: _decode(name, base, side, images, test_fraction, work))

    return read


for _name in SETS:
    _shape = (3, SETS[_name].size, SETS[_name].size)
    registry.dataset.register(_name, reference_family=None, image_shape=_shape)(_reader(_name))


def place(name: str, cache: Path, root: str | None = None) -> Path:
    """The folder that a set's files lie in, if they are there."""
    base = cache / "downloads" if root is None else Path(root).expanduser()
    return base / SETS[name].folder


def absent(name: str, cache: Path, root: str | None = None) -> str:
    """The message for a set that isn't on this machine."""
    return (
        f"{name} is not on this machine: looked for {place(name, cache, root)}.\n"
        f"    `diffsearch data fetch {name}` downloads it, or say with `root:` where that folder lies."
    )


def fetch(name: str, cache: Path, root: str | None = None) -> None:
    """Download a set with torchvision, where it isn't there; raises DataError where that fails."""
    vision, base = SETS[name], place(name, cache, root).parent
    base.mkdir(parents=True, exist_ok=True)
    for arguments in (*vision.train, *vision.test):
        _open(name, base, arguments, download=True)


def _open(name: str, base: Path, arguments: Mapping[str, Any], download: bool = False) -> Any:
    from torchvision import datasets

    try:
        return getattr(datasets, SETS[name].kind)(str(base), **arguments, download=download)
    except (OSError, RuntimeError) as error:
        if download:
            why = f"{name} can't be downloaded ({error}); copy its files here and say `root:`"
        else:
            why = f"{name}: the files in {base / SETS[name].folder} are not whole ({error}); fetch them again"
        raise DataError(why) from error


def _decode(
    name: str, base: Path, size: int, images: int | None, test_fraction: float | None, work: Path
) -> tuple[str, ...]:
    """Write the arrays of both splits; returns the names of the classes."""
    vision = SETS[name]
    classes: tuple[str, ...] = ()
    for part, rows in _split(name, base, images, test_fraction).items():
        labels = np.empty(len(rows), np.int64)
        first, _ = _image(name, *rows[0], size)
        shape = (len(rows), *first.shape)
        array = np.lib.format.open_memmap(work / f"{part}.npy", mode="w+", dtype=np.uint8, shape=shape)
        for row, (source, index) in enumerate(rows):
            array[row], labels[row] = _image(name, source, index, size)
        array.flush()
        if vision.labelled:
            np.save(work / f"{part}_labels.npy", labels)
            names = getattr(rows[0][0], "classes", None) or range(int(labels.max()) + 1)
            classes = classes or tuple(str(each) for each in names)
    return classes


def _split(name: str, base: Path, images: int | None, test_fraction: float | None) -> dict[str, list[tuple[Any, int]]]:
    """Part → (torchvision's set, index in it) of each of its images; no part "test" where nothing is held out."""
    vision = SETS[name]
    parts: dict[str, list[tuple[Any, int]]] = {}
    for part, arguments in (("train", vision.train), ("test", vision.test)):
        opened = [_open(name, base, each) for each in arguments]
        parts[part] = [(source, index) for source in opened for index in range(len(source))]
        if not parts[part]:
            raise DataError(f"{name}: no {part} images in {base / vision.folder}")
    if test_fraction is not None:
        every = [*parts["train"], *parts["test"]]
        chosen = hold_out_rows(len(every), test_fraction)
        parts = {part: [every[row] for row in rows] for part, rows in zip(parts, chosen, strict=True) if rows}
    if images is not None:
        parts["train"] = [parts["train"][row] for row in spaced(images, len(parts["train"]), name)]
    return parts


def _image(name: str, source: Any, index: int, size: int) -> tuple[np.ndarray, int]:
    try:
        image, label = source[index]
        pixels = to_pixels(image, 3, (size, size))
    except (OSError, SyntaxError, ValueError) as error:
        files = SETS[name].files
        which = f"image {index}" if files is None else str(getattr(source, files)[index])
        raise DataError(f"{name}: {which} of {type(source).__name__} is not readable: {error}") from error
    return pixels, int(label) if SETS[name].labelled else 0


def _stamp(folder: Path) -> list[tuple[str, int, int]]:
    """Every file of a set, with its size and time of change."""
    found = ((str(path), path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]
