"""The `search` section: an algorithm and a stopping rule, ours or a class of Optuna's or Ray Tune's by its name."""

from __future__ import annotations

import inspect
import re
from typing import Any

from diffsearch.registry import FAMILIES, suggest
from diffsearch.space.lines import Node, Place
from diffsearch.space.members import NAMING, Draft, read_options
from diffsearch.space.settings import Choice, Choices
from diffsearch.space.values import Setting, plain_value, shown

_CLASS = re.compile(r"[A-Z][A-Za-z0-9]+")
START = "start"  # option of `sequential`: dotted path → value, checked once the axes are known


def read_strategy(node: Node, path: str, family: str, draft: Draft) -> Setting | None:
    """`tpe` or `{name: tpe, startup_trials: 5}` as a Choice; None where it is wrong."""
    found = _name_and_place(node, path, draft)
    if found is None:
        return None
    name, place, words = found
    registry = FAMILIES[family]
    options: dict[str, Any] = {}
    if name in registry:
        options, issues = read_options(registry.member(name), node, skip=(*words, START))
        for at, message, help in issues:
            draft.problems.add(at, path, message, help)
        if START in registry.member(name).options():
            options |= {START: node.mapping[START].plain} if node.mapping and START in node.mapping else {}
        elif node.mapping and START in node.mapping:
            draft.problems.add(node.keys[START], path, f"{name} has no option '{START}'")
    elif _CLASS.fullmatch(name) and (family == "stopping_rule" or _optuna_takes(name, node, words, place, path, draft)):
        options = {key: plain_value(inner.plain) for key, inner in (node.mapping or {}).items() if key not in words}
    elif not _CLASS.fullmatch(name):
        foreign = "a class of optuna.samplers" if family == "algorithm" else "a scheduler class of ray.tune"
        draft.problems.add(place, path, f"unknown value '{name}'", f"{registry.help(name)}   Or {foreign}.")
        return None
    return Setting(path, Choices((Choice.of(name, **options),)), False, node.place, (node.place,))


def _name_and_place(node: Node, path: str, draft: Draft) -> tuple[str, Place, tuple[str, ...]] | None:
    if node.mapping is None:
        if isinstance(node.value, str):
            return node.value, node.place, ()
        draft.problems.add(node.place, path, f"should be a name, read {shown(node.plain)}")
        return None
    words = tuple(word for word in (*NAMING, "algorithm") if word in node.mapping)
    named = node.mapping[words[0]] if len(words) == 1 else None
    if named is None or not isinstance(named.value, str):
        draft.problems.add(node.place, path, f"needs a name, e.g. {{name: ...}}, read {shown(node.plain)}")
        return None
    return named.value, named.place, words


def _optuna_takes(name: str, node: Node, words: tuple[str, ...], place: Place, path: str, draft: Draft) -> bool:
    """Whether Optuna has that sampler and it takes the given arguments; notes what is wrong."""
    import optuna

    known = [each for each in dir(optuna.samplers) if each.endswith("Sampler") and each != "BaseSampler"]
    if name not in known:
        draft.problems.add(
            place, path, f"unknown value '{name}'", suggest(name, [*FAMILIES["algorithm"].names(), *known])
        )
        return False
    takes = [key for key in inspect.signature(getattr(optuna.samplers, name)).parameters if key != "self"]
    wrong = [key for key in node.mapping or {} if key not in words and key not in takes]
    for key in wrong:
        draft.problems.add(node.keys[key], path, f"{name} has no option '{key}'", suggest(key, takes))
    return not wrong
