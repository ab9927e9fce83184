"""A recorded table: every evaluation of a grid of runs in one parquet file, to be searched again in simulated time.

One row an evaluation, and one for the epoch at which a run diverged, which has no sampling point and no score. What the
columns don't say (the study file, what a metric was measured with, where it was recorded) is in the file's metadata.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from diffsearch.data.datasets import ImageData
from diffsearch.errors import DataError
from diffsearch.files import replace_file
from diffsearch.records import EpochRecord, Evaluation, Outcome, Score, State
from diffsearch.space.axes import grid, sampling_points, settings_at
from diffsearch.space.load import loads
from diffsearch.space.settings import Point, RunSettings, SamplingPoint, StudySpec, as_json, to_plain
from diffsearch.store import RunFolder, Store, evaluation_key, run_key

FORMAT = 1
METADATA = b"diffsearch"  # key of the parquet file's metadata
NOT_A_METRIC = ("run", "seed", "epoch", "sampling", "samples", "noise_seed", "images_seen", "loss")
COSTS = ("train_s", "sampling_s", "scoring_s", "network_calls", "outcome")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a table is, besides its rows."""

    study: str  # the study file, as it was run
    content: str  # hash of the data set
    image_shape: tuple[int, int, int]
    train_images: int
    measures: Mapping[str, str]  # metric → content hash of what it was measured with
    samplings: Mapping[str, Mapping[str, Any]]  # text of a sampling point → the point as JSON
    environment: Mapping[str, str]  # versions and device of the first run
    licence: str


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One run as it was recorded, with what it took."""

    seed: int
    epochs: tuple[EpochRecord, ...]  # of the milestones, and of the epoch at which it diverged; `wall_s` since epoch 0
    evaluations: Mapping[tuple[int, SamplingPoint], Evaluation]
    diverged: Outcome | None

    def seconds(self, epoch: int) -> float:
        """Of training from the start to the end of an epoch; between recorded epochs each is taken to cost the same."""
        return self._between(epoch, "wall_s")

    def images(self, epoch: int) -> int:
        """Trained from the start to the end of an epoch."""
        return round(self._between(epoch, "images_seen"))

    def loss(self, epoch: int) -> float:
        """Of the next recorded epoch."""
        return next((record.loss for record in self.epochs if record.epoch >= epoch), self.epochs[-1].loss)

    def _between(self, epoch: int, what: str) -> float:
        at, value = 0, 0.0
        for record in self.epochs:
            there = float(getattr(record, what))
            if epoch <= record.epoch:
                return value + (there - value) * (epoch - at) / (record.epoch - at)
            at, value = record.epoch, there
        return value


@dataclass(frozen=True)
class Recording:
    """A table and what it is."""

    frame: pd.DataFrame
    facts: Facts

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Read a table that `write` wrote.

        Raises:
            DataError: no such file, or not such a table.
        """
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path}: not a recorded table: {' '.join(str(error).split())[:200]}") from error
        plain = json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))
        if plain.pop("format", None) != FORMAT:
            raise DataError(f"{path}: a parquet file, but not one that `python -m benchmarks.search.record` wrote.")
        plain["image_shape"] = tuple(plain["image_shape"])
        return cls(table.to_pandas(), Facts(**plain))

    def write(self, path: Path) -> None:
        table = pa.Table.from_pandas(self.frame, preserve_index=False)
        facts = json.dumps({"format": FORMAT, **as_json(self.facts)}).encode()
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA: facts}), sink)
        replace_file(path, sink.getvalue().to_pybytes())

    @cached_property
    def recorded(self) -> StudySpec:
        """The study that was recorded."""
        return loads(self.facts.study, "the table's study")

    @cached_property
    def runs(self) -> Mapping[RunSettings, tuple[RecordedRun, ...]]:
        """Settings with seed 0 → the runs of that point, one a seed."""
        samplings = {text: SamplingPoint.from_json(plain) for text, plain in self.facts.samplings.items()}
        settings = {key: settings_at(self.recorded, point, 0) for key, point in self._points()}
        found: dict[RunSettings, list[RecordedRun]] = {}
        axes = [axis.path for axis in self.recorded.axes]
        keys = _point_keys(self.frame, axes)
        rows = zip(keys, self.frame.to_dict("records"), strict=True)
        for _, group in itertools.groupby(rows, key=lambda pair: pair[1]["run"]):
            (key, first), *rest = group
            run = _run([first, *(row for _, row in rest)], samplings, self.facts.measures)
            found.setdefault(settings[key], []).append(run)
        return {key: tuple(sorted(runs, key=lambda run: run.seed)) for key, runs in found.items()}

    def of(self, settings: RunSettings) -> tuple[RecordedRun, ...]:
        """The recorded runs of a point, one a seed; () where there is none."""
        return self.runs.get(replace(settings, seed=0), ())

    def _points(self) -> Iterator[tuple[str, Point]]:
        paths = [axis.path for axis in self.recorded.axes]
        for point in grid(self.recorded) or ():
            yield _key([cell(point[path]) if path in point else None for path in paths]), point


