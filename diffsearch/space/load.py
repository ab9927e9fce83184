"""From a YAML file to a checked `StudySpec`, the one way into the house. All mistakes of a file are told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from diffsearch import registry
from diffsearch.errors import ConfigError, DiffsearchError, Problem
from diffsearch.registry import suggest
from diffsearch.space.assemble import assemble
from diffsearch.space.check import check
from diffsearch.space.lines import MAX_BYTES, Node, Place, Problems, dump, parse
from diffsearch.space.members import Draft, MemberKind, read_section
from diffsearch.space.schema import (
    SECTIONS,
    BudgetLimits,
    Evaluation,
    Finalists,
    FinalSampling,
    Sampling,
    Screen,
    Search,
    Study,
    Until,
)
from diffsearch.space.settings import Choice, StudySpec
from diffsearch.space.strategies import read_strategy
from diffsearch.space.values import kind_of_field, read_setting, shown
from diffsearch.space.wishes import CONSTRAINTS, ENQUEUE

NOTES = "x-"  # top-level keys that start so are the user's own, e.g. to hold anchors
_FINALISTS, _FINALIST_SAMPLING = "search.finalists", "search.finalists.sampling"
_SCREEN = "evaluation.screen"


def load(
    path: Path | str,
    overrides: Sequence[str] = (),
    *,
    store: Path | None = None,
    precision: Callable[[], str] | None = None,
) -> StudySpec:
    """Read and check a study file.

    Args:
        path: of the YAML file; relative paths in it (`use`, `store`, a folder of images) are relative to its folder.
        overrides: `training.epochs=[1, 2]` each: a dotted path and a value in YAML.
        store: replaces the file's `store`.
        precision: says what `precision: auto` is here, "fp32" or "bf16"; asked only then. Default: "fp32".

    Raises:
        ConfigError: with every mistake, sorted by line.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(0, 0, "", f"can't be read: {error.strerror or error}")], str(path)) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError([Problem(0, 0, "", f"larger than {MAX_BYTES:,} bytes: not a study file")], str(path))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(line, 1, "", "not UTF-8 text")], str(path)) from error
    return _read(text, str(path), path, overrides, store, precision)


def loads(
    text: str,
    source_name: str = "study",
    overrides: Sequence[str] = (),
    *,
    beside: Path | None = None,
    store: Path | None = None,
    precision: Callable[[], str] | None = None,
) -> StudySpec:
    """As `load`, of text; relative paths are relative to the folder of `beside`, else to the working directory."""
    return _read(text, source_name, beside, overrides, store, precision)


def load_choice(family: str, name: str, options: Sequence[str] = ()) -> Choice:
    """A registered member with options as a command line gives them, e.g. `path=photos`, the value in YAML.

    Raises:
        ConfigError: an unknown name or option, a value that it can't have, an option that it needs.
    """
    problems, place = Problems(), Place()
    root = Node({"name": Node(name, place)}, place, {"name": place})
    for option in options:
        root = _overridden(root, option, problems)
    read, issues = MemberKind(family).read(root)
    choice = read if isinstance(read, Choice) else Choice(name)
    for where, message, help in issues:
        problems.add(where, family, message, help)
    if not problems.found:
        for known in registry.FAMILIES[family].member(name).options().values():
            if known.required and known.name not in choice.kwargs:
                problems.add(place, family, f"{name} needs {known.name}", f"--set {known.name}=...")
    if problems.found:
        raise ConfigError(problems.found, "--set")
    return choice


def _read(
    text: str,
    source_name: str,
    path: Path | None,
    overrides: Sequence[str],
    store: Path | None,
    precision: Callable[[], str] | None,
) -> StudySpec:
    problems = Problems()
    root = parse(text, problems)
    if root is not None and root.mapping is None:
        problems.add(root.place, "", f"a study file holds sections, read {shown(root.plain)}")
        root = None
    if root is None:
        raise ConfigError(problems.found, source_name)
    for override in overrides:
        root = _overridden(root, override, problems)
    draft = Draft(path.parent if path is not None else Path(), problems)
    extensions = _read_top(root, draft)
    for key, node in (root.mapping or {}).items():
        if key in SECTIONS:
            draft.places[key] = root.keys[key]
            _read_one(key, node, root, draft)
    for key in SECTIONS:
        if key not in (root.mapping or {}):
            read_section(None, key, SECTIONS[key], draft)
    spec = assemble(
        draft,
        source=path,
        name=Path(source_name).stem,
        text=dump(root.plain) if overrides else text,
        store=store,
        precision=precision or (lambda: "fp32"),
        extensions=extensions,
    )
    check(spec, draft)
    if problems.found:
        everywhere = all(problem.line == 0 and "(in --set " in problem.message for problem in problems.found)
        raise ConfigError(problems.found, "--set" if everywhere else source_name)
    return spec


