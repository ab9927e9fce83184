"""What the command line and notebooks call: load a study, plan it, run it, read its answer.

study = diffsearch.load("search_spaces/mnist_unet.yaml")
study.run()
study.table()
study.best().sample(64)
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from diffsearch.errors import StoreError
from diffsearch.records import Evaluation, RunHistory, State, StudyHistory
from diffsearch.space.settings import SamplingPoint, StudySpec, told
from diffsearch.store import RunFolder, Store

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from diffsearch.data.datasets import ImageData
    from diffsearch.report.album import Album
    from diffsearch.report.next_study import NextStudy
    from diffsearch.study.driver import Summary
    from diffsearch.study.observer import Observer
    from diffsearch.study.plan import Plan

DEFAULT_STORE = Path(".diffsearch")
REPORTS = Path("reports")


def load(path: Path | str, overrides: Sequence[str] = (), *, store: Path | str | None = None) -> Study:
    """Read and check a study file.

    Args:
        path: of the YAML file.
        overrides: `training.epochs=[1, 2]` each.
        store: directory of the store; the file's `store:`, else `./.diffsearch`, by default.

    Raises:
        ConfigError: with every mistake of the file, or of the published numbers beside it.
        StoreError: the store can't be written.
    """
    from diffsearch.space import published
    from diffsearch.space.load import load as load_spec

    spec = load_spec(path, overrides, store=Path(store) if store else None, precision=_measured_precision)
    published.beside(spec.source)
    return Study(spec, Store.open(spec.store or DEFAULT_STORE))


def open_study(name: str, *, store: Path | str | None = None) -> Study:
    """A study that was run before, by its name, from the file that its folder keeps.

    Raises:
        StoreError: the store has no study of that name.
    """
    from diffsearch.space.load import load as load_spec
    from diffsearch.study.history import Header

    there = Store.open(Path(store) if store else DEFAULT_STORE)
    folder = there.study(name)
    header = Header.read(folder)
    kept = Path(header.source) if header.source and Path(header.source).exists() else folder / "study.yaml"
    text_is_kept = kept.read_text() == (folder / "study.yaml").read_text()
    spec = load_spec(kept if text_is_kept else folder / "study.yaml", store=there.root, precision=_measured_precision)
    return Study(spec, there)


def _measured_precision() -> str:
    import torch

    from diffsearch.training import precision

    return precision.measure(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class Study:
    """A study file and its store."""

    spec: StudySpec
    store: Store

    @property
    def name(self) -> str:
        return self.spec.name

    def plan(self, *, workers: int | None = None, calibrate: bool = True) -> Plan:
        """What would run, what the store has, what the rest will cost. Trains a few batches unless told not to."""
        import os

        from diffsearch.data.datasets import load as load_data
        from diffsearch.space.axes import member_at
        from diffsearch.study.plan import make_plan

        data = load_data(member_at(self.spec.fixed, "data"))
        return make_plan(self.spec, self.store, data, workers or len(os.sched_getaffinity(0)), calibrate=calibrate)

    def run(
        self,
        *,
        address: str | None = None,
        workers: int | None = None,
        tracking_uri: str | None = None,
        observer: Observer | None = None,
        command: str | None = None,
        retry_failed: bool = False,
    ) -> Summary:
        """Finish the study: compute what the store lacks of it, and nothing else.

        Args:
            address: of a running Ray cluster; a local one of its own by default.
            workers: runs at once of the local cluster; its cores by default; 0: in this process, without Ray.
            tracking_uri: of MLflow; MLFLOW_TRACKING_URI, else a SQLite file in the store, by default.
            observer: told what happens.
            retry_failed: try runs again that failed, ran out of memory or were killed; those that diverged stay so.

        Raises:
            StoreError, DataError, MetricError, ConfigError: the study can't begin; nothing was run.
        """
        from diffsearch.study.driver import run_study

        return run_study(
            self.spec,
            self.store,
            command=command or f"diffsearch.load({str(self.spec.source)!r}).run()",
            address=address,
            workers=workers,
            tracking_uri=tracking_uri,
            observer=observer,
            retry_failed=retry_failed,
        )

    def history(self, *, tracking_uri: str | None = None, from_store: bool = False) -> StudyHistory:
        """All that the study asked for and what came of it: read from MLflow, or the store where MLflow is behind."""
        from diffsearch.study import tracking
        from diffsearch.study.history import StudyFolder

        folder = StudyFolder.open(self.store, self.name)
        if not from_store:
            with contextlib.suppress(tracking.TrackingDown):
                told = tracking.read(self.name, tracking.tracking_uri(self.store, tracking_uri))
                if (told.wall_s, len(told.runs)) == (folder.ledger.wall_s, len(folder.asked())):
                    return told
        return folder.history()

    def table(self) -> pd.DataFrame:
        """One row an evaluation."""
        from diffsearch.report import tables

        return tables.evaluations(self.history(from_store=True))

    def best(self) -> Best:
        """The winning configuration's typical seed, or the run with the best score where nothing was repeated.

        Raises:
            StoreError: nothing was scored yet.
        """
        from diffsearch.report.ranks import winner

        found = winner(self.history(from_store=True))
        if found is None:
            raise StoreError(f"study '{self.name}' has no score yet: `diffsearch run` it first.")
        return Best(self, found.run, found.sheet)

    def next(self) -> NextStudy:
        """The study to run after this one, as a file: `.text`, empty where the data supports none; see `.words`."""
        from diffsearch.report.next_study import next_study

        return next_study(self.history(from_store=True), self.spec)

    def report(
        self,
        folder: Path | None = None,
        *,
        tracking_uri: str | None = None,
        from_store: bool = False,
        published: Path | None = None,
    ) -> Path:
        """Write `reports/<study>/report.md` with its figures and return its path.

        Args:
            published: file of printed numbers to set beside ours; `published.yaml` beside the study file by default.
        """
        return write_report([self], folder, tracking_uri=tracking_uri, from_store=from_store, published=published)


@dataclass(frozen=True)
class Best:
    """A run and the evaluation that stands for it."""

    study: Study
    run: RunHistory
    evaluation: Evaluation

    @property
    def score(self) -> float:
        return self.evaluation.scores[self.study.spec.evaluation.objective].value

    def yaml(self) -> str:
        """Its settings as a study file without axes, to copy."""
        return settings_yaml(self.study.name, self.study.spec.evaluation.objective, self.run, self.evaluation)

    def sample(self, count: int = 64, *, seed: int = 0) -> torch.Tensor:
        """Draw images: (count, C, H, W) uint8."""
        folder = self.study.store.run(self.run.key)
        return draw(folder, self.evaluation.epoch, self.evaluation.sampling, count, seed)


def draw(
    folder: RunFolder, epoch: int, point: SamplingPoint, count: int, seed: int, labels: torch.Tensor | None = None
) -> torch.Tensor:
    """Draw images from one checkpoint of a run: (count, C, H, W) uint8.

    Args:
        labels: (count, K) rows that a conditional network is told; None: classes by their share of the training set.

    Raises:
        StoreError: that epoch's checkpoint isn't kept.
        DiffsearchError: the sampler doesn't fit the network.
    """
    from diffsearch import exported
    from diffsearch.training.checkpoint import Checkpoint

    trained = Checkpoint.read(folder.checkpoint(epoch))
    device = exported.best_device()
    denoiser = trained.denoiser(point.ema, device)
    return exported.draw(denoiser, trained.normalization, trained.image_shape, point, count, seed, device, labels)


def settings_yaml(study: str, objective: str, run: RunHistory, evaluation: Evaluation) -> str:
    """One run's settings in the form of a study file: no axis is left.

    Args:
        study: name of the study that the run belongs to.
        objective: its metric.
    """
    settings, training, point = run.settings, run.settings.training, evaluation.sampling
    plain: dict[str, Any] = {
        "name": f"{study}_best",
        "seed": settings.seed,
        "data": {"dataset": settings.dataset.name, **settings.dataset.kwargs},
        "model": {"kind": settings.model.name, **settings.model.kwargs},
        "diffusion": {
            "noise_process": settings.noise_process.name,
            **settings.noise_process.kwargs,
            "steps": settings.steps,
            "terminal": settings.terminal,
        },
        "training": {**told(training), "epochs": evaluation.epoch},
        "sampling": {"sampler": point.sampler.name, **point.sampler.kwargs, "ema": point.ema},
        "evaluation": {"objective": objective, "samples": evaluation.samples},
    }
    if point.steps is not None:
        plain["sampling"]["steps"] = point.steps
    if point.guidance:
        plain["sampling"]["guidance_weight"] = point.guidance
    if settings.time != "discrete":
        plain["diffusion"]["time"] = settings.time
    if training.gradient_clip is None:
        plain["training"]["gradient_clip"] = "off"
    del plain["training"]["horizon"]  # it follows from the schedule and the epochs
    return _flow_yaml(plain)


def _printed(study: Study) -> Path | None:
    """The published numbers beside the file that a study was run from, if there are any."""
    from diffsearch.space.published import FILE
    from diffsearch.study.history import Header

    source = Header.read(study.store.study(study.name)).source
    path = Path(source).parent / FILE
    return path if source and path.is_file() else None


def write_report(
    studies: Sequence[Study],
    folder: Path | None = None,
    *,
    tracking_uri: str | None = None,
    from_store: bool = False,
    published: Path | None = None,
) -> Path:
    """Write the report of one study, or the comparison of several.

    Args:
        published: file of printed numbers to set beside those of a single study; by default `published.yaml` beside
            the file that it was run from, if there is one.

    Raises:
        ConfigError: a mistake in the published numbers.
    """
    from diffsearch.report import markdown
    from diffsearch.report.album import Album
    from diffsearch.report.ranks import winner
    from diffsearch.space.published import load as load_published

    histories = [study.history(tracking_uri=tracking_uri, from_store=from_store) for study in studies]
    folder = folder or REPORTS / "-".join(study.name for study in studies)
    samples: dict[str, Path] = {}
    yaml_of: dict[str, str] = {}
    for study, history in zip(studies, histories, strict=True):
        for run in history.runs:
            for evaluation in run.evaluations:
                picture = study.store.run(run.key).picture(evaluation.key)
                if picture.exists():
                    samples[evaluation.key] = picture
        won = winner(history)
        if won is not None:
            yaml_of[won.run.key] = settings_yaml(study.name, history.objective, won.run, won.sheet)
    data_of = {study.name: data for study in studies if (data := _data(study.spec)) is not None}
    pictures = markdown.Pictures(
        samples,
        yaml_of=yaml_of,
        real_of={name: _some(data.train) for name, data in data_of.items()},
        album=_album(studies[0], histories[0], data_of.get(studies[0].name)) if len(studies) == 1 else Album(),
    )
    published = published or (_printed(studies[0]) if len(studies) == 1 else None)
    printed = load_published(published) if published else None
    spec = studies[0].spec if len(studies) == 1 else None
    return markdown.write(histories, folder, pictures=pictures, published=printed, spec=spec)


def _album(study: Study, history: StudyHistory, data: ImageData | None) -> Album:
    """What the winner's network draws: drawn at the first report on it, read from the study's folder at later ones."""
    from diffsearch import exported
    from diffsearch.report import album
    from diffsearch.report.ranks import winner

    won = winner(history)
    if won is None:
        return album.Album()
    sheets = [won.sheet, *(won.configuration.sheets if won.configuration else ())]
    return album.album(study.store, study.name, history.objective, sheets, data, exported.best_device())


def _data(spec: StudySpec) -> ImageData | None:
    from diffsearch.data.datasets import load as load_data
    from diffsearch.errors import DataError
    from diffsearch.space.axes import member_at

    try:
        return load_data(member_at(spec.fixed, "data"))
    except DataError:
        return None  # a report can be made where the data set is not


def _some(images: np.ndarray) -> np.ndarray:
    """128 of the images, or as many as there are, from all of them: many sets are sorted by class."""
    return images[:: max(1, len(images) // 128)][:128]


def _flow_yaml(plain: Mapping[str, Any]) -> str:
    """Sections as blocks, tuples in brackets."""

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(
        tuple, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
    )
    return yaml.dump(dict(plain), Dumper=Dumper, sort_keys=False, width=100)


def trainable(path: Path | str, overrides: Sequence[str] = (), *, store: Path | str | None = None) -> type:
    """A study's runs as a Ray Tune trainable, for those who bring their own `Tuner`.

    Its config is axis path → value, e.g. `{"training.loss": tune.choice(["x0-l2", "v-l2"])}`; each step trains to the
    next milestone and reports every metric by its name, and `epoch`. Give the Tuner
    `CheckpointConfig(checkpoint_at_end=False)`: the store keeps what matters, and answers what it has.

    Raises:
        ConfigError, StoreError: as `load`.
    """
    import uuid

    from diffsearch.data.datasets import load as load_data
    from diffsearch.space.axes import member_at
    from diffsearch.study.facts import environment
    from diffsearch.study.ledger import Ledger
    from diffsearch.study.requests import Requests
    from diffsearch.study.runner import study_trainable
    from diffsearch.study.sweep import settled

    study = load(path, overrides, store=store)
    data = load_data(member_at(study.spec.fixed, "data"))
    spec = settled(study.spec, len(data.train))
    ledger = Ledger(study.store.study(study.name))  # nothing is written to it: no study asks here
    asked = (spec, study.store, data.content, ledger, uuid.uuid4().hex[:12], environment())
    return study_trainable(Requests(*asked, image_shape=data.image_shape, classes=len(data.classes)))


__all__ = ["Best", "State", "Study", "load", "open_study", "trainable", "write_report"]