def record(spec: StudySpec, store: Store, data: ImageData, measures: Mapping[str, str], licence: str) -> Recording:
    """The complete runs that a store has of a study's grid and its seeds.

    A run is complete that has every evaluation which the study asks for, or that diverged; others are left out, so
    that a grid can be recorded in pieces.

    Raises:
        DataError: an axis is a range, or the store has no complete run.
    """
    points = grid(spec)
    if points is None:
        raise DataError(f"study '{spec.name}': only a grid can be recorded; write lists instead of ranges.")
    rows: list[dict[str, Any]] = []
    samplings: dict[str, Mapping[str, Any]] = {}
    environment: Mapping[str, str] = {}
    for point in points:
        for repeat in range(spec.repeats):
            settings = settings_at(spec, point, spec.seed + repeat)
            folder = store.run(run_key(settings, data.content, spec.extensions))
            sampled = sampling_points(spec, settings)
            found = _rows(spec, folder, point, repeat, sampled, measures)
            samplings |= {str(each): each.to_json() for each in sampled}
            environment = environment or (folder.header().get("environment", {}) if found else {})
            rows += found
    if not rows:
        raise DataError(f"{store.root} has no complete run of study '{spec.name}': `diffsearch run` it first.")
    spreads = [f"{m}_spread" for m in measures if any(row[f"{m}_spread"] is not None for row in rows)]
    metrics = [name for m in measures for name in (m, f"{m}_spread") if name == m or name in spreads]
    run, seed, epoch, sampling, *rest = NOT_A_METRIC
    columns = [run, *(axis.path for axis in spec.axes), seed, epoch, sampling, *metrics, *rest, *COSTS]
    facts = Facts(
        study=spec.text,
        content=data.content,
        image_shape=data.image_shape,
        train_images=len(data.train),
        measures=dict(measures),
        samplings=samplings,
        environment=environment,
        licence=licence,
    )
    return Recording(pd.DataFrame(rows, columns=columns), facts)


