"""Commands about a trained network: draw from it, take it out of the store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffsearch.cli.places import (
    SHORT_KEY,
    Refused,
    asked_for,
    is_file_name,
    is_study,
    open_folder,
    open_store,
    store_option,
)
from diffsearch.errors import DiffsearchError, StoreError
from diffsearch.space.settings import show_count

if TYPE_CHECKING:
    import torch

    from diffsearch.records import Evaluation, RunHistory
    from diffsearch.space.settings import Choice, SamplingPoint
    from diffsearch.study.history import StudyFolder

MAX_COLUMNS = 16

target_argument = click.argument("target", metavar="STUDY|RUN")
epoch_option = click.option("--epoch", type=click.IntRange(min=1), help="Checkpoint.  [default: the best-scored one]")
sampler_option = click.option("--sampler", metavar="NAME[:OPTION=VALUE,...]", help="[default: as it was scored]")
steps_option = click.option("--steps", type=click.IntRange(min=1), help="Network calls an image; T by default.")
guidance_option = click.option(
    "--guidance", type=click.FloatRange(min=-1), metavar="W", help="Weight of the guidance; 0: none, -1: no classes."
)
ema_option = click.option("--ema", metavar="IMAGES", help="Half-life of the track, 0 for the raw weights, e.g. 2k.")


@dataclass(frozen=True)
class Chosen:
    """A checkpoint and a way to sample it."""

    folder: StudyFolder
    run: RunHistory
    epoch: int
    point: SamplingPoint
    scored: Evaluation | None  # the evaluation that this is, where it is one

    def checkpoint(self) -> Any:
        """Read it, with the user's own files imported that its settings need."""
        from diffsearch import registry
        from diffsearch.training.checkpoint import Checkpoint

        for path in self.use():
            registry.use(path)
        try:
            path = self.folder.store.run(self.run.key).kept_checkpoint(self.epoch)
        except StoreError as error:
            raise Refused(str(error)) from error
        return Checkpoint.read(path)

    def use(self) -> tuple[Path, ...]:
        """The user's own files; the study is read for them only if it has any."""
        if not self.folder.header.extensions:
            return ()
        from diffsearch import api

        return api.open_study(self.folder.name, store=self.folder.store.root).spec.use

    def words(self) -> str:
        return f"{self.folder.name}, run {self.run.key[:SHORT_KEY]}, epoch {self.epoch}, {self.point}"


@click.command()
@target_argument
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The PNG.")
@click.option("--count", type=click.IntRange(min=1), default=64, show_default=True, help="Images.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
@click.option("--class", "label", metavar="NAME", help="All images of that class.  [default: as in the training set]")
@epoch_option
@sampler_option
@steps_option
@ema_option
@guidance_option
@store_option
def sample(
    target: str,
    output: Path,
    count: int,
    seed: int,
    label: str | None,
    epoch: int | None,
    sampler: str | None,
    steps: int | None,
    ema: str | None,
    guidance: float | None,
    store: Path | None,
) -> None:
    """Draw a grid of images from any run, or from the best.

    Another sampler, number of steps or EMA track than it was scored with costs no training.
    """
    chosen = choose(target, store, epoch, sampler, steps, ema, guidance)
    from diffsearch.cli.waiting import waiting

    with waiting(f"drawing {count:,} images"):
        from diffsearch import exported
        from diffsearch.files import replace_file
        from diffsearch.trial import png_grid

        trained, device = chosen.checkpoint(), exported.best_device()
        denoiser = trained.denoiser(chosen.point.ema, device)
        shape, norm = trained.image_shape, trained.normalization
        labels = None if label is None else _labels(label, trained.classes, count)
        images = exported.draw(denoiser, norm, shape, chosen.point, count, seed, device, labels)
        replace_file(output.absolute(), png_grid(images, columns=_columns(count)))
    click.echo(f"{output}: {count:,} images of {chosen.words()}, seed {seed}")


@click.command()
@target_argument
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="A folder.")
@epoch_option
@sampler_option
@steps_option
@ema_option
@guidance_option
@store_option
def export(
    target: str,
    output: Path,
    epoch: int | None,
    sampler: str | None,
    steps: int | None,
    ema: str | None,
    guidance: float | None,
    store: Path | None,
) -> None:
    """Take a trained network out of the store.

    Writes its weights (safetensors), what they mean (config.json, study.yaml) and a loader of a few lines.
    """
    chosen = choose(target, store, epoch, sampler, steps, ema, guidance)
    if output.exists() and any(output.iterdir()) and not (output / "config.json").exists():
        raise Refused(f"{output} holds other files. Name a folder that is new or holds an export.")
    from diffsearch import exported
    from diffsearch.api import settings_yaml
    from diffsearch.space.settings import as_json

    header, evaluation = chosen.folder.header, chosen.scored
    about: dict[str, Any] = {"study": chosen.folder.name, "facts": dict(header.facts)}
    yaml = ""
    if evaluation is not None:
        about["scores"] = {name: as_json(score) for name, score in evaluation.scores.items()}
        yaml = settings_yaml(header.name, header.objective, chosen.run, evaluation)
    elif chosen.run.all_evaluations:
        near = replace(chosen.run.all_evaluations[0], epoch=chosen.epoch, sampling=chosen.point)
        yaml = settings_yaml(header.name, header.objective, chosen.run, near)
    exported.write(chosen.checkpoint(), chosen.point, output, yaml=yaml, about=about, use=chosen.use())
    size = (output / exported.WEIGHTS).stat().st_size
    click.echo(f"{output}: {chosen.words()}, {size / 1e6:.1f} MB. `python {output / exported.LOADER}` draws from it.")


