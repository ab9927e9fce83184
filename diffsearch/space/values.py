"""One key of a study file: a single value, a list of them, a range, or any of these under a condition."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeAlias, TypeGuard

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from diffsearch.registry import suggest
from diffsearch.space.lines import Node, Place, Problems
from diffsearch.space.settings import Choice, Choices, Domain, Integers, LogUniform, Uniform, to_value

RANGES: Mapping[str, Callable[[Any, Any], Domain]] = {"uniform": Uniform, "log": LogUniform, "int": Integers}
_WORDS = (
    ("Input should be", "should be"),
    ("a valid array", "a list"),
    ("a valid integer", "a whole number"),
    ("a valid number", "a number"),
    ("a valid string", "a word"),
    ("Tuple should have", "should have"),
    (" after validation", ""),
)
Issue: TypeAlias = "tuple[Place, str, str]"  # where, message, help
Conditions: TypeAlias = "tuple[tuple[str, Place, Node], ...]"  # path, place of its key, its wanted value or values


@dataclass(frozen=True, slots=True)
class Setting:
    """What the file says of one key; a default where `written` is false."""

    path: str
    domain: Domain
    varies: bool  # an axis, of one value too where a condition holds it
    place: Place
    places: tuple[Place, ...] = ()  # of each value of Choices
    when: Conditions = ()
    written: bool = True

    @property
    def values(self) -> tuple[Any, ...]:
        """The values to choose from, and the two ends of a range."""
        return self.domain.values if isinstance(self.domain, Choices) else (self.domain.low, self.domain.high)

    @property
    def only(self) -> Any:
        return self.values[0]

    def place_of(self, value: Any) -> Place:
        """Where that value is written, or the key's own value."""
        if isinstance(self.domain, Choices) and value in self.domain.values and self.places:
            return self.places[self.domain.values.index(value)]
        return self.place


class Kind(Protocol):
    """What a key's single value may be."""

    @property
    def takes_lists(self) -> bool:
        """Whether a list can be one value, as for channels."""

    @property
    def takes_words(self) -> bool:
        """Whether a string can be one value, as for names."""

    def read(self, node: Node) -> tuple[Any, list[Issue]]:
        """The value and no issues, or None and what is wrong."""


class Typed:
    """A value of a type that pydantic knows, read strictly: "3" is no number, 0.5 no whole number."""

    def __init__(self, annotation: Any) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        schema = json.dumps(self.json_schema())
        self.takes_lists, self.takes_words = '"array"' in schema, '"string"' in schema

    def read(self, node: Node) -> tuple[Any, list[Issue]]:
        plain = node.plain
        if not _finite(plain):
            return None, [(node.place, f"must be finite, read {shown(plain)}", "")]
        try:
            value = self._adapter.validate_json(json.dumps(plain), strict=True)
        except ValidationError as error:
            return None, _issues(error, node)
        return plain_value(value), []

    def json_schema(self) -> dict[str, Any]:
        try:
            return self._adapter.json_schema()
        except PydanticInvalidForJsonSchema:
            return {}


@functools.cache
def kind_of_field(section: type[BaseModel], name: str) -> Typed:
    """The type of one key of a section, with its bounds."""
    info = section.model_fields[name]
    annotation: Any = info.annotation
    for mark in info.metadata:
        annotation = Annotated[annotation, mark]
    return Typed(annotation)


@functools.lru_cache(maxsize=512)
def kind_of_annotation(annotation: Any) -> Typed:
    """The type of a factory's option; anything goes where pydantic can't tell."""
    try:
        return Typed(annotation)
    except PydanticSchemaGenerationError:
        return Typed(Any)


def plain_value(value: Any) -> Any:
    """Lists as tuples, paths as text: what settings and their JSON hold."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return tuple(plain_value(inner) for inner in value)
    return to_value(value)


def read_setting(node: Node, path: str, kind: Kind, problems: Problems, *, may_vary: bool) -> Setting | None:
    """One key's value, or its values where it is an axis; None where it is wrong, and the problem noted."""
    body, when = _unwrap(node, path, problems)
    if body is None:
        return None
    listed, word = body.items, _range_name(body)
    several = body is not node and node.mapping is not None and "values" in node.mapping
    if several and listed is None:
        problems.add(body.place, path, "values takes a list")
        return None
    if when and not may_vary:
        problems.add(node.place, path, "takes one value: it can't depend on others")
        return None
    value, issues = kind.read(body)
    if not issues and not several and listed != ():
        return Setting(path, Choices((value,)), bool(when), body.place, (body.place,), when)
    if word is not None or (listed is not None and (several or _is_axis(listed, kind))):
        if not may_vary and not (listed and kind.takes_lists):
            problems.add(body.place, path, "takes one value: it can't be an axis")
            return None
        if word is not None:
            return _read_range(body, word, path, kind, when, problems)
        if may_vary:
            return _read_choices(body, listed or (), path, kind, when, problems)
    for place, message, help in issues:
        problems.add(place, path, message, help)
    return None


