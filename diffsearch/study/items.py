"""What crosses between driver and worker: a worker's report as JSON text, and the user's own files."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diffsearch.files import replace_file
from diffsearch.records import EpochRecord, Evaluation, Outcome, State
from diffsearch.space.settings import as_json, to_plain
from diffsearch.trial import Item, Sampled, Scored, Trained


def pack(item: Item | Outcome) -> str:
    return json.dumps({"kind": type(item).__name__, **as_json(item)})


def unpack(text: str) -> Item | Outcome:
    plain: dict[str, Any] = json.loads(text)
    match plain.pop("kind"):
        case "Trained":
            return Trained(EpochRecord(**plain["record"]))
        case "Sampled":
            return Sampled(**plain)
        case "Scored":
            return Scored(Evaluation.from_json(plain["evaluation"]), plain["completes"], plain["reused"])
        case "Outcome":
            return Outcome(State(plain["state"]), plain["reason"], to_plain(plain["details"]))
        case kind:
            raise ValueError(f"a worker reported a {kind}, which is no item of a trial")


def pack_files(paths: Iterable[Path]) -> dict[str, bytes]:
    """The content of each of the user's files, for nodes that don't see the driver's disk."""
    return {str(path): path.read_bytes() for path in paths}


def at_hand(paths: Iterable[Path], contents: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Where this node has those files as the driver read them; written to its temporary folder where it doesn't."""
    return tuple(_at_hand(path, contents[str(path)]) for path in paths)


def _at_hand(path: Path, content: bytes) -> Path:
    if path.is_file() and path.read_bytes() == content:
        return path
    digest = hashlib.sha256(content).hexdigest()[:16]
    copy = Path(tempfile.gettempdir()) / "diffsearch-use" / digest / path.name
    if not copy.is_file():
        replace_file(copy, content)
    return copy
