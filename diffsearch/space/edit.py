"""Changes to a study file's text that leave the rest as it was written: order, comments, spelling of numbers."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from diffsearch.space.lines import Problems, compose, dump, flow, parse, plain_of

WIDTH = 118  # of a line of comment
_COMMENT = re.compile(r"[ \t]*(#.*)?")


@dataclass(frozen=True, slots=True)
class Change:
    """One key's new value, and why; both land in the file."""

    path: str  # dotted, as in the file: "training.loss"
    value: Any  # plain: lists, mappings with text as keys, scalars
    why: str  # one paragraph


def rewrite(text: str, changes: Sequence[Change], mark: str) -> str:
    """A study file with other values; each change has a comment above its line that begins with `mark`.

    A text that can't be edited in place (anchors, merged keys) is written anew, without its own comments.

    Args:
        text: YAML that `lines.parse` reads.
        changes: each path once; the last part of a path may be new.
        mark: e.g. "next:".
    """
    wanted = _plain(text)
    for change in changes:
        _put(wanted, change.path.split("."), change.value)
    try:
        edited = text
        for change in changes:
            edited = _edited(edited, change, mark)
        if _plain(edited) == wanted:
            return edited
    except (_OutOfReach, yaml.YAMLError):  # the anchor that others speak of was in what is changed
        pass
    reasons = "".join(comment(change.why, mark) for change in changes)
    return reasons + dump(wanted)


