"""Data sets: what they hold, that they are decoded once, and what is said where they can't be read."""

from __future__ import annotations

import gzip
import multiprocessing
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from diffsearch import registry
from diffsearch.data import datasets, folders, idx
from diffsearch.data.catalogue import available, check, fetch
from diffsearch.data.datasets import ImageData, load, split
from diffsearch.errors import DataError, DiffsearchError
from diffsearch.space.settings import Choice


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def digits(cache: Path) -> ImageData:
    return load(Choice.of("mnist-5k"), cache)


def write_idx(path: Path, array: np.ndarray) -> None:
    content = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def tiny_mnist(tmp_path: Path) -> Path:
    """MNIST's tree with 20 + 10 images of random pixels."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for stem, count in (("train", 20), ("t10k", 10)):
        write_idx(raw / f"{stem}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), np.uint8))
        write_idx(raw / f"{stem}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    return tmp_path


def entries(cache: Path) -> list[str]:
    """What lies in the cache besides locks: finished entries and whatever was left half-built."""
    folder = cache / "data"
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"] if folder.is_dir() else []


# --- mnist-5k -----------------------------------------------------------------------------------------------------


def test_the_shipped_digits_are_5000_balanced_and_read_only(digits: ImageData) -> None:
    assert digits.train.shape == (5000, 1, 28, 28) and digits.train.dtype == np.uint8
    assert digits.image_shape == (1, 28, 28) and digits.test is None and digits.reference_family == "mnist"
    assert isinstance(digits.train, np.memmap) and not digits.train.flags.writeable
    assert np.bincount(digits.train_labels).tolist() == [500] * 10


def test_the_shipped_digits_are_training_images_of_mnist(digits: ImageData, shared_data: Path, cache: Path) -> None:
    full = load(Choice.of("mnist", root=str(shared_data)), cache)
    known = {image.tobytes(): label for image, label in zip(full.train, full.train_labels, strict=True)}
    assert [known[image.tobytes()] for image in digits.train] == list(digits.train_labels)
    assert not {image.tobytes() for image in full.test} & {image.tobytes() for image in digits.train}


def test_a_subset_of_a_set_sorted_by_class_stays_balanced(cache: Path, digits: ImageData) -> None:
    few = load(Choice.of("mnist-5k", images=100), cache)
    assert np.bincount(few.train_labels).tolist() == [10] * 10 and few.content != digits.content


def test_more_images_than_there_are_is_refused(cache: Path) -> None:
    with pytest.raises(DataError, match="images: 5001 is not within 1 and 5000"):
        load(Choice.of("mnist-5k", images=5001), cache)


def test_content_depends_on_images_and_labels() -> None:
    images = np.zeros((4, 1, 2, 2), np.uint8)
    labels = np.arange(4)
    base = ImageData.of("a", images, train_labels=labels)
    assert ImageData.of("b", images.copy(), train_labels=labels.copy()).content == base.content
    assert ImageData.of("a", images + 1, train_labels=labels).content != base.content
    assert ImageData.of("a", images, train_labels=labels[::-1]).content != base.content
    assert ImageData.of("a", images.reshape(4, 1, 1, 4), train_labels=labels).content != base.content


def test_arrays_that_are_not_images_are_refused() -> None:
    with pytest.raises(DataError, match="uint8"):
        ImageData.of("floats", np.zeros((4, 1, 2, 2)))


# --- idx ----------------------------------------------------------------------------------------------------------


def test_mnist_reads_what_torchvision_reads(tiny_mnist: Path, tmp_path: Path) -> None:
    data = load(Choice.of("mnist", root=str(tiny_mnist)), tmp_path / "cache")
    theirs = torchvision.datasets.MNIST(str(tiny_mnist), train=True, download=False)
    assert np.array_equal(data.train[:, 0], theirs.data.numpy()) and np.array_equal(data.train_labels, theirs.targets)
    theirs = torchvision.datasets.MNIST(str(tiny_mnist), train=False, download=False)
    assert np.array_equal(split(data, "test")[:, 0], theirs.data.numpy())


@pytest.mark.parametrize(("name", "folder"), [("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")])
def test_sets_of_mnists_format_are_read_alike(tiny_mnist: Path, tmp_path: Path, name: str, folder: str) -> None:
    shutil.copytree(tiny_mnist / "MNIST", tmp_path / "root" / folder)
    found = load(Choice.of(name, root=str(tmp_path / "root")), tmp_path / "cache")
    same = load(Choice.of("mnist", root=str(tiny_mnist)), tmp_path / "cache")
    assert np.array_equal(found.train, same.train) and found.test is not None and len(found.classes) == 10
    assert found.reference_family is None and same.reference_family == "mnist"


def test_gzipped_files_in_a_plain_folder_are_read_alike(tiny_mnist: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    for path in (tiny_mnist / "MNIST" / "raw").iterdir():
        (packed / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    plain = load(Choice.of("mnist", root=str(tiny_mnist)), tmp_path / "cache")
    for name in ("mnist", "fashion-mnist"):
        data = load(Choice.of(name, root=str(packed)), tmp_path / "cache")
        assert (data.content, data.test_content) == (plain.content, plain.test_content)


def test_clothes_are_read_where_debian_puts_them(
    tiny_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gzipped, side by side; what was downloaded goes first."""
    debian, cache = tmp_path / "debian", tmp_path / "cache"
    debian.mkdir()
    for path in (tiny_mnist / "MNIST" / "raw").iterdir():
        (debian / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert idx._SYSTEM["fashion-mnist"] == Path("/usr/share/datasets/fashion-mnist")
    monkeypatch.setitem(idx._SYSTEM, "fashion-mnist", debian)
    assert load(Choice("fashion-mnist"), cache).classes[9] == "Ankle boot"
    where = {row.name: row.where for row in available(cache)}
    assert where["fashion-mnist"] == str(debian) and where["mnist"] == "diffsearch data fetch mnist"
    shutil.copytree(tiny_mnist / "MNIST", cache / "downloads" / "FashionMNIST")
    assert {row.name: row.where for row in available(cache)}["fashion-mnist"].startswith(str(cache))


def test_absent_mnist_says_where_it_was_looked_for_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(Choice.of("mnist"), tmp_path)
    assert str(tmp_path / "downloads" / "MNIST" / "raw") in str(caught.value)
    assert "diffsearch data fetch mnist" in str(caught.value)
    assert entries(tmp_path) == []


@pytest.mark.parametrize("cut", [2, 10, 1000])
def test_a_file_cut_short_is_named_and_nothing_is_cached(tiny_mnist: Path, tmp_path: Path, cut: int) -> None:
    broken = tiny_mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    broken.write_bytes(broken.read_bytes()[:cut])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte"):
        load(Choice.of("mnist", root=str(tiny_mnist)), tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


# --- folders ------------------------------------------------------------------------------------------------------


def test_a_folder_with_splits_and_classes(shared_data: Path, tmp_path: Path) -> None:
    data = load(Choice.of("folder", path=str(shared_data / "flowers5"), size=64), tmp_path)
    assert data.train.shape == (1000, 3, 64, 64) and split(data, "test").shape == (200, 3, 64, 64)
    assert data.classes == ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert np.bincount(data.train_labels).tolist() == [200] * 5
    first = sorted((shared_data / "flowers5" / "train" / "daisy").iterdir())[0]
    with Image.open(first) as image:
        smaller = image.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)
    assert np.abs(data.train[0].transpose(1, 2, 0).astype(int) - np.asarray(smaller)).max() <= 1


def test_images_of_one_size_are_kept_as_they_are(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "cifar10-images" / "test"
    data = load(Choice.of("folder", path=str(source), test_fraction=0.2), tmp_path)
    assert data.train.shape == (800, 3, 32, 32) and split(data, "test").shape == (200, 3, 32, 32)
    with Image.open(sorted(source.rglob("*.jpg"))[-1]) as image:
        pixels = np.asarray(image).transpose(2, 0, 1)
    assert any(np.array_equal(pixels, row) for row in (*data.train[-100:], *split(data, "test")[-100:]))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve grey 10×8 images, two of them in each of six folders."""
    folder = tmp_path / "pictures"
    for row in range(12):
        path = folder / f"class{row // 2}" / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 10), row * 20, np.uint8)).save(path)
    return folder


def test_the_hold_out_is_the_same_draw_each_time_and_overlaps_nothing(pictures: Path, tmp_path: Path) -> None:
    choice = Choice.of("folder", path=str(pictures), test_fraction=0.25)
    data, again = load(choice, tmp_path / "a"), load(choice, tmp_path / "b")
    assert len(data.train) == 9 and len(split(data, "test")) == 3 and data.image_shape == (1, 8, 10)
    assert (data.content, data.test_content) == (again.content, again.test_content)
    assert {int(image[0, 0, 0]) for image in (*data.train, *split(data, "test"))} == set(range(0, 240, 20))


def test_a_subset_of_a_folder_is_spread_over_its_classes(pictures: Path, tmp_path: Path) -> None:
    data = load(Choice.of("folder", path=str(pictures), test_fraction=0.0, images=6), tmp_path / "cache")
    assert data.train_labels is not None and data.train_labels.tolist() == list(range(6)) and len(data.classes) == 6
    with pytest.raises(DataError, match="images: 13 is not within 1 and 12"):
        load(Choice.of("folder", path=str(pictures), test_fraction=0.0, images=13), tmp_path / "cache")


def test_a_changed_file_is_decoded_again(pictures: Path, tmp_path: Path) -> None:
    before = registry.dataset.build("folder", tmp_path / "cache", path=str(pictures))
    Image.fromarray(np.full((8, 10), 255, np.uint8)).save(pictures / "class0" / "new.png")
    after = registry.dataset.build("folder", tmp_path / "cache", path=str(pictures))
    assert len(after.train) + len(after.test) == len(before.train) + len(before.test) + 1


def test_a_corrupt_image_is_named_and_nothing_is_cached(pictures: Path, tmp_path: Path) -> None:
    broken = pictures / "class3" / "7.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(DataError, match=r"class3/7\.png"):
        load(Choice.of("folder", path=str(pictures), size=8), tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_a_real_photo_cut_in_half_is_named(shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(shared_data / "flowers5" / "test" / "rose", folder)
    broken = sorted(folder.iterdir())[20]
    broken.chmod(0o644)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    with pytest.raises(DataError, match=broken.name):
        load(Choice.of("folder", path=str(folder), size=32), tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_folders_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load(Choice.of("folder", path=str(tmp_path / "nowhere")), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        load(Choice.of("folder", path=str(tmp_path / "empty")), tmp_path)


def test_an_empty_class_is_named(pictures: Path, tmp_path: Path) -> None:
    (pictures / "class9").mkdir()
    with pytest.raises(DataError, match=r"class 'class9' has no training images in .*pictures"):
        load(Choice.of("folder", path=str(pictures)), tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_a_class_of_the_test_images_alone_is_named(pictures: Path, tmp_path: Path) -> None:
    pictures.rename(tmp_path / "train")
    (tmp_path / "set").mkdir()
    (tmp_path / "train").rename(tmp_path / "set" / "train")
    shutil.copytree(tmp_path / "set" / "train" / "class0", tmp_path / "set" / "test" / "strange")
    with pytest.raises(DataError, match="class 'strange' has no training images"):
        load(Choice.of("folder", path=str(tmp_path / "set")), tmp_path / "cache")


def test_what_programs_hide_beside_the_images_is_no_class(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures / "class0", pictures / ".thumbnails" / "large")
    shutil.copy(pictures / "class0" / "0.png", pictures / "class0" / "._0.png")
    data = load(Choice.of("folder", path=str(pictures), test_fraction=0.0), tmp_path / "cache")
    assert len(data.train) == 12 and data.classes == tuple(f"class{number}" for number in range(6))


def test_grey_and_colour_together_need_a_mode(pictures: Path, tmp_path: Path) -> None:
    Image.new("RGB", (10, 8), "red").save(pictures / "class2" / "red.png")
    with pytest.raises(DataError, match=r"12 of 13 images .* are grey .*class0/0\.png.*class2/red\.png.*`mode: rgb`"):
        load(Choice.of("folder", path=str(pictures)), tmp_path / "cache")
    assert entries(tmp_path / "cache") == []
    assert load(Choice.of("folder", path=str(pictures), mode="grey"), tmp_path / "cache").image_shape == (1, 8, 10)


def test_images_of_several_sizes_need_a_size(pictures: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(pictures / "class0" / "big.png")
    with pytest.raises(DataError, match=r"2 different sizes; say `size: 16`"):
        load(Choice.of("folder", path=str(pictures)), tmp_path)


def test_odd_images_become_what_they_show(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(folder / "a_transparent.png")
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(folder / "b_sixteen_bits.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90° clockwise when shown
    turned = Image.fromarray(np.array([[0, 255]], np.uint8).repeat(2, 1).repeat(4, 0))
    turned.save(folder / "c_turned.png", exif=exif)
    Image.new("P", (4, 4), 0).save(folder / "d_palette.png")
    data = load(Choice.of("folder", path=str(folder), mode="rgb", test_fraction=0.0), tmp_path / "cache")
    transparent, sixteen, turned_pixels, _ = data.train
    assert transparent.min() == 255, "transparent parts lie on white"
    assert np.all(sixteen == 40000 // 257)
    assert turned_pixels[0, 0].tolist() == [0] * 4 and turned_pixels[0, 3].tolist() == [255] * 4


def test_inspect_folder_counts_and_suggests(shared_data: Path, pictures: Path) -> None:
    facts = folders.inspect_folder(shared_data / "flowers5")
    assert facts.images == 1200 and facts.sizes == ((128, 128, 1200),) and facts.suggested_size == 64
    assert facts.splits == ("train", "test") and len(facts.classes) == 5 and not facts.grey
    facts = folders.inspect_folder(pictures)
    assert facts.grey and facts.splits == () and facts.modes == (("L", 12),)


# --- the cache ----------------------------------------------------------------------------------------------------


def _decode_slowly(cache: Path, barrier: multiprocessing.synchronize.Barrier, log: Path) -> None:
    from diffsearch.data import cache as cache_files

    def build(work: Path) -> dict[str, str]:
        with log.open("a") as handle:
            handle.write("built\n")
        np.save(work / "train.npy", np.arange(1_000_000))
        return {"whole": "yes"}

    barrier.wait()
    where = cache_files.entry(cache, "shared", build)
    with log.open("a") as handle:
        handle.write(f"read {int(np.load(where / 'train.npy', mmap_mode='r')[-1])}\n")


def test_several_processes_decode_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, log = context.Barrier(3), tmp_path / "log"
    workers = [context.Process(target=_decode_slowly, args=(tmp_path / "cache", barrier, log)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    lines = log.read_text().splitlines()
    assert lines.count("built") == 1 and lines.count("read 999999") == 3


def test_a_second_load_reads_the_cache_and_not_the_source(pictures: Path, tmp_path: Path) -> None:
    plan = folders.plan(pictures, None, "auto", 0.1)
    first = registry.dataset.build("folder", tmp_path / "cache", path=str(pictures))
    stamp = (Path(first.train.filename)).stat().st_mtime_ns
    second = registry.dataset.build("folder", tmp_path / "cache", path=str(pictures))
    assert Path(second.train.filename).stat().st_mtime_ns == stamp and len(plan.train) == len(second.train)


def test_a_folder_that_can_not_be_written_is_a_data_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(DataError, match="DIFFSEARCH_CACHE"):
        load(Choice.of("mnist-5k", images=7), blocked)


# --- list, fetch, check -------------------------------------------------------------------------------------------


def test_available_names_every_set_and_how_to_get_the_absent(tmp_path: Path) -> None:
    table = {row.name: row for row in available(tmp_path)}
    assert set(table) >= {"mnist-5k", "mnist", "fashion-mnist", "folder"}
    assert table["mnist-5k"].present and table["mnist-5k"].size_bytes > 500_000
    assert not table["mnist"].present and table["mnist"].where == "diffsearch data fetch mnist"


def test_fetch_uses_what_is_there(tiny_mnist: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_mnist / "MNIST", tmp_path / "cache" / "downloads" / "MNIST")
    assert len(fetch("mnist", tmp_path / "cache").train) == 20
    assert {row.name: row for row in available(tmp_path / "cache")}["mnist"].present
    with pytest.raises(DataError, match="nothing to fetch"):
        fetch("folder", tmp_path)


def test_check_notices_a_changed_byte(tmp_path: Path, pictures: Path) -> None:
    choice = Choice.of("folder", path=str(pictures))
    data = check(choice, tmp_path / "cache")
    path = Path(data.train.filename)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    datasets._load.cache_clear()
    with pytest.raises(DataError, match="changed on disk"):
        check(choice, tmp_path / "cache")


def test_unknown_sets_are_answered_with_the_nearest() -> None:
    with pytest.raises(DiffsearchError, match="Did you mean 'mnist-5k'"):
        load(Choice.of("mnist-5"))


# --- a share of the training images that is only watched ------------------------------------------------------------


def test_a_validation_share_is_a_fixed_draw_beside_the_rest(cache: Path, digits: ImageData) -> None:
    held = load(Choice.of("mnist-5k", validation=0.2), cache)
    assert held.validation is not None and held.validation_labels is not None and held.train_labels is not None
    assert (len(held.train), len(held.validation)) == (4000, 1000)
    both = np.concatenate([held.train, held.validation]).reshape(5000, -1)
    rows = [set(map(bytes, images.reshape(len(images), -1))) for images in (both, digits.train)]
    assert rows[0] == rows[1]
    assert np.bincount(held.validation_labels).min() > 70
    assert held.content not in (digits.content, load(Choice.of("mnist-5k", validation=0.1), cache).content)
    assert np.array_equal(load(Choice.of("mnist-5k", validation=0.2), cache).validation, held.validation)
    where = np.flatnonzero((digits.train == held.validation[0]).all((1, 2, 3)))
    assert digits.train_labels is not None and held.validation_labels[0] in digits.train_labels[where]


def test_a_share_that_leaves_nothing_is_refused(cache: Path) -> None:
    with pytest.raises(DataError, match=r"data\.validation 0\.0001 leaves 0 of 5000"):
        load(Choice.of("mnist-5k", validation=0.0001), cache)
