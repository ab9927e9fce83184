"""The winner's album: what a report shows of its network, drawn once and kept with the study.

<store>/studies/<name>/album.safetensors holds the images of one checkpoint and the numbers of their captions, under
a key of all that they depend on; the next winner's album replaces it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.numpy
import torch

from diffsearch.data.datasets import ImageData
from diffsearch.errors import MetricError
from diffsearch.files import replace_file
from diffsearch.records import Evaluation
from diffsearch.report import sittings
from diffsearch.report.sittings import Plate
from diffsearch.scoring import metrics
from diffsearch.scoring.features import Extractor
from diffsearch.space.metric_names import parse
from diffsearch.space.settings import canonical
from diffsearch.store import Store
from diffsearch.training.checkpoint import Checkpoint, header

STAGE = 1  # raised when other pictures are drawn: albums of before are then drawn anew
FILE = "album.safetensors"
ENTRY = "diffsearch"  # the one key of the file's metadata


@dataclass(frozen=True, slots=True)
class Album:
    """Name → plate, of those that apply, and a sentence for each reason why one that would apply isn't there."""

    of: str = ""  # run, epoch and sampling point that it was drawn from
    plates: Mapping[str, Plate] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()


def album(
    store: Store,
    study: str,
    objective: str,
    sheets: Sequence[Evaluation],
    data: ImageData | None,
    device: torch.device,
) -> Album:
    """The album of the first of some evaluations that has one or whose checkpoint is kept.

    Args:
        sheets: at least one, the one that stands for the winner first.
        data: None where the data set isn't on this machine.

    Raises:
        StoreError: a checkpoint was altered, or the album can't be written.
    """
    extractor, trouble = _extractor(objective)
    kept = store.study(study) / FILE
    for sheet in sheets:
        key = _key(sheet, objective, data, extractor)
        found = _read(kept, key)
        if found is not None:
            return found
        path = store.run(sheet.run_key).checkpoint(sheet.epoch)
        if path.exists():
            studio = sittings.studio(Checkpoint.read(path), sheet, data, device)
            real = None if data is None or extractor is None else _real(objective, data, store.references, extractor)
            content = _bytes(Album(_words(sheet), sittings.plates(studio, real), _lacking(data, trouble)), key)
            replace_file(kept, content)
            return _parsed(content)[1]
    return Album(lacking=(f"No checkpoint is kept of {_words(sheets[0])}, so nothing could be drawn from it.",))


def _words(sheet: Evaluation) -> str:
    return f"run `{sheet.run_key[:6]}`, epoch {sheet.epoch}, {sheet.sampling}"


def _lacking(data: ImageData | None, trouble: str) -> tuple[str, ...]:
    if data is None:
        return ("The data set isn't on this machine: nothing is reconstructed, and no neighbours are shown.",)
    return (f"No neighbours are shown: {trouble}.",) if trouble else ()


def _extractor(objective: str) -> tuple[Extractor | None, str]:
    """The objective's extractor, or why it can't be had."""
    try:
        return metrics.extractor_of(parse(objective)), ""
    except MetricError as error:
        return None, str(error)


def _real(objective: str, data: ImageData, references: Path, extractor: Extractor) -> sittings.Real:
    """Real images by their features; the unseen ones are those that the study's scores were measured against."""
    name = parse(objective)
    against = metrics.reference_for(name, data, references) if name.reference == "test" else None
    return sittings.Real(data.train, None if against is None else against.features, extractor)


# --- the file -----------------------------------------------------------------------------------------------------


def _key(sheet: Evaluation, objective: str, data: ImageData | None, extractor: Extractor | None) -> str:
    real = None if data is None else [data.content, data.test_content]
    judge = None if extractor is None else [objective, extractor.content]
    return hashlib.sha256(canonical([STAGE, sheet.key, real, judge]).encode()).hexdigest()[:16]


def _bytes(made: Album, key: str) -> bytes:
    tensors = {f"{name}/{part}": image for name, plate in made.plates.items() for part, image in plate.images.items()}
    facts = {name: dict(plate.facts) for name, plate in made.plates.items()}
    entry = canonical({"key": key, "of": made.of, "facts": facts, "lacking": made.lacking})
    return safetensors.numpy.save(tensors, {ENTRY: entry})


def _read(path: Path, key: str) -> Album | None:
    """The kept album, None where there is none of that key; one that can't be read is as good as none."""
    try:
        kept_key, kept = _parsed(path.read_bytes())
    except (OSError, safetensors.SafetensorError, KeyError, ValueError):
        return None
    return kept if kept_key == key else None


def _parsed(content: bytes) -> tuple[str, Album]:
    entry = json.loads(header(content)["__metadata__"][ENTRY])
    tensors = safetensors.numpy.load(content)
    plates: dict[str, Plate] = {}
    for name, facts in entry["facts"].items():
        images = {part.removeprefix(f"{name}/"): t for part, t in tensors.items() if part.startswith(f"{name}/")}
        plates[name] = Plate(images, facts)
    return entry["key"], Album(entry["of"], plates, tuple(entry["lacking"]))
