"""The user's own files on a node that doesn't see the driver's disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffsearch.study import items


def test_a_file_that_the_node_has_is_used_where_it_lies(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("x = 1")
    assert items.at_hand([mine], items.pack_files([mine])) == (mine,)


@pytest.mark.parametrize("there", [None, b"x = 2"])
@pytest.mark.parametrize("content", [b"x = 1", b"weights \xff\x00"])
def test_a_file_that_it_lacks_or_has_otherwise_is_written_as_the_driver_read_it(
    there: bytes | None, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    mine = tmp_path / "mine.py"
    mine.write_bytes(content)
    packed = items.pack_files([mine])
    mine.unlink() if there is None else mine.write_bytes(there)
    (found,) = items.at_hand([mine], packed)
    assert found != mine and found.name == "mine.py" and found.read_bytes() == content