def comment(why: str, mark: str, indent: int = 0) -> str:
    """Lines of comment, the first one with the mark."""
    lead = " " * indent + "# "
    body = textwrap.wrap(
        why.replace(" %", "\0%"),
        WIDTH,
        initial_indent=f"{lead}{mark} ",
        subsequent_indent=lead + " " * (len(mark) + 1),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(body).replace("\0", " ") + "\n"


def body_of(node: yaml.Node | None) -> yaml.Node | None:
    """What stands under `values` or `value`, alone or beside `when`; else the node itself."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    word = held([key.value for key, _ in pairs])
    return next((inner for key, inner in pairs if key.value == word), node)


def held(keys: Iterable[str]) -> str | None:
    """`values` or `value`, where a mapping with these keys holds an axis under it."""
    rest = set(keys) - {"when"}
    return rest.pop() if rest in ({"values"}, {"value"}) else None


class _OutOfReach(Exception):
    """The text gives no single place for a value."""


def _plain(text: str) -> dict[str, Any]:
    node = parse(text, Problems())
    return node.plain if node is not None and node.mapping is not None else {}


def _put(plain: dict[str, Any], parts: Sequence[str], value: Any) -> None:
    for part in parts[:-1]:
        inner = plain.get(part)
        plain[part] = inner = inner if isinstance(inner, dict) else {}
        plain = inner
    last = parts[-1]
    old = plain.get(last)
    word = held(old) if isinstance(old, dict) else None
    plain[last] = {**old, word: value} if isinstance(old, dict) and word else value


def _edited(text: str, change: Change, mark: str) -> str:
    root = compose(text)
    *sections, key = change.path.split(".")
    parent: yaml.Node | None = root
    line, indent = 0, 0  # where the comment goes: above the innermost key that has a line of its own
    for section in sections:
        pair = _pair(parent, section)
        if pair is None:
            tail = f"{section}:\n{comment(change.why, mark, 2)}  {key}: {flow(change.value)}\n"
            if parent is not root or len(sections) > 1:
                raise _OutOfReach
            return f"{text.rstrip()}\n\n{tail}"
        line, indent = _above(parent, pair[0], line, indent)
        parent = pair[1]
    if not isinstance(parent, yaml.MappingNode):
        raise _OutOfReach
    pair = _pair(parent, key)
    if pair is not None:
        line, indent = _above(parent, pair[0], line, indent)
        edited = _replaced(text, pair[0], pair[1], change.value)
        return _with_comment(edited, line, comment(change.why, mark, indent))
    if parent.flow_style:
        end = parent.end_mark.index - 1
        edited = f"{text[:end]}{', ' if parent.value else ''}{key}: {flow(change.value)}{text[end:]}"
        return _with_comment(edited, line, comment(change.why, mark, indent))
    return _appended(text, parent, key, change, mark, top=not sections)


def _appended(text: str, parent: yaml.MappingNode, key: str, change: Change, mark: str, top: bool) -> str:
    """A new last line of a section; a new first one at the top."""
    indent = parent.start_mark.column
    new = f"{comment(change.why, mark, indent)}{' ' * indent}{key}: {flow(change.value)}\n"
    if top:
        return _with_comment(text, parent.start_mark.line, new)
    end = text.find("\n", _end(parent))
    return f"{text.rstrip()}\n{new}" if end < 0 else text[: end + 1] + new + text[end + 1 :]


def _pair(node: yaml.Node | None, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((pair for pair in pairs if pair[0].value == key), None)


def _above(parent: yaml.Node | None, key: yaml.Node, line: int, indent: int) -> tuple[int, int]:
    own = isinstance(parent, yaml.MappingNode) and not parent.flow_style
    return (key.start_mark.line, key.start_mark.column) if own else (line, indent)


def _with_comment(text: str, line: int, new: str) -> str:
    kept = text.splitlines(keepends=True)
    return "".join([*kept[:line], new, *kept[line:]])


def _replaced(text: str, key: yaml.Node, node: yaml.Node, value: Any) -> str:
    """The value in its old place; a comment behind it stays in its column."""
    body = body_of(node) or node
    new = spell(value, body, text)
    if body.start_mark.line != key.start_mark.line and body is node:  # a block below its key: behind the key instead
        between = text[key.end_mark.index : node.start_mark.index]
        said = between.partition("#")[2].partition("\n")[0].strip() if "#" in between.partition("\n")[0] else ""
        tail = f"   # {said}" if said else ""
        return f"{text[: key.end_mark.index]}: {new}{tail}{text[_end(node) :]}"
    start, end = body.start_mark.index, _end(body)
    if start == end or text[start - 1] == ":":  # nothing, or an anchor's place
        new = f" {new}"
    rest, newline, below = text[end:].partition("\n")
    match = _COMMENT.fullmatch(rest)
    if match is not None and match[1]:
        line = text.rfind("\n", 0, start) + 1
        column = min(end + len(rest) - len(rest.lstrip()) - line, _column(text))
        rest = " " * max(2, column - (start - line) - len(new)) + match[1]
    return text[:start] + new + rest + newline + below


def _column(text: str) -> int:
    """Where most comments behind values begin."""
    found = Counter(
        len(line[: match.end()]) for line in text.splitlines() if (match := re.match(r"\s*[^\s#].*?\s+(?=#)", line))
    )
    return found.most_common(1)[0][0] if found else 0


def spell(value: Any, old: yaml.Node | None, text: str) -> str:
    """A value on one line, spelled as the old one where they share parts: `2k` stays `2k`, `3e-4` stays `3e-4`."""
    same = _same(value, old, text)
    if same is not None:
        return same
    items = old.value if isinstance(old, yaml.SequenceNode) else []
    if isinstance(value, list):
        found = [next((s for item in items if (s := _same(part, item, text)) is not None), None) for part in value]
        return f"[{', '.join(s if s is not None else flow(part) for s, part in zip(found, value, strict=True))}]"
    if isinstance(value, dict):
        inside = (
            f"{key}: {spell(part, pair[1] if (pair := _pair(old, key)) else None, text)}" for key, part in value.items()
        )
        return f"{{{', '.join(inside)}}}"
    return next((s for item in items if (s := _same(value, item, text)) is not None), None) or flow(value)


def _same(value: Any, node: yaml.Node | None, text: str) -> str | None:
    """The node's own text if it means that value and stands on one line."""
    if node is None:
        return None
    plain = plain_of(node)
    if plain != value or isinstance(plain, bool) != isinstance(value, bool):
        return None
    own = text[node.start_mark.index : _end(node)]
    block = isinstance(node, yaml.CollectionNode) and not node.flow_style
    return None if block or not own or set(own) & set("\n#&*!") else own


def _end(node: yaml.Node) -> int:
    """Where a node's text ends; PyYAML ends a block only where the next one begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)
