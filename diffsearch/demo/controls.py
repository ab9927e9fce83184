"""What the page's controls offer of a run, and what they mean when something is to be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffsearch.demo.drawing import EACH, NONE, SHARES, Wish
from diffsearch.demo.networks import Network, Networks
from diffsearch.errors import DiffsearchError
from diffsearch.records import Evaluation, RunHistory
from diffsearch.registry import sampler as samplers
from diffsearch.space.axes import GUIDANCE, Taught, default_track, refusal
from diffsearch.space.members import read_choice, spelled
from diffsearch.space.settings import Choice, SamplingPoint, show_count

MOST_GUIDANCE = 8.0  # that the page offers, unless a study went near it


@dataclass(frozen=True, slots=True)
class Said:
    """The values of the controls, as the page holds them; None where one is empty."""

    run: str | None  # key
    epoch: int | None
    ema: int | None
    sampler: str | None
    steps: int | None
    label: str | None
    weight: float | None
    seed: int | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What the controls mean: a network, and what to draw from it."""

    run: RunHistory
    epoch: int
    network: Network
    wish: Wish
    scored: Evaluation | None  # what was measured of just such images

    def words(self) -> str:
        told = f", class {self.wish.label}" if self.network.classes else ""
        return f"run {self.run.key[:6]}, epoch {self.epoch}, {self.wish.point}{told}, seed {self.wish.seed}"


def offered(networks: Networks, run: RunHistory) -> dict[str, dict[str, Any]]:
    """Of each control but the run and the seed, its choices and its value for a run: as that scored best.

    Raises:
        StoreError: its checkpoint can't be read.
    """
    best, steps = networks.best(run), run.settings.steps
    tracks = sorted({0, *run.settings.training.ema_half_life})
    point = best.sampling if best else SamplingPoint(Choice("ancestral"), None, default_track(tracks))
    epochs = checkpoints(networks, run)
    epoch = epochs["value"]
    classes = networks.read(run.key, epoch, 0).classes if epoch else ()
    swept = [2 * sheet.sampling.guidance for sheet in run.all_evaluations]
    told = [SHARES, EACH, *classes, *([NONE] if run.settings.training.label_dropout else [])]
    names = {*samplers.names(), *(spelled(sheet.sampling.sampler) for sheet in run.all_evaluations)}
    return {
        "epoch": epochs,
        "ema": {"choices": [(show_count(track) if track else "raw", track) for track in tracks], "value": point.ema},
        "sampler": {"choices": sorted(names), "value": spelled(point.sampler)},
        "steps": {"maximum": max(2, steps), "value": point.steps or steps},  # a slider has two ends
        "label": {"choices": told, "value": SHARES, "visible": bool(classes)},
        "weight": {"value": point.guidance, "maximum": max(MOST_GUIDANCE, *swept), "visible": bool(classes)},
    }


def checkpoints(networks: Networks, run: RunHistory) -> dict[str, Any]:
    """The epochs that a run can be drawn from, and that of its best score, else the last."""
    best, kept = networks.best(run), networks.kept(run)
    return {"choices": kept, "value": best.epoch if best and best.epoch in kept else max(kept, default=None)}


def read(networks: Networks, said: Said, count: int) -> Asked:
    """The network that the controls choose, read from the store, and `count` images to draw from it.

    Raises:
        DiffsearchError: a control is empty, the sampler is unknown, or the checkpoint isn't kept.
    """
    run = networks.run(said.run)
    if said.epoch is None and not networks.kept(run):
        reason = run.outcome.reason or str(run.outcome.state)
        raise DiffsearchError(f"run {run.key[:6]} keeps no checkpoint ({reason}): choose another run.")
    epoch, ema = given(said.epoch, "a checkpoint"), given(said.ema, "the weights")
    steps, seed = given(said.steps, "the number of steps"), given(said.seed, "a seed, a whole number")
    point = SamplingPoint(
        sampler=read_choice("sampler", said.sampler or ""),
        steps=None if steps == run.settings.steps else steps,
        ema=ema,
        guidance=said.weight or 0.0,
    )
    refused = refusal(Taught.by(run.settings), point)
    if refused is not None and refused.path == GUIDANCE:
        raise DiffsearchError(
            f"guidance of weight {point.guidance:g} can't be had of run {run.key[:6]}: {refused.why}."
        )
    network = networks.read(run.key, epoch, ema)
    wish = Wish(point, seed, count, said.label or SHARES)
    as_scored = wish.label == SHARES or not network.classes
    return Asked(run, epoch, network, wish, networks.scored(run, epoch, point) if as_scored else None)


def beside(networks: Networks, asked: Asked, key: str | None, epoch: int | None) -> Asked:
    """Another run asked for the same: the same noise, class and sampling; all its steps where the first takes all.

    Raises:
        DiffsearchError: as `read`.
    """
    point = asked.wish.point
    run = networks.run(key)
    said = Said(
        run.key,
        epoch,
        point.ema,
        spelled(point.sampler),
        point.steps or run.settings.steps,
        asked.wish.label,
        point.guidance,
        asked.wish.seed,
    )
    return read(networks, said, asked.wish.count)


def given(value: int | None, what: str) -> int:
    if value is None:
        raise DiffsearchError(f"give {what}.")
    return int(value)