def _read_top(root: Node, draft: Draft) -> Mapping[str, str]:
    """Read the keys at the top, and import the files of `use` before any name is looked up."""
    for key, node in (root.mapping or {}).items():
        if key in Study.model_fields:
            setting = read_setting(node, key, kind_of_field(Study, key), draft.problems, may_vary=False)
            if setting is not None:
                draft.settings[key] = setting
        elif key not in SECTIONS and not key.startswith(NOTES):
            draft.problems.add(root.keys[key], key, "no such key", suggest(key, {*Study.model_fields, *SECTIONS}))
    used = set()
    if "use" in draft.settings:
        setting = draft.settings["use"]
        for file in setting.only:
            try:
                used.add(registry.use(draft.folder / Path(file).expanduser()))
            except DiffsearchError as error:
                draft.problems.add(setting.place, "use", str(error).removeprefix("use: "))
    if not used:
        return {}
    members = ((family, each.member(name)) for family, each in registry.FAMILIES.items() for name in each.names())
    return {f"{family}:{member.name}": member.origin for family, member in members if member.origin in used}


def _read_one(key: str, node: Node, root: Node, draft: Draft) -> None:
    if node.value is None or (key == "resources" and node.value == "auto"):
        read_section(None, key, SECTIONS[key], draft)
    elif key == "evaluation":
        _read_evaluation(node, draft)
    elif key == "search":
        _read_search(node, (root.mapping or {}).get("sampling"), draft)
    elif key == "budget":
        read_section(_without(node, "until"), "budget", BudgetLimits, draft)
        until = (node.mapping or {}).get("until")
        read_section(None if until is None or until.value is None else until, "budget.until", Until, draft)
    else:
        read_section(node, key, SECTIONS[key], draft)


def _read_evaluation(node: Node, draft: Draft) -> None:
    """The evaluation section, whose screen is a section of its own."""
    read_section(_without(node, "screen"), "evaluation", Evaluation, draft)
    screen = (node.mapping or {}).get("screen")
    if screen is not None and screen.value is not None:
        draft.places[_SCREEN] = node.keys["screen"]
        read_section(screen, _SCREEN, Screen, draft)


def _read_search(node: Node, sampling: Node | None, draft: Draft) -> None:
    """The search section: its strategies and its finalists have shapes of their own."""
    if node.mapping is None:
        read_section(node, "search", Search, draft)
        return
    special = {"algorithm": "algorithm", "stopping": "stopping_rule"}
    for key, family in special.items():
        if key in node.mapping:
            setting = read_strategy(node.mapping[key], f"search.{key}", family, draft)
            if setting is not None:
                draft.settings[setting.path] = setting
    if "finalists" in node.mapping:
        draft.places[_FINALISTS] = node.keys["finalists"]
        _read_finalists(node.mapping["finalists"], sampling, draft)
    for key in (CONSTRAINTS, ENQUEUE):
        if key in node.mapping:
            draft.places[f"search.{key}"] = node.keys[key]
            draft.wishes[f"search.{key}"] = node.mapping[key]
    read_section(_without(node, *special, "finalists", CONSTRAINTS, ENQUEUE), "search", Search, draft)


def _read_finalists(node: Node, sampling: Node | None, draft: Draft) -> None:
    read_section(_without(node, "sampling"), _FINALISTS, Finalists, draft)
    swept = (node.mapping or {}).get("sampling")
    if swept is None:
        return
    draft.places[_FINALIST_SAMPLING] = node.keys["sampling"]
    own = swept.mapping
    if own is None:
        read_section(swept, _FINALIST_SAMPLING, FinalSampling, draft)
        return
    inherited = {
        key: _without(inner, "when")
        for key, inner in ((sampling.mapping if sampling is not None else None) or {}).items()
        if key not in own
        and f"sampling.{key}" in draft.settings
        and key not in Sampling.SINGLE
        and (key in FinalSampling.model_fields or "sampler" not in own)
    }
    keys = {**{key: inner.place for key, inner in inherited.items()}, **swept.keys}
    read_section(Node({**inherited, **own}, swept.place, keys), _FINALIST_SAMPLING, FinalSampling, draft)


def _without(node: Node, *keys: str) -> Node:
    if node.mapping is None:
        return node
    return Node({key: inner for key, inner in node.mapping.items() if key not in keys}, node.place, node.keys)


def _overridden(root: Node, override: str, problems: Problems) -> Node:
    """The document with one value replaced or added."""
    path, equals, text = override.partition("=")
    mark = f"--set {override}"
    parts = path.strip().split(".")
    if not equals or not all(parts):
        problems.add(Place(override=mark), path.strip(), "should be path=value, e.g. training.epochs=[1, 2]")
        return root
    value = parse(text, problems, mark) if text.strip() else Node(None, Place(override=mark))
    return root if value is None else _put(root, parts, value)


def _put(node: Node, parts: Sequence[str], value: Node) -> Node:
    if not parts:
        return value
    body = node.mapping
    if body is None:  # `stopping: asha` takes stopping.reduction=2 as {name: asha, reduction: 2}
        body = {} if node.value is None else {"name": node}
    key = parts[0]
    inner = _put(body.get(key, Node(None, value.place)), parts[1:], value)
    place = value.place if key not in node.keys or len(parts) == 1 else node.keys[key]
    return Node({**body, key: inner}, node.place, {**node.keys, key: place})
