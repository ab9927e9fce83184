"""What a worker reports, as JSON text: it crosses from one process to another inside a Tune result."""

from __future__ import annotations

import json
from typing import Any

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
