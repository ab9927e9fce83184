"""The tour runs from its first cell to its last, offline, and what it shows was really computed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

TOUR = Path(__file__).resolve().parents[2] / "docs" / "tour.ipynb"
MOST_BYTES = 80_000  # of the file with its outputs: one small picture, no more


def kernel_manager(folder: Path) -> AsyncKernelManager:
    """Starts kernels of this very Python, from a specification in `folder` alone: no kernel need be installed."""
    spec = folder / "python3"
    spec.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    environment = {"PYTHONWARNINGS": "ignore:IProgress not found"}  # tqdm's, where there are no ipywidgets
    about = {"argv": command, "display_name": "Python 3", "language": "python", "env": environment}
    (spec / "kernel.json").write_text(json.dumps(about))
    specs = KernelSpecManager(kernel_dirs=[str(folder)], ensure_native_kernel=False)
    return AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in `folder`; raises CellExecutionError where a cell fails."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    manager = kernel_manager(folder / "kernels")
    client = NotebookClient(notebook, km=manager, timeout=200, resources={"metadata": {"path": str(work)}})
    return client.execute()


def tour() -> nbformat.NotebookNode:
    """The notebook as it is committed."""
    return nbformat.read(TOUR, as_version=4)  # type: ignore[no-untyped-call]


def code_cells(notebook: nbformat.NotebookNode) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def said(cell: Any) -> str:
    """What a cell printed or showed as text."""
    return "".join(out.get("text", "") or out.get("data", {}).get("text/plain", "") for out in cell.outputs)


@pytest.fixture(scope="module")
def executed(
    tmp_path_factory: pytest.TempPathFactory, mlflow_database: Callable[[Path], Path]
) -> nbformat.NotebookNode:
    """The tour, executed afresh with a data cache of its own."""
    folder = tmp_path_factory.mktemp("tour")
    mlflow_database(folder / "work" / ".diffsearch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSEARCH_CACHE", str(folder / "cache"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return execute(tour(), folder)


def test_no_cell_fails_or_warns(executed: nbformat.NotebookNode) -> None:
    outputs = [output for cell in code_cells(executed) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


def test_the_tour_trains_once_and_goes_on_from_there(executed: nbformat.NotebookNode) -> None:
    told = [said(cell) for cell in code_cells(executed)]
    trained = [text.partition(",")[0] for text in told if "epochs trained" in text]
    assert trained == ["9 epochs trained", "0 epochs trained", "3 epochs trained"]
    assert any("cosine" in text and "Did you mean" in text for text in told)
    pictures = [out for cell in code_cells(executed) for out in cell.outputs if "image/png" in out.get("data", {})]
    assert len(pictures) == 1


def test_the_committed_outputs_are_those_of_an_execution() -> None:
    """In order, of every cell that says something, and small."""
    notebook = tour()
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell.outputs) for cell in cells) >= 10
    assert TOUR.stat().st_size < MOST_BYTES
    assert str(Path.home()) not in TOUR.read_text()
