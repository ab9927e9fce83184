"""YAML 1.2 core with the place of every key and value, so that an error can name its line.

PyYAML resolves the words of YAML 1.1 (`off` is false, `1e-4` is text). Here only the core schema's words are special:
`true`, `false`, `null`, `~` and numbers. Anchors and merges (`<<`) work; tags other than the core ones are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from diffsearch.errors import Problem

MAX_BYTES = 1_000_000
MAX_NODES = 20_000  # after anchors are expanded: a few nested aliases can stand for billions of values
MAX_DEPTH = 40
MAX_DIGITS = 30  # of a whole number

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_CORE = (
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("null", re.compile(r"(?:null|Null|NULL|~|)$"), ["n", "N", "~", ""]),
    ("int", re.compile(f"(?:{_INT.pattern})$"), "-+0123456789"),
    ("float", re.compile(f"(?:{_FLOAT.pattern})$"), "-+.0123456789"),
    ("merge", re.compile(r"<<$"), "<"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was read: a line and column of the file (1-based), or the override that brought it."""

    line: int = 0
    column: int = 0
    override: str = ""  # "--set training.epochs=[1, 2]"


Scalar: TypeAlias = "str | int | float | bool | None"


@dataclass(frozen=True, slots=True)
class Node:
    """One value of the file with its place; `keys` holds the place of each key of a mapping."""

    value: Scalar | tuple[Node, ...] | Mapping[str, Node]
    place: Place
    keys: Mapping[str, Place] = field(default_factory=dict)

    @property
    def plain(self) -> Any:
        """The value as plain Python: dict, list and scalars."""
        if isinstance(self.value, Mapping):
            return {key: inner.plain for key, inner in self.value.items()}
        if isinstance(self.value, tuple):
            return [inner.plain for inner in self.value]
        return self.value

    @property
    def mapping(self) -> Mapping[str, Node] | None:
        return self.value if isinstance(self.value, Mapping) else None

    @property
    def items(self) -> tuple[Node, ...] | None:
        return self.value if isinstance(self.value, tuple) else None


class Problems:
    """The mistakes found so far, in the order in which they were found."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, place: Place, path: str, message: str, help: str = "") -> None:
        where = f" (in {place.override})" if place.override else ""
        problem = Problem(place.line, place.column, path, message + where, help)
        if problem not in self.found:
            self.found.append(problem)

    def touch(self, *paths: str) -> bool:
        """Whether a mistake was found at, under or above one of these paths."""
        return any(
            problem.path == path or problem.path.startswith(f"{path}.") or path.startswith(f"{problem.path}.")
            for problem in self.found
            for path in paths
        )


class _CoreLoader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own name


class _CoreDumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, _pattern, _first in _CORE:
    _CoreLoader.add_implicit_resolver(_TAG + _name, _pattern, list(_first))
    _CoreDumper.add_implicit_resolver(_TAG + _name, _pattern, list(_first))


def parse(text: str, problems: Problems, override: str = "") -> Node | None:
    """The document as nodes; None (and a problem) where it isn't one."""
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        problems.add(Place(), "", f"larger than {MAX_BYTES:,} bytes: not a study file")
        return None
    try:
        root = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark and not override else Place(override=override)
        tab = "\\t" in (error.problem or "")
        problems.add(place, "", f"not YAML: {error.problem}", "indent with spaces, not with tabs" if tab else "")
        return None
    except yaml.YAMLError as error:
        problems.add(Place(override=override), "", f"not YAML: {' '.join(str(error).split())}")
        return None
    except RecursionError:
        problems.add(Place(override=override), "", "nested too deeply")
        return None
    if root is None:
        problems.add(Place(0 if override else 1, 0 if override else 1, override), "", "the file is empty")
        return None
    try:
        return _Reader(problems, override).read(root, "", 0)
    except _TooLarge as error:
        problems.add(error.place, "", str(error))
        return None