def _rows(
    spec: StudySpec,
    folder: RunFolder,
    point: Point,
    repeat: int,
    sampled: Sequence[SamplingPoint],
    measures: Mapping[str, str],
) -> list[dict[str, Any]]:
    """One run's rows; [] where it isn't complete."""
    known, ended = folder.evaluations(measures), folder.outcome()
    noise_seed, samples = spec.evaluation.seed + repeat, spec.evaluation.samples
    curve = {line.epoch: line for line in folder.epochs()}
    head = {"run": folder.key, "seed": spec.seed + repeat, "samples": samples, "noise_seed": noise_seed}
    head |= {axis.path: cell(point[axis.path]) if axis.path in point else None for axis in spec.axes}
    head |= {"outcome": str(State.FINISHED if ended is None else ended.state)}

    def trained(epoch: int) -> dict[str, Any]:
        past = [line for line in curve.values() if line.epoch <= epoch]  # not all of them where the run diverged in one
        loss = curve[epoch].loss if epoch in curve else None
        images, seconds = max((line.images_seen for line in past), default=0), sum(line.wall_s for line in past)
        return {"epoch": epoch, "train_s": round(seconds, 3), "loss": loss, "images_seen": images}

    rows = []
    for epoch in spec.milestones:
        for each in sampled:
            found = known.get(evaluation_key(folder.key, epoch, each, samples, noise_seed, spec.extensions))
            if found is None or not set(measures) <= set(found.scores):
                if ended is None:
                    return []
                continue
            scores = {metric: found.scores[metric].value for metric in measures}
            spreads = {f"{metric}_spread": found.scores[metric].spread for metric in measures}
            costs = {name: getattr(found, name) for name in ("sampling_s", "scoring_s", "network_calls")}
            rows.append({**head, **trained(epoch), "sampling": str(each), **scores, **spreads, **costs})
    if ended is not None:
        nothing = dict.fromkeys([*measures, *(f"{metric}_spread" for metric in measures)])
        rows.append({**head, **trained(int(ended.details["epoch"])), "sampling": None, **nothing})
    return rows


def _run(
    rows: Sequence[Mapping[Any, Any]], samplings: Mapping[str, SamplingPoint], measures: Mapping[str, str]
) -> RecordedRun:
    epochs: dict[int, EpochRecord] = {}
    evaluations: dict[tuple[int, SamplingPoint], Evaluation] = {}
    diverged = None
    for row in rows:
        epoch, images, wall_s = int(row["epoch"]), int(row["images_seen"]), float(row["train_s"])
        epochs[epoch] = EpochRecord(epoch, float(row["loss"]), images, images / max(wall_s, 1e-9), wall_s, 0.0)
        if not isinstance(row["sampling"], str):
            diverged = Outcome(State.DIVERGED, "diverged when it was recorded", {"epoch": epoch})
            continue
        point = samplings[row["sampling"]]
        scores = {
            metric: Score(float(row[metric]), int(row["samples"]), measure, _spread(row, metric))
            for metric, measure in measures.items()
        }
        evaluations[epoch, point] = Evaluation(
            key=f"{row['run']}-{epoch}-{row['sampling']}",
            run_key=str(row["run"]),
            epoch=epoch,
            sampling=point,
            samples=int(row["samples"]),
            noise_seed=int(row["noise_seed"]),
            scores=scores,
            network_calls=int(row["network_calls"]),
            sampling_s=float(row["sampling_s"]),
            scoring_s=float(row["scoring_s"]),
        )
    return RecordedRun(int(rows[0]["seed"]), tuple(epochs[epoch] for epoch in sorted(epochs)), evaluations, diverged)


def _spread(row: Mapping[Any, Any], metric: str) -> float | None:
    value = row.get(f"{metric}_spread")
    return None if value is None or pd.isna(value) else float(value)


def cell(value: Any) -> str | int | float | bool:
    """A value of an axis in a column: numbers and names as they are, lists and names with options as JSON text."""
    plain = to_plain(value)
    return plain if isinstance(plain, str | int | float | bool) else json.dumps(plain, sort_keys=True)


def _point_keys(frame: pd.DataFrame, paths: Sequence[str]) -> list[str]:
    """Of each row, the text of its point."""
    cells = frame[list(paths)].astype(object).where(frame[list(paths)].notna(), None)
    return [_key(row) for row in cells.to_numpy().tolist()]


def _key(cells: Sequence[Any]) -> str:
    """The cells of a point as one text; 1 and 1.0 are one value, as a column may turn integers into floats."""
    return json.dumps([float(c) if isinstance(c, int | float) and not isinstance(c, bool) else c for c in cells])
