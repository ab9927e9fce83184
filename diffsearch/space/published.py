"""What a report printed, from a `published.yaml`: its tables in the terms of a study file, and what else it says.

Every value is read as a study file reads it, so that a table's rows find the runs that answer them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from diffsearch.errors import ConfigError, Problem
from diffsearch.registry import FAMILIES, suggest
from diffsearch.space.lines import Node, Place, Problems, parse
from diffsearch.space.members import kind_of
from diffsearch.space.metric_names import find, refusal
from diffsearch.space.schema import SECTIONS, VARIED_SECTIONS, Positive
from diffsearch.space.settings import canonical
from diffsearch.space.values import Kind, Typed, plainly, shown

FILE = "published.yaml"  # beside the study file whose numbers are to stand beside these
EPOCHS = "training.epochs"
_SECTIONS = VARIED_SECTIONS | {"data"}

_STRICT = ConfigDict(extra="forbid", strict=True)


def _as_text(read: Any) -> Any:
    return str(read) if isinstance(read, int | float) else read


@checked(frozen=True, slots=True, config=_STRICT)
class Printed:
    """A number as it was printed."""

    score: FiniteFloat
    error: FiniteFloat | None = None  # what was printed after ±


@checked(frozen=True, slots=True, config=_STRICT)
class Row:
    """A value of the axis and what was printed beside it."""

    score: FiniteFloat
    error: FiniteFloat | None = None
    value: Any = None


@checked(frozen=True, slots=True, config=_STRICT)
class Table:
    """Printed scores, along one axis or of one setting alone.

    Args:
        axis: dotted path of what the rows vary; None: one row, of `settings`.
        metric: as a study file would name it.
        extractor: what it was computed with, in the report's words.
        samples: images scored; None: not printed.
        train_images: trained on; None: not printed.
        settings: dotted path → value, of everything else that was printed for these rows; the axis is passed over.
        winner: the value that the authors went on with.
        noise: the score of pure noise, where it was printed.
        real: the score of real images, where it was printed.
    """

    name: str
    where: str
    metric: str
    extractor: str
    rows: tuple[Row, ...]
    axis: str | None = None
    samples: Positive | None = None
    train_images: Positive | None = None
    settings: Mapping[str, Any] = Field(default_factory=dict)
    winner: Any = None
    noise: Printed | None = None
    real: Printed | None = None


@checked(frozen=True, slots=True, config=_STRICT)
class Said:
    """A claim in words, or a figure, and where it stands."""

    what: str
    where: str


@checked(frozen=True, slots=True, config=_STRICT)
class Number:
    """A printed number that is neither a score nor a setting of a study file."""

    what: str
    printed: Annotated[str, BeforeValidator(_as_text)]
    where: str


@checked(frozen=True, slots=True, config=_STRICT)
class Published:
    """A report.

    Args:
        settings: dotted path → value, printed for all tables but where one says otherwise.
        not_printed: what a reader would need and doesn't find.
    """

    title: str
    authors: tuple[str, ...] = ()
    year: int | None = None
    settings: Mapping[str, Any] = Field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    numbers: tuple[Number, ...] = ()
    claims: tuple[Said, ...] = ()
    figures: tuple[Said, ...] = ()
    not_printed: tuple[str, ...] = ()

    def of(self, table: Table) -> dict[str, Any]:
        """Everything that was printed of a table's runs besides its axis: path → value."""
        return {path: value for path, value in {**self.settings, **table.settings}.items() if path != table.axis}


def load(path: Path) -> Published:
    """Read a file of published numbers.

    Raises:
        ConfigError: with every mistake, sorted by line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(0, 0, "", f"can't be read: {error}")], str(path)) from error
    return loads(text, str(path))


def beside(study_file: Path | None) -> Published | None:
    """The published numbers that lie beside a study file, if there are any; raises ConfigError as `load`."""
    path = study_file.parent / FILE if study_file is not None else None
    return load(path) if path is not None and path.is_file() else None


def loads(text: str, source_name: str = FILE) -> Published:
    """As `load`, of text."""
    problems = Problems()
    root = parse(text, problems)
    if root is None:
        raise ConfigError(problems.found, source_name)
    try:
        found = _ADAPTER.validate_json(json.dumps(root.plain))
    except ValidationError as error:
        raise ConfigError([_problem(detail, root) for detail in error.errors(include_url=False)], source_name) from None
    found = _Values(root, problems).read(found)
    if problems.found:
        raise ConfigError(problems.found, source_name)
    return found


_ADAPTER = TypeAdapter(Published)


def _problem(detail: Any, root: Node) -> Problem:
    """One of pydantic's errors, at the place of what it speaks of."""
    at, place, path = root, root.place, ""
    for step in detail["loc"]:
        if isinstance(step, int) and at.items is not None:
            at, path = at.items[step], f"{path}[{step + 1}]"
            place = at.place
        elif at.mapping is not None and step in at.mapping:
            place, at, path = at.keys[step], at.mapping[step], f"{path}.{step}".lstrip(".")
        elif at.mapping is not None:  # a key that is absent; the rest are branches of a union
            path = f"{path}.{step}".lstrip(".")
    if detail["type"] == "missing":
        return Problem(place.line, place.column, path, "is needed")
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return Problem(place.line, place.column, path, "no such key")
    return Problem(at.place.line, at.place.column, path, f"{plainly(str(detail['msg']))}, read {shown(at.plain)}")


