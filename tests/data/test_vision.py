"""torchvision's sets, each read from a tiny tree in its true format on disk; their md5 sums alone are not asked for."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import celeba, cifar, flowers102, stl10

from diffsearch import registry
from diffsearch.data import vision
from diffsearch.data.catalogue import available, fetch
from diffsearch.data.datasets import ImageData, load
from diffsearch.errors import DataError
from diffsearch.space.settings import Choice


def picture(seed: int, width: int, height: int) -> Image.Image:
    """One of a kind, and smooth enough for jpeg."""
    rows, columns = np.mgrid[0:height, 0:width] / max(width, height)
    return Image.fromarray((255 * np.stack([rows, columns, (rows + seed / 11) % 1], axis=2)).astype(np.uint8))


def write_cifar10(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for batch in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        content = {"data": rng.integers(0, 256, (4, 3072), np.uint8), "labels": [0, 1, 8, 9]}
        (folder / batch).write_bytes(pickle.dumps(content))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))


def write_stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for part, count in (("train", 5), ("test", 3)):
        np.random.default_rng(0).integers(0, 256, (count, 3, 96, 96), np.uint8).tofile(folder / f"{part}_X.bin")
        np.arange(1, count + 1, dtype=np.uint8).tofile(folder / f"{part}_y.bin")
    names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    (folder / "unlabeled_X.bin").touch()
    (folder / "class_names.txt").write_text("\n".join(names))


def write_flowers102(root: Path) -> None:
    folder = root / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for number in range(1, 9):
        picture(number, 90, 60).save(folder / "jpg" / f"image_{number:05d}.jpg")
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": [[1, 2, 3, 1, 2, 3, 1, 102]]})
    scipy.io.savemat(folder / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 6, 7, 8]]})


def write_pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations" / "trimaps").mkdir(parents=True)
    for number, breed in enumerate(("Abyssinian", "beagle")):
        for index in (1, 2):
            picture(number + index, 80, 100).save(folder / "images" / f"{breed}_{index}.jpg")
    for part, index in (("trainval", 1), ("test", 2)):
        lines = [f"{breed}_{index} {number + 1} 1 1" for number, breed in enumerate(("Abyssinian", "beagle"))]
        (folder / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")


def write_celeba(root: Path) -> None:
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{number:06d}.jpg" for number in range(1, 7)]
    for number, name in enumerate(names):
        picture(number, 178, 218).save(folder / "img_align_celeba" / name)

    def write(file: str, header: str, row: str) -> None:
        (folder / file).write_text(header + "".join(f"{name} {row}\n" for name in names))

    splits = "".join(f"{name} {number // 2}\n" for number, name in enumerate(names))
    (folder / "list_eval_partition.txt").write_text(splits)
    write("identity_CelebA.txt", "", "3")
    write("list_bbox_celeba.txt", "6\nimage_id x_1 y_1 width height\n", "1 2 3 4")
    write("list_landmarks_align_celeba.txt", "6\nlefteye_x lefteye_y\n", "1 2")
    write("list_attr_celeba.txt", "6\nSmiling Young\n", "1 -1")


TREES: dict[str, tuple[Callable[[Path], None], tuple[int, int], tuple[int, int, int]]] = {
    "cifar10": (write_cifar10, (20, 4), (3, 32, 32)),
    "stl10": (write_stl10, (5, 3), (3, 96, 96)),
    "flowers102": (write_flowers102, (4, 4), (3, 64, 64)),
    "oxford-pets": (write_pets, (2, 2), (3, 64, 64)),
    "celeba": (write_celeba, (2, 2), (3, 64, 64)),
}


@pytest.fixture
def tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """Writes a tiny set below a root; its files are whole if they are there."""
    for module in (cifar, stl10, flowers102, celeba):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).exists())

    def write(name: str) -> Path:
        TREES[name][0](tmp_path / "files")
        return tmp_path / "files"

    return write


def test_every_set_has_a_tree_here() -> None:
    assert set(TREES) == set(vision.SETS) and set(TREES) <= set(registry.dataset.names())


@pytest.mark.parametrize("name", TREES)
def test_it_is_read_from_its_files(name: str, tree: Callable[[str], Path], tmp_path: Path) -> None:
    _, counts, shape = TREES[name]
    data = load(Choice.of(name, root=str(tree(name))), tmp_path / "cache")
    assert data.test is not None and (len(data.train), len(data.test)) == counts and data.image_shape == shape
    assert data.train.dtype == np.uint8 and len(np.unique(data.train.reshape(len(data.train), -1), axis=0)) == counts[0]
    labelled = vision.SETS[name].labelled
    assert (data.train_labels is not None) == labelled and bool(data.classes) == labelled
    if data.train_labels is not None and data.test_labels is not None:
        assert max(data.train_labels.max(), data.test_labels.max()) < len(data.classes)


def test_pixels_and_labels_are_torchvisions(tree: Callable[[str], Path], tmp_path: Path) -> None:
    root = tree("cifar10")
    data = load(Choice.of("cifar10", root=str(root)), tmp_path / "cache")
    theirs = cifar.CIFAR10(str(root), train=True)
    assert np.array_equal(data.train, theirs.data.transpose(0, 3, 1, 2)) and data.train_labels is not None
    assert data.train_labels.tolist() == theirs.targets and data.classes == tuple(theirs.classes)


def test_a_size_crops_and_scales_and_a_subset_is_spread_out(tree: Callable[[str], Path], tmp_path: Path) -> None:
    root = str(tree("flowers102"))
    data = load(Choice.of("flowers102", root=root, size=16, images=2), tmp_path / "cache")
    assert data.train.shape == (2, 3, 16, 16)
    whole = load(Choice.of("flowers102", root=root, size=16), tmp_path / "cache")
    assert np.array_equal(data.train, whole.train[[0, 2]]) and data.content != whole.content
    # the middle 60 of 90 columns: red rises with the rows from 0 on, green with columns from 15 on
    assert abs(int(whole.train[0, 1, 8, 0]) - 255 * 17 / 90) < 12 and whole.train[0, 0, 0, 8] < 12


@pytest.mark.parametrize("name", ["flowers102", "celeba"])
def test_a_file_that_is_cut_short_is_named(name: str, tree: Callable[[str], Path], tmp_path: Path) -> None:
    broken = sorted(tree(name).rglob("*.jpg"))[1]
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"{name}: .*{broken.name} of \w+ is not readable: .*[Tt]runcated"):
        load(Choice.of(name, root=str(tmp_path / "files")), tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache" / "data").iterdir() if path.is_dir()]


def test_all_images_can_be_split_anew_by_a_share(tree: Callable[[str], Path], tmp_path: Path) -> None:
    """As a report did that kept 20 % of all flowers: every image is on one side, and the same at each call."""
    root = str(tree("flowers102"))

    def labelled(data: ImageData) -> dict[bytes, int]:
        parts = [(data.train, data.train_labels), (data.test, data.test_labels)]
        return {i.tobytes(): int(k) for images, of in parts for i, k in zip(images, of, strict=True)}  # type: ignore[arg-type]

    def rows(images: np.ndarray) -> set[bytes]:
        return {image.tobytes() for image in images}

    own = load(Choice.of("flowers102", root=root, size=16), tmp_path / "cache")
    anew = load(Choice.of("flowers102", root=root, size=16, test_fraction=0.25), tmp_path / "cache")
    assert anew.test is not None and anew.test_labels is not None and (len(anew.train), len(anew.test)) == (6, 2)
    assert labelled(anew) == labelled(own) and len(labelled(anew)) == 8 and anew.classes == own.classes
    assert own.test is not None and rows(anew.test) != rows(own.test)
    again = load(Choice.of("flowers102", root=root, size=16, test_fraction=0.25), tmp_path / "other")
    assert (again.content, again.test_content) == (anew.content, anew.test_content)
    whole = load(Choice.of("flowers102", root=root, size=16, test_fraction=0.0, images=4), tmp_path / "cache")
    assert whole.test is None and len(rows(whole.train)) == 4


def test_mistakes_are_named(tree: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)stl10 is not on this machine.+diffsearch data fetch stl10"):
        load(Choice("stl10"), tmp_path / "cache")
    root = tree("oxford-pets")
    for options, message in (({"size": 2}, "smallest is 4"), ({"images": 9}, "not within 1 and 2")):
        with pytest.raises(DataError, match=message):
            load(Choice.of("oxford-pets", root=str(root), **options), tmp_path / "cache")
    (root / "oxford-iiit-pet" / "images" / "beagle_2.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"images/beagle_2\.jpg of OxfordIIITPet is not readable"):
        load(Choice.of("oxford-pets", root=str(root)), tmp_path / "cache")
    with pytest.raises(DataError, match="oxford-pets: test_fraction: 1 is not within 0 and 1"):
        load(Choice.of("oxford-pets", root=str(root), test_fraction=1.0), tmp_path / "cache")
    (root / "oxford-iiit-pet" / "annotations" / "test.txt").unlink()
    with pytest.raises(DataError, match="are not whole"):
        load(Choice.of("oxford-pets", root=str(root)), tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache" / "data").iterdir() if path.is_dir()]


def test_the_list_says_what_is_here_and_a_fetch_without_network_what_to_do(tmp_path: Path) -> None:
    write_pets(tmp_path / "downloads")
    table = {row.name: row for row in available(tmp_path)}
    assert table["oxford-pets"].present and table["oxford-pets"].size_bytes > 0
    assert not table["cifar10"].present and table["cifar10"].where == "diffsearch data fetch cifar10"
    with pytest.raises(DataError, match=r"cifar10 can't be downloaded .+ copy its files here and say `root:`"):
        fetch("cifar10", tmp_path)
