"""Sections whose keys are partly a registered member's options: `model.kind: unet` makes `model.channels` a key."""

from __future__ import annotations

import json
import os
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from diffsearch.errors import DiffsearchError
from diffsearch.registry import FAMILIES, Member, Option, suggest
from diffsearch.space.lines import Node, Place, Problems, parse
from diffsearch.space.schema import SECTIONS, VARIED_SECTIONS, Known, Section
from diffsearch.space.settings import Choice, Choices
from diffsearch.space.values import Issue, Kind, Setting, Typed, kind_of_annotation, kind_of_field, read_setting, shown

NAMING = ("name", "kind", "rule")  # the keys that may name a member in `{name: cosine-squared, max_beta: 1.0}`
_PATHS = frozenset({"path", "root"})  # options of data sets that are read relative to the study file


@dataclass
class Draft:
    """A study file while it is read: what each key says, and what is wrong so far.

    Args:
        folder: what relative paths in the file are relative to.
        settings: dotted path → what was read, in file order; absent where the file is silent or wrong.
        kinds: dotted path → type, of every key that the file may vary.
        wishes: dotted path → what was written, of keys whose meaning depends on the axes.
    """

    folder: Path
    problems: Problems
    settings: dict[str, Setting] = field(default_factory=dict)
    kinds: dict[str, Kind] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    wishes: dict[str, Node] = field(default_factory=dict)

    def place(self, path: str) -> Place:
        """The line to blame for a path: its own, or the nearest section's above it."""
        while path:
            if path in self.settings:
                return self.settings[path].place
            if path in self.places:
                return self.places[path]
            path = path.rpartition(".")[0]
        return Place(1, 1)


class MemberKind:
    """A registered name, or `{name: ..., option: ...}` with options that go with that choice alone."""

    takes_lists, takes_words = False, True

    def __init__(self, family: str, *words: str) -> None:
        self._registry = FAMILIES[family]
        self._name = Typed(Annotated[str, Known(family)])
        self._words = (*NAMING, *words)

    def read(self, node: Node) -> tuple[Any, list[Issue]]:
        body = node.mapping
        if body is None:
            return self._name.read(node)
        words = [word for word in self._words if word in body]
        if len(words) != 1:
            return None, [(node.place, f"needs a name, e.g. {{name: ...}}, read {shown(node.plain)}", "")]
        name, issues = self._name.read(body[words[0]])
        if issues:
            return None, issues
        options, issues = read_options(self._registry.member(name), node, skip=words)
        return (None, issues) if issues else (Choice.of(name, **options) if options else name, [])


def read_options(member: Member, node: Node, skip: Iterable[str] = ()) -> tuple[dict[str, Any], list[Issue]]:
    """Options of a member out of a mapping, each checked by the factory's annotation."""
    known, values, issues = member.options(), {}, []
    for key, inner in (node.mapping or {}).items():
        if key in skip:
            continue
        if key not in known:
            issues.append(
                (node.keys[key], f"{member.name} has no option '{key}'", suggest(key, known) if known else "")
            )
            continue
        value, wrong = kind_of_annotation(known[key].annotation).read(inner)
        issues += [(place, f"{key} {message}", help) for place, message, help in wrong]
        values[key] = value
    return values, issues


def read_choice(family: str, text: str) -> Choice:
    """`ddim:eta=0.5`, a name and its options divided by commas, as a choice; `spelled` undoes it.

    Raises:
        DiffsearchError: an unknown name, or an unknown, wrong or missing option.
    """
    name, _, rest = text.strip().partition(":")
    member, problems = FAMILIES[family].member(name), Problems()
    node = parse("{" + rest.replace("=", ": ") + "}", problems)
    if node is None or problems.found:
        raise DiffsearchError(f"'{rest}' is not OPTION=VALUE,OPTION=VALUE")
    known = member.options()
    options, issues = read_options(member, node)
    wrong = [" ".join(filter(None, (f"{message}.", help))) for _, message, help in issues]
    wrong += [f"{name} needs {key}." for key in known if known[key].required and key not in node.plain]
    if wrong:
        raise DiffsearchError(" ".join(wrong))
    return Choice.of(name, **{key: value for key, value in options.items() if value != known[key].default})


def spelled(choice: Choice) -> str:
    """`ddim:eta=0.5`: what `read_choice` reads."""
    inside = ",".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in choice.options
    )
    return f"{choice.name}:{inside}" if inside else choice.name


def name_of(value: Any) -> str:
    return value.name if isinstance(value, Choice) else str(value)


def kind_of(path: str) -> Kind | None:
    """What a single value of a key may be, by its dotted path; None where no study file has that key."""
    name, _, key = path.partition(".")
    section = SECTIONS.get(name)
    if section is None or key in section.model_fields:
        return None if section is None else _kind(section, key)
    accepting = _accepting_elsewhere(key, section)
    return kind_of_annotation(next(iter(accepting.values())).annotation) if accepting else None


def _kind(section: type[Section], key: str) -> Kind:
    """Of one of a section's own keys."""
    return MemberKind(section.FAMILY, key) if key == section.DISCRIMINATOR else kind_of_field(section, key)