@dataclass(frozen=True)
class _Values:
    """Reads the values of axes and settings as a study file does, and notes those that it would refuse."""

    root: Node
    problems: Problems

    def read(self, found: Published) -> Published:
        body = self.root.mapping or {}
        nodes = body["tables"].items if "tables" in body else ()
        tables = tuple(
            self._table(table, node, f"tables[{place}]")
            for place, (table, node) in enumerate(zip(found.tables, nodes or (), strict=True), 1)
        )
        return replace(found, settings=self._settings(body.get("settings"), "settings"), tables=tables)

    def _table(self, table: Table, node: Node, path: str) -> Table:
        body = node.mapping or {}
        table = replace(table, settings=self._settings(body.get("settings"), f"{path}.settings"))
        if find(table.metric) is None:
            self.problems.add(body["metric"].place, f"{path}.metric", *refusal(table.metric))
        if table.axis is None:
            if len(table.rows) != 1:
                self.problems.add(body["rows"].place, f"{path}.rows", "without an axis a table has one row")
            return table
        kind = _axis_kind(table.axis)
        if kind is None:
            help = suggest(table.axis, filter(_axis_kind, _near(table.axis)))
            self.problems.add(body["axis"].place, f"{path}.axis", f"unknown axis {shown(table.axis)}", help)
            return table
        rows = self._rows(table, body["rows"], kind, f"{path}.rows")
        return replace(table, rows=rows, winner=self._winner(rows, body.get("winner"), kind, f"{path}.winner"))

    def _rows(self, table: Table, node: Node, kind: Kind, path: str) -> tuple[Row, ...]:
        rows: list[Row] = []
        for place, (row, at) in enumerate(zip(table.rows, node.items or (), strict=True), 1):
            value = self._value((at.mapping or {}).get("value"), at.place, kind, f"{path}[{place}]")
            if value is not None and any(_same(value, other.value) for other in rows):
                self.problems.add(at.place, f"{path}[{place}]", f"{shown(at.plain)} is in this table twice")
            rows.append(replace(row, value=value))
        return tuple(rows)

    def _winner(self, rows: tuple[Row, ...], node: Node | None, kind: Kind, path: str) -> Any:
        if node is None:
            return None
        value = self._value(node, node.place, kind, path)
        if value is not None and not any(_same(value, row.value) for row in rows):
            self.problems.add(node.place, path, f"{shown(node.plain)} is none of the rows' values")
        return value

    def _settings(self, node: Node | None, where: str) -> dict[str, Any]:
        read: dict[str, Any] = {}
        for path, inner in ((node.mapping if node is not None else None) or {}).items():
            kind = _single_kind(path)
            if kind is None:
                assert node is not None
                self.problems.add(node.keys[path], f"{where}.{path}", "no such setting", suggest(path, _near(path)))
            else:
                read[path] = self._value(inner, inner.place, kind, f"{where}.{path}")
        return read

    def _value(self, node: Node | None, place: Place, kind: Kind, path: str) -> Any:
        if node is None:
            self.problems.add(place, path, "needs a value of the axis")
            return None
        value, issues = kind.read(node)
        for at, message, help in issues:
            self.problems.add(at, path, message, help)
        return value


def _single_kind(path: str) -> Kind | None:
    """What one value of a setting may be: a number of epochs, not a list of milestones."""
    known = path.partition(".")[0] in _SECTIONS
    return Typed(Positive) if path == EPOCHS else kind_of(path) if known else None


def _axis_kind(path: str) -> Kind | None:
    section, _, key = path.partition(".")
    varies = section in VARIED_SECTIONS and (key not in SECTIONS[section].SINGLE or path == EPOCHS)
    return _single_kind(path) if varies else None


def _near(path: str) -> set[str]:
    """Every setting of the section that a path begins with, or of all."""
    name = path.partition(".")[0]
    return {
        f"{each}.{key}"
        for each in sorted(_SECTIONS)
        if each == name or name not in _SECTIONS
        for key in (*SECTIONS[each].model_fields, *_options(SECTIONS[each].FAMILY))
    }


def _options(family: str) -> Iterator[str]:
    """Of every member of a family."""
    if family:
        yield from (key for name in FAMILIES[family].names() for key in FAMILIES[family].member(name).options())


def _same(value: Any, other: Any) -> bool:
    return canonical(value) == canonical(other)
