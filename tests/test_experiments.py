"""The experiments: each study file loads, each file of printed numbers is read, and both speak of the same things."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from diffsearch.space import published
from diffsearch.space.load import load as read
from diffsearch.space.settings import Choices, StudySpec, canonical

FOLDERS = sorted((Path(__file__).resolve().parent.parent / "experiments").glob("*/"))
STUDIES = [path for folder in FOLDERS for path in sorted(folder.glob("*.yaml")) if path.name != published.FILE]
CPU = [path for path in STUDIES if "cpu" in path.stem]


@functools.cache
def load(path: Path) -> StudySpec:
    """A study, read once."""
    return read(path)


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def values_of(spec: StudySpec, path: str) -> set[str]:
    """What a study runs of an axis."""
    if path == published.EPOCHS:
        return {canonical(epoch) for epoch in spec.milestones}
    axis = next((axis for axis in (*spec.axes, *spec.sampling_axes) if axis.path == path), None)
    return {canonical(value) for value in axis.domain.values} if axis and isinstance(axis.domain, Choices) else set()


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user's own images lie: a study file is read without them."""
    monkeypatch.setenv("DIFFSEARCH_DATA", str(tmp_path))


def test_there_are_five() -> None:
    assert [folder.name for folder in FOLDERS] == [
        "attention_flowers",
        "cifar10_guidance",
        "conditional_digits",
        "flowers_kid",
        "mnist_sequential",
    ]
    for folder in FOLDERS:
        kept = {path.name for path in folder.iterdir()}
        assert {"README.md", "study.yaml", "cpu.yaml", published.FILE} <= kept, folder


@pytest.mark.parametrize("path", STUDIES, ids=named)
def test_every_study_loads(path: Path) -> None:
    spec = load(path)
    assert spec.search.algorithm.name and spec.name != path.stem, "a name of its own: reports are kept by it"


def test_no_two_studies_share_a_name() -> None:
    names = [load(path).name for path in STUDIES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", CPU, ids=named)
def test_what_runs_on_two_cores_downloads_nothing(path: Path) -> None:
    spec = load(path)
    assert spec.fixed["data.dataset"] in ("mnist-5k", "folder") and not spec.fixed.get("data.download", False)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_printed_numbers_are_read_and_their_values_are_in_the_study(folder: Path) -> None:
    """In one of the folder's studies."""
    found, studies = published.load(folder / published.FILE), [load(path) for path in STUDIES if path.parent == folder]
    assert found.title and found.claims and found.figures
    for table in found.tables:
        if table.axis is not None:
            run = {value for spec in studies for value in values_of(spec, table.axis)}
            missing = {canonical(row.value) for row in table.rows} - run
            assert not missing, f"{table.name}: {missing}"


def test_every_readme_names_its_studies_and_the_place_of_its_report() -> None:
    for folder in FOLDERS:
        text = (folder / "README.md").read_text()
        assert f"reports/{load(folder / 'study.yaml').name}/report.md" in text
        for path in folder.glob("*.yaml"):
            assert path.name in text, f"{folder.name}/README.md doesn't speak of {path.name}"


# --- the sequential search ------------------------------------------------------------------------------------------

MNIST = next(folder for folder in FOLDERS if folder.name == "mnist_sequential")


def test_the_tables_of_the_sequential_search_are_whole() -> None:
    """Rows and winners as printed; a checksum against slips of the hand."""
    found = published.load(MNIST / published.FILE)
    assert [
        (table.name, len(table.rows), round(sum(row.score for row in table.rows), 1)) for table in found.tables
    ] == [
        ("dense and convolutional networks", 2, 48.3),
        ("batch size", 7, 241.0),
        ("epochs", 8, 376.4),
        ("loss", 6, 748.6),
        ("channels", 4, 72.6),
        ("noising steps", 12, 1014.2),
        ("noise process", 4, 64.8),
        ("normalisation", 3, 306.0),
    ]
    winners = [table.winner for table in found.tables]
    assert winners == ["conv", 256, 50, "x-prev-l2", (32, 64, 128), 15, "linear-noise", (-1.0, 1.0)]


@pytest.mark.parametrize("name", ["study", "cpu"])
def test_it_goes_the_way_of_the_report(name: str) -> None:
    """In the order of the tables, from the printed start, with repeats, and on with the winner of the epochs' table."""
    spec, found = load(MNIST / f"{name}.yaml"), published.load(MNIST / published.FILE)
    search = spec.search.algorithm
    assert search.name == "sequential" and spec.repeats == 3
    tables = [table for table in found.tables if table.axis != "model.kind"]
    assert search.kwargs["order"] == tuple(table.axis for table in tables)
    assert search.kwargs["later_epochs"] == search.kwargs["start"][published.EPOCHS]
    same = ("training.batch_size", "training.loss", "training.normalization", "diffusion.noise_process")
    for path in same:
        assert search.kwargs["start"][path] == found.settings[path], path


def test_the_joint_search_costs_no_more_epochs_than_the_tables() -> None:
    """Epochs of the seven tables, each training alone, against what asha is expected to train, finalists included."""
    found, spec = published.load(MNIST / published.FILE), load(MNIST / "joint.yaml")
    alone = 0
    for table in found.tables:
        if table.axis != "model.kind":
            epochs = found.of(table).get(published.EPOCHS)
            alone += sum(row.value if epochs is None else epochs for row in table.rows)
    assert alone == 3191
    gaps = [after - before for before, after in zip((0, *spec.milestones), spec.milestones, strict=False)]
    reduction = spec.search.stopping.kwargs["reduction"]
    searched = spec.search.runs * sum(gap / reduction**rung for rung, gap in enumerate(gaps))
    final = spec.search.finalists.top * spec.search.finalists.repeats * spec.max_epochs
    assert searched + final <= alone