def dump(plain: Any) -> str:
    """Plain values as YAML that `parse` reads back as the same values."""
    return str(yaml.dump(plain, Dumper=_CoreDumper, sort_keys=False, default_flow_style=None, width=110))


def flow(plain: Any) -> str:
    """One value on one line, as `parse` reads it back."""
    text = yaml.dump(plain, Dumper=_CoreDumper, sort_keys=False, default_flow_style=True, width=float("inf"))
    return str(text).removesuffix("...\n").strip()


def compose(text: str) -> yaml.Node | None:
    """The document as PyYAML's nodes, which know where each value begins and ends; None where it is empty.

    Raises:
        yaml.YAMLError: it isn't YAML.
    """
    return yaml.compose(text, Loader=_CoreLoader)


def plain_of(node: yaml.Node) -> Any:
    """The value of one of `compose`'s nodes as plain Python."""
    return _Reader(Problems(), "").read(node, "", 0).plain


class _TooLarge(Exception):
    def __init__(self, place: Place, message: str) -> None:
        self.place = place
        super().__init__(message)


class _Reader:
    """Turns PyYAML's nodes into ours: expands anchors within bounds, merges, refuses what is given twice."""

    def __init__(self, problems: Problems, override: str) -> None:
        self._problems = problems
        self._override = override
        self._count = 0

    def read(self, node: yaml.Node, path: str, depth: int) -> Node:
        place = self._place(node)
        self._count += 1
        if self._count > MAX_NODES:
            raise _TooLarge(place, f"more than {MAX_NODES:,} values once its anchors are expanded")
        if depth > MAX_DEPTH:
            raise _TooLarge(place, "nested too deeply, or an anchor that holds itself")
        if not isinstance(node, yaml.ScalarNode) and node.tag not in (_TAG + "map", _TAG + "seq"):
            self._problems.add(place, path, f"unknown tag: {node.tag}")
            return Node(None, place)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return Node(tuple(self.read(inner, path, depth + 1) for inner in node.value), place)
        return Node(self._scalar(node, path), place)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> Node:
        own: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        merged: dict[str, Node] = {}
        merged_keys: dict[str, Place] = {}
        for key_node, value_node in node.value:
            place = self._place(key_node)
            if key_node.tag == _TAG + "merge":
                for source in self._merge_sources(value_node, path, depth):
                    for key, inner in (source.mapping or {}).items():
                        merged.setdefault(key, inner)
                        merged_keys.setdefault(key, source.keys[key])
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._problems.add(place, path, "a key must be a word")
                continue
            key = str(key_node.value)
            inner_path = f"{path}.{key}" if path else key
            if key in own:
                self._problems.add(place, inner_path, f"given twice; first in line {keys[key].line}")
                continue
            keys[key] = place
            own[key] = self.read(value_node, inner_path, depth + 1)
        return Node({**merged, **own}, self._place(node), {**merged_keys, **keys})

    def _merge_sources(self, node: yaml.Node, path: str, depth: int) -> list[Node]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        sources = []
        for part in parts:
            if isinstance(part, yaml.MappingNode):
                sources.append(self.read(part, path, depth + 1))
            else:
                self._problems.add(self._place(part), path, "<< takes a mapping or a list of mappings")
        return sources

    def _scalar(self, node: yaml.Node, path: str) -> Scalar:
        text, tag = str(node.value), node.tag.removeprefix(_TAG)
        if tag in ("str", "merge"):
            return text
        if tag == "null":
            return None
        if tag == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if tag == "int" and _INT.fullmatch(text) and len(text) <= MAX_DIGITS:
            return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)
        if tag == "float" and _FLOAT.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        self._problems.add(self._place(node), path, f"unknown tag or value: {node.tag} {text!r}")
        return None

    def _place(self, node: yaml.Node) -> Place:
        if self._override:
            return Place(override=self._override)
        return Place(node.start_mark.line + 1, node.start_mark.column + 1)
