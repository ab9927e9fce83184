"""Files that survive a kill."""

from __future__ import annotations

import os

import pytest

from diffsearch.errors import StoreError
from diffsearch.files import append_line, mend_tail, read_lines, replace_file


def test_replacing_a_file_leaves_nothing_else_behind(tmp_path):
    path = tmp_path / "made" / "file"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two" and [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_refused_replacement_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.mkdir()
    (path / "inside").touch()
    with pytest.raises(StoreError, match=r"can't write .+Nothing that was there is lost"):
        replace_file(path, b"two")
    assert (path / "inside").exists() and [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("content", "left"),
    [(b"", b""), (b"torn", b""), (b"one\n", b"one\n"), (b"one\ntorn", b"one\n"), (b"\n\nx", b"\n\n")],
)
def test_mending_keeps_whole_lines(tmp_path, content, left):
    path = tmp_path / "file"
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDWR)
    mend_tail(descriptor)
    os.close(descriptor)
    assert path.read_bytes() == left


@pytest.mark.parametrize("size", [65534, 65535, 65536, 65537, 131072])
def test_mending_finds_the_newline_at_the_edge_of_a_block(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(b"one\n" + b"x" * size)
    descriptor = os.open(path, os.O_RDWR)
    mend_tail(descriptor)
    os.close(descriptor)
    assert path.read_bytes() == b"one\n"


def test_a_number_that_json_does_not_have_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(ValueError, match="JSON"):
        append_line(path, {"loss": float("nan")})
    assert not path.exists()


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b'{"a": 1}\nbroken\n{"a": 2}\n')
    with pytest.raises(StoreError, match=r"file:2: not a JSON line"):
        list(read_lines(path))


def test_a_file_that_is_not_there_has_no_lines(tmp_path):
    assert list(read_lines(tmp_path / "none")) == []