def choose(
    target: str,
    root: Path | None,
    epoch: int | None,
    sampler: str | None,
    steps: int | None,
    ema: str | None,
    guidance: float | None = None,
) -> Chosen:
    """The checkpoint and sampling point that a command's words mean: as scored best, but for what is said otherwise.

    Raises:
        Refused: no such study, run, epoch, sampler or option.
    """
    folder, run, evaluation = _study_or_run(target, root)
    at_epoch = [sheet for sheet in run.evaluations if epoch is None or sheet.epoch == epoch]
    if evaluation is None or (epoch is not None and evaluation.epoch != epoch):
        evaluation = _best(folder, at_epoch) or _screened(folder, run, epoch) or evaluation
    if evaluation is None:
        raise Refused(f"run {run.key[:SHORT_KEY]} has no score yet, so no checkpoint to draw from.")
    point = evaluation.sampling
    if sampler is not None:
        point = replace(point, sampler=_sampler(sampler))
    if steps is not None:
        point = replace(point, steps=steps)
    if ema is not None:
        point = replace(point, ema=_track(ema, run.settings.training.ema_half_life))
    if guidance is not None:
        from diffsearch.space.axes import GUIDANCE, Taught, refusal

        point = replace(point, guidance=guidance)
        found = refusal(Taught.by(run.settings), point)
        if found is not None and found.path == GUIDANCE:
            raise Refused(f"--guidance {guidance:g}: {found.why}.")
    chosen_epoch = epoch or evaluation.epoch
    same = point == evaluation.sampling and chosen_epoch == evaluation.epoch
    return Chosen(folder, run, chosen_epoch, point, evaluation if same and evaluation in run.evaluations else None)


def _study_or_run(target: str, root: Path | None) -> tuple[StudyFolder, RunHistory, Evaluation | None]:
    from diffsearch.report.ranks import winner

    if is_file_name(target) or is_study(target, open_store(root)):
        folder = open_folder(target, root)
        found = winner(folder.history())
        if found is None:
            raise Refused(f"study '{folder.name}' has no score yet: `diffsearch run` it first.")
        return folder, found.run, found.sheet
    asks = asked_for(open_store(root), target)
    histories = [(folder, folder.run(asked)) for folder, asked in asks]
    folder, run = next((pair for pair in histories if pair[1].all_evaluations), histories[0])
    return folder, run, _best(folder, list(run.evaluations))


def _best(folder: StudyFolder, sheets: list[Evaluation]) -> Evaluation | None:
    objective, down = folder.header.objective, folder.header.direction == "max"
    scored = [sheet for sheet in sheets if objective in sheet.scores]
    return min(scored, key=lambda sheet: sheet.scores[objective].value * (-1 if down else 1), default=None)


def _screened(folder: StudyFolder, run: RunHistory, epoch: int | None) -> Evaluation | None:
    """The best by the screen, of a run that has nothing better to go by at that epoch."""
    screen = folder.header.screen
    scored = [sheet for sheet in run.screened if epoch in (None, sheet.epoch)]
    if screen is None:
        return None
    sign = -1 if screen.direction == "max" else 1
    return min(scored, key=lambda sheet: sheet.scores[screen.objective].value * sign, default=None)


def _sampler(text: str) -> Choice:
    """`ddim:eta=0.5` as a choice, its name and options checked."""
    from diffsearch.space.members import read_choice

    try:
        return read_choice("sampler", text)
    except DiffsearchError as error:
        raise Refused(f"--sampler {text}: {error}") from error


def _labels(name: str, classes: tuple[str, ...], count: int) -> torch.Tensor:
    """Label rows of one class, by its name or its number."""
    import torch

    from diffsearch import registry
    from diffsearch.diffusion.guidance import one_hot

    if not classes:
        raise Refused("--class: this network is unconditional; it was trained with conditioning: none.")
    known = {**{str(number): number for number in range(len(classes))}, **{c: n for n, c in enumerate(classes)}}
    if name not in known:
        raise Refused(f"--class {name}: no such class. {registry.suggest(name, classes)}")
    return one_hot(torch.full((count,), known[name]), len(classes))


def _track(text: str, kept: tuple[int, ...]) -> int:
    """The half-life that `2k` means, one that the run keeps."""
    digits, thousands = text.removesuffix("k"), text.endswith("k")
    if not digits.isdigit():
        raise Refused(f"--ema {text}: a number of images, like 500 or 2k; 0 for the raw weights.")
    track = int(digits) * (1000 if thousands else 1)
    if track and track not in kept:
        known = ", ".join(map(show_count, sorted({0, *kept})))
        raise Refused(f"--ema {text}: that average wasn't kept. Kept: {known}.")
    return track


def _columns(count: int) -> int:
    """About as wide as twice its height, at most 16 images."""
    return min(MAX_COLUMNS, max(1, round((2 * count) ** 0.5)))


COMMANDS = (sample, export)