def _unwrap(node: Node, path: str, problems: Problems) -> tuple[Node | None, Conditions]:
    """The body and the conditions of `{value: x, when: ..}`, `{values: [..], when: ..}` and `{log: [..], when: ..}`."""
    wrap = node.mapping
    if wrap is None or not (("when" in wrap) or "values" in wrap or "value" in wrap):
        return node, ()
    if not (set(wrap) & ({"value", "values"} | set(RANGES))):
        return node, ()  # a choice with an option of that name
    body = {key: inner for key, inner in wrap.items() if key != "when"}
    if len(body) != 1:
        problems.add(node.place, path, f"takes one of {', '.join(['value', 'values', *RANGES])} beside when")
        return None, ()
    (word, inner), condition = next(iter(body.items())), wrap.get("when")
    if condition is not None and condition.mapping is None:
        problems.add(condition.place, path, "when takes a mapping, e.g. {model.kind: unet}")
        return None, ()
    when: list[tuple[str, Place, Node]] = []
    if condition is not None and condition.mapping is not None:
        when = [(key, condition.keys[key], wanted) for key, wanted in condition.mapping.items()]
    if word in RANGES:
        return Node({word: inner}, node.place, {word: node.keys[word]}), tuple(when)
    return inner, tuple(when)


def _range_name(node: Node) -> str | None:
    if node.mapping is None or len(node.mapping) != 1:
        return None
    word = next(iter(node.mapping))
    return word if word in RANGES else None


def _is_axis(listed: Sequence[Node], kind: Kind) -> bool:
    """Whether a list that isn't a single value was meant as several."""
    if not listed or not kind.takes_lists:
        return True
    a_word = kind.takes_words and any(isinstance(item.value, str) for item in listed)
    return a_word or any(item.items is not None or not kind.read(item)[1] for item in listed)


def _read_choices(
    node: Node, listed: Sequence[Node], path: str, kind: Kind, when: Conditions, problems: Problems
) -> Setting | None:
    if not listed:
        problems.add(node.place, path, "an axis without values", "give at least one value, or leave the key out")
        return None
    values: list[Any] = []
    places: list[Place] = []
    good = True
    for item in listed:
        value, issues = kind.read(item)
        for place, message, help in issues:
            problems.add(place, path, message, help)
        if not issues and _spelled(value) in map(_spelled, values):
            problems.add(item.place, path, f"{shown(item.plain)} is in this axis twice")
        elif not issues:
            values.append(value)
            places.append(item.place)
            continue
        good = False
    return Setting(path, Choices(tuple(values)), True, node.place, tuple(places), when) if good else None


def _read_range(node: Node, word: str, path: str, kind: Kind, when: Conditions, problems: Problems) -> Setting | None:
    body = (node.mapping or {})[word]
    ends = body.items
    if ends is None or len(ends) != 2:
        problems.add(body.place, path, f"{word} takes [low, high]")
        return None
    issues = [issue for end in ends for issue in kind.read(end)[1]]
    if kind.takes_words and len(issues) > 1:
        issues = [(node.place, "takes no range: it isn't a number", "write a list of values")]
    for place, message, help in issues:
        problems.add(place, path, message, help)
    if issues:
        return None
    low, high = (end.value for end in ends)
    if not _is_number(low) or not _is_number(high) or not low < high:
        problems.add(body.place, path, f"{word} takes two numbers [low, high] with low < high")
    elif word == "log" and low <= 0:
        problems.add(ends[0].place, path, f"a log range starts above 0, read {shown(low)}")
    elif word == "int" and not (isinstance(low, int) and isinstance(high, int)):
        problems.add(body.place, path, "int takes two whole numbers")
    elif word != "int" and kind.read(Node(low + (high - low) * 0.381966, body.place))[1]:
        problems.add(body.place, path, "takes whole numbers", f"write {{int: [{low}, {high}]}}")
    else:
        domain = Integers(int(low), int(high)) if word == "int" else RANGES[word](float(low), float(high))
        return Setting(path, domain, True, node.place, (ends[0].place, ends[1].place), when)
    return None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _issues(error: ValidationError, node: Node) -> list[Issue]:
    """pydantic's errors, at the places of the values that they speak of.

    For a union pydantic reports each branch: "wrong type" says little where another branch got further.
    """
    found = error.errors(include_url=False)
    telling = [e for e in found if not (e["type"].endswith("_type") or e["type"] == "none_required")]
    deeper = [e for e in found if any(isinstance(step, int) for step in e["loc"])]
    issues: list[Issue] = []
    for detail in telling or deeper or found[:1]:
        at = node
        for step in detail["loc"]:
            if isinstance(step, int) and at.items is not None and step < len(at.items):
                at = at.items[step]
        context = detail.get("ctx", {})
        message = f"{plainly(str(detail['msg']))}, read {shown(at.plain)}"
        help = str(context.get("help", ""))
        if detail["type"] == "literal_error":
            known = [part.strip("'\" ") for part in str(context["expected"]).replace(" or ", ",").split(",")]
            message, help = f"unknown value {shown(at.plain)}", suggest(str(at.plain), known)
        elif detail["type"] == "unknown_value":
            message = str(detail["msg"])
        if (at.place, message, help) not in issues:
            issues.append((at.place, message, help))
    return issues


def plainly(message: str) -> str:
    """pydantic's message in the words of a study file."""
    for theirs, ours in _WORDS:
        message = message.replace(theirs, ours)
    return message


def _finite(plain: Any) -> bool:
    if isinstance(plain, list):
        return all(map(_finite, plain))
    return not isinstance(plain, float) or math.isfinite(plain)


def shown(plain: Any) -> str:
    """A value as the file would spell it, cut to a line."""
    text = repr(plain) if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _spelled(value: Any) -> str:
    """Equal for equal values, and 1 is not True."""
    return repr(value) if not isinstance(value, Choice) else repr((value.name, value.options))
