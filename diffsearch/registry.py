"""Names that a study file may use, and the factories behind them: one `Registry` a family.

A factory's signature is its schema: **positional parameters are given by diffsearch, keyword-only parameters are the
options that a user may write in YAML**, with their annotations as types and their defaults as defaults.
A family knows the rooms where its members live and imports them when first asked, so that a worker process
which never imported them sees the same names as the driver.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffsearch.errors import DiffsearchError


@dataclass(frozen=True, slots=True)
class Option:
    """One keyword-only parameter of a factory."""

    name: str
    annotation: Any
    default: Any  # inspect.Parameter.empty where there is none

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Member:
    """A registered factory with the traits it was registered with, and the hash of the user's file it came from."""

    name: str
    factory: Callable[..., Any]
    traits: Mapping[str, Any] = field(default_factory=dict)
    origin: str | None = None  # content hash of the `use:` file; None for members that ship with diffsearch

    def takes(self, given: str) -> bool:
        """Whether diffsearch may give it this positional argument, which not every member of its family needs."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return any(p.name == given and p.kind is kind for p in inspect.signature(self.factory).parameters.values())

    def options(self) -> Mapping[str, Option]:
        return _options(self.factory)


@functools.cache
def _options(factory: Callable[..., Any]) -> Mapping[str, Option]:
    hints = typing.get_type_hints(factory if inspect.isfunction(factory) else factory.__init__)  # type: ignore[misc]
    return {
        name: Option(name, hints.get(name, Any), parameter.default)
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


class Registry:
    """Name → factory, for one family.

    Args:
        family: what a member is called in messages, e.g. "noise process".
        rooms: modules whose import registers the members that ship with diffsearch.
    """

    def __init__(self, family: str, *rooms: str) -> None:
        self.family = family
        self._rooms = rooms
        self._members: dict[str, Member] = {}

    def register(self, name: str, **traits: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator that adds a factory under `name`; `traits` are facts about it, e.g. `direct_mean=True`."""

        def add(factory: Callable[..., Any]) -> Callable[..., Any]:
            present = self._members.get(name)
            replaces = (
                present is not None and present.origin is not None
            )  # a user's file that was edited and used again
            if present is not None and not replaces and _where(present.factory) != _where(factory):
                raise DiffsearchError(f"{self.family} '{name}' is registered already, by {_where(present.factory)}")
            self._members[name] = Member(name, factory, dict(traits), _loading.origin if _loading else None)
            if _loading is not None:
                _loading.brought.append((self, self._members[name]))
            return factory

        return add

    def member(self, name: str) -> Member:
        """The member of that name; raises DiffsearchError with the nearest known name."""
        self._open_rooms()
        if name not in self._members:
            raise DiffsearchError(f"unknown {self.family} '{name}'. {self.help(name)}")
        return self._members[name]

    def names(self) -> tuple[str, ...]:
        self._open_rooms()
        return tuple(sorted(self._members))

    def __contains__(self, name: object) -> bool:
        self._open_rooms()
        return name in self._members

    def build(self, name: str, *args: Any, **options: Any) -> Any:
        return self.member(name).factory(*args, **options)

    def help(self, read: str) -> str:
        """The known names, and the nearest to what was read: the second line of an error message."""
        return suggest(read, self.names())

    def _open_rooms(self) -> None:
        for room in self._rooms:
            importlib.import_module(room)


def suggest(read: str, known: typing.Iterable[str]) -> str:
    """`known: a, b, c.   Did you mean 'b'?`, the question only where a name is near."""
    names = sorted(known)
    near = difflib.get_close_matches(str(read), names, n=1, cutoff=0.6)
    return f"known: {', '.join(names)}." + (f"   Did you mean '{near[0]}'?" if near else "")


@dataclass(frozen=True, slots=True)
class _File:
    """A user's file: its content hash, and what it registered."""

    origin: str
    brought: list[tuple[Registry, Member]] = field(default_factory=list)


_loading: _File | None = None
_known: dict[str, _File] = {}  # by a name that holds the file's own and its content hash


def use(path: Path) -> str:
    """Take in a user's file, once a process for each content, and return its content hash (16 hex digits).

    A Python file is imported; a `.safetensors` file is a classifier that `diffsearch features train` wrote. What the
    file registers remembers that hash as its origin, and the keys of the runs that use it hold the hash.

    Raises:
        DiffsearchError: the file is absent, raises when imported (its own exception is chained) or holds no classifier.
    """
    global _loading
    if not path.is_file():
        raise DiffsearchError(f"use: no such file: {path}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    name = f"diffsearch_use_{path.stem}_{digest}"
    for registry in FAMILIES.values():
        registry._open_rooms()  # what the file imports of ours must not pass for the file's own
    if name in _known:
        for registry, member in _known[name].brought:
            registry._members[member.name] = member
        return digest
    _loading = _File(digest)
    try:
        if path.suffix == ".safetensors":
            importlib.import_module("diffsearch.scoring.classifier").register_file(path)
        else:
            _import(path, name)
        _known[name] = _loading
    finally:
        _loading = None
    return digest


def _import(path: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DiffsearchError(f"use: not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise DiffsearchError(f"use: {path} raised when it was imported: {type(error).__name__}: {error}") from error


def _where(factory: Callable[..., Any]) -> str:
    return f"{getattr(factory, '__module__', '?')}.{getattr(factory, '__qualname__', repr(factory))}"


dataset = Registry("dataset", "diffsearch.data.datasets", "diffsearch.data.vision")
normalization = Registry("normalization", "diffsearch.data.normalise")
model = Registry("model", "diffsearch.models.dense", "diffsearch.models.conv", "diffsearch.models.unet")
noise_process = Registry("noise process", "diffsearch.diffusion.processes")
loss = Registry("loss", "diffsearch.diffusion.targets")
sampler = Registry("sampler", "diffsearch.diffusion.samplers", "diffsearch.diffusion.solvers")
extractor = Registry(
    "feature extractor",
    "diffsearch.scoring.features",
    "diffsearch.scoring.classifier",
    "diffsearch.scoring.efficientnet",
    "diffsearch.scoring.random_features",
)
metric = Registry("metric", "diffsearch.scoring.metrics")
algorithm = Registry("search algorithm", "diffsearch.search.samplers", "diffsearch.search.sequential")
stopping_rule = Registry("stopping rule", "diffsearch.search.stopping")

FAMILIES: Mapping[str, Registry] = {
    "dataset": dataset,
    "normalization": normalization,
    "model": model,
    "noise_process": noise_process,
    "loss": loss,
    "sampler": sampler,
    "extractor": extractor,
    "metric": metric,
    "algorithm": algorithm,
    "stopping_rule": stopping_rule,
}
