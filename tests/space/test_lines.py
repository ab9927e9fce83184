"""The YAML that a study file is written in: YAML 1.2's core words, places, bounds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from diffsearch.space.lines import MAX_BYTES, Place, Problems, dump, parse


def read(text: str) -> Any:
    problems = Problems()
    node = parse(text, problems)
    assert not problems.found and node is not None, problems.found
    return node.plain


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("3E4", 3e4),
        ("-1", -1),
        ("0x1f", 31),
        ("0o17", 15),
        ("010", 10),
        (".5", 0.5),
        ("off", "off"),
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("true", True),
        ("~", None),
        ("", None),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2k", "2k"),
        ("2024-01-01", "2024-01-01"),
        ("'1'", "1"),
        ("!!str 1", "1"),
    ],
)
def test_words_mean_what_yaml_1_2_says(written: str, value: object) -> None:
    found = read(f"a: {written}")["a"]
    assert found == value and type(found) is type(value)


def test_every_value_and_key_knows_its_place() -> None:
    node = parse("a:\n  bb: [1, x]\n", Problems())
    assert node is not None and node.mapping is not None
    inner = node.mapping["a"]
    assert inner.keys["bb"] == Place(2, 3)
    items = (inner.mapping or {})["bb"].items
    assert items is not None and [item.place for item in items] == [Place(2, 8), Place(2, 11)]


def test_anchors_and_merges_work_and_own_keys_win() -> None:
    text = "x: &base {a: 1, b: 2}\ny: {<<: *base, b: 3}\nz: {<<: [{a: 9}, *base]}\nw: *base\n"
    assert read(text) == {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}, "z": {"a": 9, "b": 2}, "w": {"a": 1, "b": 2}}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "given twice; first in line 1"),
        ("a:\n\tb: 1\n", 2, "not YAML: found character '\\t'"),
        ("a: 1\nb: c: d\n", 2, "not YAML: mapping values are not allowed"),
        ("a: 1\n---\nb: 2\n", 2, "not YAML: but found another document"),
        ("a: *b\n", 1, "not YAML: found undefined alias"),
        ("a: 1\nb: !!python/name:os.system x\n", 2, "unknown tag"),
        ("a: !!python/object:os.system {}\n", 1, "unknown tag"),
        ("a: !!int x\n", 1, "unknown tag or value"),
        (f"a: {'9' * 5000}\n", 1, "unknown tag or value"),
        ("[1]: 2\n", 1, "a key must be a word"),
        ("a: {<<: 3}\n", 1, "<< takes a mapping"),
        ("", 1, "the file is empty"),
        ("a: &a [*a]\n", 1, "an anchor that holds itself"),
        ("a: " + "[" * 100 + "]" * 100, 1, "nested too deeply"),
        ("[" * 3_000, 0, "nested too deeply"),
        ("a: \x00", 0, "not YAML"),
    ],
)
def test_what_is_no_study_file_is_refused_with_its_line(text: str, line: int, says: str) -> None:
    problems = Problems()
    parse(text, problems)
    assert len(problems.found) == 1
    assert problems.found[0].line == line and says in problems.found[0].message


def test_aliases_that_stand_for_billions_of_values_are_refused() -> None:
    text = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    problems = Problems()
    assert parse(text, problems) is None
    assert "once its anchors are expanded" in problems.found[0].message


def test_a_file_of_more_than_a_megabyte_is_refused_unread() -> None:
    problems = Problems()
    assert parse("# " + "x" * MAX_BYTES, problems) is None
    assert "larger than 1,000,000 bytes" in problems.found[0].message


def test_what_dump_writes_parse_reads_back() -> None:
    rng = random.Random(0)
    words = ["off", "1e-4", "2k", "", "true", "~", "<<", "a: b", "0o7", "-1", "x-l2", "ä", "#"]

    def value(depth: int) -> Any:
        kind = rng.randrange(7 if depth else 5)
        if kind == 5:
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        if kind == 6:
            return {rng.choice(words): value(depth - 1) for _ in range(rng.randrange(4))}
        return [rng.choice(words), rng.randrange(-9, 9), rng.uniform(-1e-5, 1e-5), None, rng.random() < 0.5][kind]

    for _ in range(300):
        plain = {"root": value(3)}
        assert read(dump(plain)) == plain
