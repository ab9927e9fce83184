"""JSON Schema of a study file (draft 2020-12), from the sections and registries: with it editors complete and check.

It is looser than `load`: it knows every member's options, but not which member is chosen.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from pydantic_core import PydanticUndefined

from diffsearch.registry import FAMILIES
from diffsearch.space.load import NOTES
from diffsearch.space.members import NAMING
from diffsearch.space.schema import (
    SECTIONS,
    VARIED_SECTIONS,
    Evaluation,
    Finalists,
    FinalSampling,
    Screen,
    Search,
    Section,
    Study,
    Until,
)
from diffsearch.space.settings import to_plain
from diffsearch.space.values import RANGES, kind_of_annotation, kind_of_field

Schema: TypeAlias = dict[str, Any]

_WHEN: Schema = {
    "type": "object",
    "description": "The axis exists only where each named key has this value, or one of these.",
    "minProperties": 1,
}
_CLASS: Schema = {"type": "string", "pattern": "^[A-Z][A-Za-z0-9]+$"}


def json_schema() -> Schema:
    """The schema, with the members that are registered now."""
    properties = {key: _described(Study, key, kind_of_field(Study, key).json_schema()) for key in Study.model_fields}
    nested = {"search": _search, "evaluation": _evaluation}
    for name, section in SECTIONS.items():
        properties[name] = nested[name]() if name in nested else _section(section, varies=name in VARIED_SECTIONS)
    properties["budget"]["properties"]["until"] = _section(Until, varies=False)
    properties["resources"] = {"anyOf": [{"const": "auto"}, properties["resources"]]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "diffsearch study",
        "type": "object",
        "properties": properties,
        "patternProperties": {f"^{NOTES}": True},
        "required": ["data"],
        "additionalProperties": False,
    }


def _section(section: type[Section], *, varies: bool) -> Schema:
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for key, info in section.model_fields.items():
        is_member = key == section.DISCRIMINATOR
        single = _member(section.FAMILY, key) if is_member else kind_of_field(section, key).json_schema()
        may_vary = varies and key not in section.SINGLE
        properties[key] = _described(section, key, _axis(single) if may_vary else single)
        required += [key] if info.is_required() else []
    if section.DISCRIMINATOR:
        for key, single in _options(section.FAMILY).items():
            properties.setdefault(key, _axis(single) if varies else single)
    schema: Schema = {
        "type": ["object", "null"],
        "description": _first_line(section),
        "properties": properties,
        "additionalProperties": False,
    }
    return {**schema, "required": required} if required else schema


def _evaluation() -> Schema:
    schema = _section(Evaluation, varies=False)
    schema["properties"]["screen"] = _section(Screen, varies=False)
    return schema


def _search() -> Schema:
    schema = _section(Search, varies=False)
    schema["properties"]["algorithm"] = _described(Search, "algorithm", _strategy("algorithm"))
    schema["properties"]["stopping"] = _described(Search, "stopping", _strategy("stopping_rule"))
    point: Schema = {"type": "object", "minProperties": 1}
    schema["properties"]["enqueue"] = _described(Search, "enqueue", {"type": "array", "items": point})
    finalists = _section(Finalists, varies=False)
    finalists["properties"]["sampling"] = _section(FinalSampling, varies=True)
    schema["properties"]["finalists"] = finalists
    return schema


def _axis(single: Schema) -> Schema:
    """A single value, a list of them, a range, or any of these under a condition."""
    several: Schema = {"type": "array", "items": single, "minItems": 1, "uniqueItems": True}
    ends: Schema = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    words: Schema = {"value": single, "values": several, "when": _WHEN, **dict.fromkeys(RANGES, ends)}
    one_of = [{"required": [word]} for word in words if word != "when"]
    wrapped = {"type": "object", "properties": words, "additionalProperties": False, "oneOf": one_of}
    return {"anyOf": [single, several, wrapped]}


def _member(family: str, word: str) -> Schema:
    """A registered name, or an object that names it with options of its own."""
    name: Schema = {"type": "string", "enum": list(FAMILIES[family].names())}
    words = dict.fromkeys((*NAMING, word), name)
    named = {
        "type": "object",
        "properties": {**_options(family), **words},
        "additionalProperties": False,
        "oneOf": [{"required": [each]} for each in words],
    }
    return {"anyOf": [name, named]}


def _strategy(family: str) -> Schema:
    """A name of ours with its options, or a class of Optuna's or Ray Tune's with any."""
    ours: Schema = {"type": "string", "enum": list(FAMILIES[family].names())}
    objects = [
        {
            "type": "object",
            "properties": {**(_options(family) if name is ours else {}), **dict.fromkeys(NAMING, name)},
            "additionalProperties": name is not ours,
            "oneOf": [{"required": [each]} for each in NAMING],
        }
        for name in (ours, _CLASS)
    ]
    return {"anyOf": [ours, _CLASS, *objects]}


def _options(family: str) -> dict[str, Schema]:
    """Every option of every member; where members differ on its type, any of theirs."""
    found: dict[str, list[Schema]] = {}
    registry = FAMILIES[family]
    for name in registry.names():
        for option in registry.member(name).options().values():
            schema = kind_of_annotation(option.annotation).json_schema()
            if schema not in found.setdefault(option.name, []):
                found[option.name].append(schema)
    return {key: schemas[0] if len(schemas) == 1 else {"anyOf": schemas} for key, schemas in found.items()}


def _described(section: type[Section], key: str, schema: Schema) -> Schema:
    info = section.model_fields[key]
    described = {**schema, "description": info.description or ""}
    default = info.default
    return described if default is PydanticUndefined else {**described, "default": to_plain(default)}


def _first_line(section: type[Section]) -> str:
    return (section.__doc__ or "").strip().partition("\n")[0]