def read_section(node: Node | None, name: str, section: type[Section], draft: Draft) -> None:
    """Read the keys of one section, those of its chosen members included, into the draft."""
    for key in section.model_fields:
        draft.kinds[f"{name}.{key}"] = _kind(section, key)
    if node is not None and node.mapping is None:
        draft.problems.add(node.place, name, f"is a section: it holds keys, read {shown(node.plain)}")
        return
    body: Mapping[str, Node] = (node.mapping or {}) if node is not None else {}
    read: dict[str, Setting | None] = {}
    choices = _read_discriminator(body, name, section, draft, read)
    for key, inner in body.items():
        path = f"{name}.{key}"
        if key == section.DISCRIMINATOR:
            continue
        if key in section.model_fields:
            varies = name.rpartition(".")[2] in VARIED_SECTIONS and key not in section.SINGLE
            read[key] = read_setting(inner, path, draft.kinds[path], draft.problems, may_vary=varies)
        elif node is not None:
            read[key] = _read_option(inner, path, node.keys[key], section, choices, draft)
    for key in body:
        setting = read.get(key)
        if setting is not None:
            draft.settings[f"{name}.{key}"] = setting
    if section.DISCRIMINATOR and choices:
        _check_required(name, section, choices, read, draft)


def _read_discriminator(
    body: Mapping[str, Node], name: str, section: type[Section], draft: Draft, read: dict[str, Setting | None]
) -> tuple[Any, ...]:
    """The chosen members of a section; () where it has none or they are wrong."""
    key = section.DISCRIMINATOR
    if not key:
        return ()
    path = f"{name}.{key}"
    if key not in body:
        info = section.model_fields[key]
        if info.is_required():
            draft.problems.add(draft.place(name), path, "is needed", FAMILIES[section.FAMILY].help(""))
            return ()
        return (info.default,)
    varies = name.rpartition(".")[2] in VARIED_SECTIONS
    read[key] = setting = read_setting(body[key], path, draft.kinds[path], draft.problems, may_vary=varies)
    return setting.values if setting is not None else ()


def _read_option(
    node: Node, path: str, key_place: Place, section: type[Section], choices: tuple[Any, ...], draft: Draft
) -> Setting | None:
    """A key that isn't the section's own: an option of a chosen member, which exists only where that is chosen."""
    key, head = path.rpartition(".")[2], f"{path.rpartition('.')[0]}.{section.DISCRIMINATOR}"
    members = {member: FAMILIES[section.FAMILY].member(member) for member in dict.fromkeys(map(name_of, choices))}
    accepting = {member: found.options()[key] for member, found in members.items() if key in found.options()}
    elsewhere = accepting or _accepting_elsewhere(key, section)
    conditional = node.mapping is not None and "when" in node.mapping and head in (node.mapping["when"].mapping or {})
    if not accepting and not (elsewhere and (conditional or (not choices and section.DISCRIMINATOR))):
        _unknown_key(path, key_place, section, members, elsewhere, draft)
        return None
    draft.kinds[path] = kind_of_annotation(next(iter(elsewhere.values())).annotation)
    varies = section.FAMILY != "dataset"
    setting = read_setting(node, path, draft.kinds[path], draft.problems, may_vary=varies)
    if setting is None or not accepting:
        return setting
    if setting.varies and any(isinstance(choice, Choice) and key in choice.kwargs for choice in choices):
        draft.problems.add(setting.place, path, f"is an axis here and is given inside a choice of {head} too")
        return None
    if section.FAMILY == "dataset" and key in _PATHS and isinstance(setting.only, str):
        return _absolute(setting, draft)
    if setting.varies and not conditional and len(accepting) < len(members):
        wanted = Node(tuple(Node(member, setting.place) for member in accepting), setting.place)
        when = (*setting.when, (head, setting.place, wanted))
        return Setting(path, setting.domain, True, setting.place, setting.places, when)
    return setting


def _absolute(setting: Setting, draft: Draft) -> Setting | None:
    """A data set's path relative to the file, `$NAME` and `${NAME}` read from the environment; `$$` is a dollar."""
    try:
        written = string.Template(setting.only).substitute(os.environ)
    except KeyError as unset:
        name = unset.args[0]
        help = f"export {name}=/where/they/lie, or write the path itself (a dollar in a name is $$)"
        draft.problems.add(setting.place, setting.path, f"the environment variable {name} isn't set", help)
        return None
    except ValueError:
        message = f"a $ names an environment variable, as in $NAME or ${{NAME}}, read {shown(setting.only)}"
        draft.problems.add(setting.place, setting.path, message, "write $$ where a name holds a dollar")
        return None
    absolute = str((draft.folder / Path(written).expanduser()).resolve())
    return Setting(setting.path, Choices((absolute,)), False, setting.place, setting.places)


def _accepting_elsewhere(key: str, section: type[Section]) -> dict[str, Option]:
    if not section.DISCRIMINATOR:
        return {}
    registry = FAMILIES[section.FAMILY]
    options = {name: registry.member(name).options() for name in registry.names()}
    return {name: known[key] for name, known in options.items() if key in known}


def _unknown_key(
    path: str,
    place: Place,
    section: type[Section],
    members: Mapping[str, Member],
    elsewhere: Mapping[str, Option],
    draft: Draft,
) -> None:
    key = path.rpartition(".")[2]
    if elsewhere and members:
        help = f"it is an option of {', '.join(elsewhere)}; chosen: {', '.join(members)}"
    else:
        help = suggest(key, {*section.model_fields, *(option for m in members.values() for option in m.options())})
    draft.problems.add(place, path, "no such key", help)


def _check_required(
    name: str, section: type[Section], choices: tuple[Any, ...], read: Mapping[str, Setting | None], draft: Draft
) -> None:
    """Every option without a default is given, beside the name or inside the choice."""
    for choice in choices:
        own = choice.kwargs if isinstance(choice, Choice) else {}
        for option in FAMILIES[section.FAMILY].member(name_of(choice)).options().values():
            if option.required and option.name not in own and option.name not in read:
                path = f"{name}.{section.DISCRIMINATOR}"
                place = draft.place(path)
                draft.problems.add(place, path, f"{name_of(choice)} needs '{option.name}'", f"add {option.name}: ...")
