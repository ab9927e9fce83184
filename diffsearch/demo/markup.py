"""The page's HTML: pictures whose pixels stay sharp, tables, and what is said beside them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from torch import Tensor

from diffsearch.demo.drawing import Cost, Drawn
from diffsearch.demo.networks import Networks
from diffsearch.records import Evaluation, RunHistory, Score
from diffsearch.report import phrases
from diffsearch.report.style import FAINT, PALETTE
from diffsearch.trial import png_grid

KEY = 6  # letters of a run key that the page shows
HASH = 8  # and of an extractor's hash
WIDE = 640  # CSS pixels that a grid is enlarged to, at most, by a whole factor
FRAME = 84  # and one image of a strip
MEASURED = ("score", "samples", "extractor")

CSS = f"""
.gradio-container {{ max-width: 1180px !important; }}
footer {{ display: none !important; }}
.ds {{ line-height: 1.45; }}
.ds img {{ image-rendering: pixelated; max-width: 100%; height: auto; display: block; border-radius: 2px; }}
.ds figure {{ margin: 0; }}
.ds figcaption, .ds .aside {{ opacity: 0.75; font-size: 0.86em; font-variant-numeric: tabular-nums; }}
.ds .strip {{ display: flex; flex-wrap: wrap; gap: 6px; }}
.ds .strip figcaption {{ text-align: center; }}
.ds .pair {{ display: flex; flex-wrap: wrap; gap: 24px; }}
.ds .pair > figure {{ flex: 1 1 260px; }}
.ds .tight {{ width: fit-content; max-width: 100%; }}
.ds .ends {{ display: flex; justify-content: space-between; }}
.ds .rows {{ overflow-x: auto; }}
.ds table, .ds th, .ds td {{ border: 0 !important; }}
.ds table {{ border-collapse: collapse; margin: 6px 0; font-size: 0.9em; font-variant-numeric: tabular-nums; }}
.ds th, .ds td {{ text-align: left; padding: 3px 14px 3px 0 !important; vertical-align: top; white-space: nowrap; }}
.ds tr {{ border: 0 !important; border-bottom: 1px solid {FAINT}66 !important; }}
.ds th {{ opacity: 0.75; font-weight: 400 !important; }}
.ds td:last-child {{ white-space: normal; min-width: 10em; }}
.ds h1 {{ font-size: 1.35em; margin: 0; }}
.ds h2 {{ font-size: 1.05em; margin: 0 0 2px 0; }}
.ds p {{ margin: 0 0 2px 0; }}
.ds .wrong {{ border-left: 4px solid {PALETTE[1]}; padding: 6px 12px; white-space: pre-wrap; }}
#run input, #other-run input {{ padding-right: 2em; text-overflow: ellipsis; }}
"""


# --- words --------------------------------------------------------------------------------------------------------


def title(networks: Networks) -> str:
    """The study's name and what its scores mean."""
    history = networks.history
    better = "lower" if history.direction == "min" else "higher"
    about = f"{phrases.several(len(networks.runs), 'run')}, ranked by {history.objective} ({better} is better)"
    return _div(f"<h1>{escape(networks.name)}</h1><p class='aside'>{escape(about)}</p>")


def run_label(networks: Networks, run: RunHistory) -> str:
    """`fd-digits 33.6 (500 samples) · x0-l2, T 10 · 5640f2`: one line of the list of runs."""
    best, objective = networks.best(run), networks.history.objective
    score = str(run.outcome.state)
    if best is not None:
        score = f"{objective} {phrases.number(best.scores[objective].value)} ({best.samples:,} samples)"
    words = [score, phrases.settings_text(networks.history, run), f"seed {run.settings.seed}", run.key[:KEY]]
    return " · ".join(words if networks.kept(run) else [*words, "no checkpoint kept"])


def card(networks: Networks, run: RunHistory) -> str:
    """A run's settings, how it ended, and which of its checkpoints are kept."""
    settings = run.settings
    kept = ", ".join(map(str, networks.kept(run))) or "none, so it can't be drawn from"
    facts = [str(settings.model), f"T {settings.steps}", str(settings.noise_process), settings.training.loss]
    facts += [f"training seed {settings.seed}", str(run.outcome.state), f"checkpoints kept, by epochs: {kept}"]
    reason = wrong(run.outcome.reason) if run.outcome.reason else ""
    return _div(f"<p class='aside'>{escape(' · '.join(facts))}</p>{reason}")


def scores_of(networks: Networks, run: RunHistory) -> str:
    """Every evaluation of a run, and what its scores can be."""
    history = networks.history
    heading = f"<h2>This run: {escape(phrases.settings_text(history, run))}</h2>"
    if not run.evaluations:
        return _div(f"{heading}<p>{'Scored by the screen alone.' if run.screened else 'No score yet.'}</p>")
    samples = sorted({sheet.samples for sheet in run.evaluations})
    bounds = "".join(f"<p>{escape(phrases.bounds_text(history, history.objective, n))}.</p>" for n in samples)
    rows = [
        [str(sheet.epoch), str(sheet.sampling), name, *_measured(score)]
        for sheet in run.evaluations
        for name, score in sheet.scores.items()
    ]
    table = _table(["epoch", "sampled by", "metric", *MEASURED], rows)
    return _div(f"{heading}{table}<div class='aside'>{bounds}</div>")


def scores(networks: Networks) -> str:
    """The best evaluation of each run, in the order of the list of runs."""
    history, rows = networks.history, []
    for run in networks.runs:
        best = networks.best(run)
        if best is not None:
            measured = _measured(best.scores[history.objective])
            at = [str(best.epoch), str(best.sampling), run.key[:KEY], phrases.settings_text(history, run)]
            rows.append([*measured, *at])
    without = len(networks.runs) - len(rows)
    said = "Only scores on one number of samples, by one extractor, can be compared."
    said += f" {phrases.several(without, 'run')} without a score." if without else ""
    table = _table([history.objective, *MEASURED[1:], "epoch", "sampled by", "run", "settings"], rows)
    return _div(f"<h2>Each run at its best</h2>{table}<p class='aside'>{said}</p>")


def cost(spent: Cost) -> str:
    """`32 images × 15 network calls each, 480 in all; 0.4 s on cpu`."""
    calls = f"{spent.images:,} images × {phrases.several(spent.network_calls, 'network call')} each"
    return f"{calls}, {spent.images * spent.network_calls:,} in all; {phrases.duration(spent.wall_s)} on {spent.device}"


def score_of(sheet: Evaluation | None) -> str:
    """What was measured of just such images."""
    if sheet is None:
        return "Not scored so: other settings of sampling than the study's own."
    each = [
        f"{name} {phrases.number(score.value)} on {score.samples:,} samples, extractor {score.extractor[:HASH]}"
        for name, score in sheet.scores.items()
    ]
    return f"Scored so: {'; '.join(each)}."


def told(*lines: str) -> str:
    return _div("".join(f"<p>{escape(line)}</p>" for line in lines))


def wrong(words: str) -> str:
    """What can't be done, and why."""
    return _div(f"<div class='wrong' role='alert'>{escape(words)}</div>")


def _measured(score: Score) -> list[str]:
    return [phrases.number(score.value), f"{score.samples:,}", score.extractor[:HASH]]


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f"<div class='rows'><table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table></div>"


# --- pictures -----------------------------------------------------------------------------------------------------


def moment(drawn: Drawn, place: int, of_x_0: bool) -> str:
    """All images at one moment of their way: x_t, or x̂_0 where the network gives one."""
    stage = drawn.x_0 if of_x_0 and drawn.x_0 is not None else drawn.x_t
    words = f"t = {drawn.ts[place]}" + (", the images" if place == len(drawn.ts) - 1 else "")
    picture = _img(stage[place], drawn.columns, WIDE, f"{len(stage[place])} images at t = {drawn.ts[place]}")
    return _div(f"<figure>{picture}<figcaption>{words}</figcaption></figure>")


def strip(drawn: Drawn, index: int) -> str:
    """One image on its way: x_t above, where there is one x̂_0 below, and t under both."""
    frames = []
    for place, t in enumerate(drawn.ts):
        stages = [drawn.x_t] if drawn.x_0 is None else [drawn.x_t, drawn.x_0]
        pictures = "".join(_img(stage[place, index : index + 1], 1, FRAME, f"t = {t}") for stage in stages)
        frames.append(f"<figure>{pictures}<figcaption>t = {t}</figcaption></figure>")
    rows = "" if drawn.x_0 is None else " Above what the sampler holds, below the image that the network sees in it."
    aside = f"<p class='aside'>Image {index + 1} from noise (t = {drawn.ts[0]}) to the end (t = 0).{rows}</p>"
    return _div(f"{aside}<div class='strip'>{''.join(frames)}</div>")


def rows_between(images: Tensor, seed: int, other: int) -> str:
    """(rows, frames, C, H, W) uint8 as a grid, the two seeds named at its ends."""
    frames = images.shape[1]
    picture = _img(images.flatten(0, 1), frames, WIDE, f"From seed {seed} on the left to seed {other} on the right.")
    ends = f"<figcaption class='ends'><span>seed {seed}</span><span>seed {other}</span></figcaption>"
    return _div(f"<figure class='tight'>{picture}{ends}</figure>")


def pair(shown: Sequence[tuple[Drawn, str, str]]) -> str:
    """Batches side by side, below each other on a narrow window: (drawn, its name, more about it) each."""
    figures = "".join(
        f"<figure>{_img(drawn.images, drawn.columns, WIDE, name)}"
        f"<figcaption><b>{escape(name)}</b><br>{escape(more)}</figcaption></figure>"
        for drawn, name, more in shown
    )
    return _div(f"<div class='pair'>{figures}</div>")


def _img(images: Tensor, columns: int, room: int, alt: str) -> str:
    """A PNG in the page itself, as wide as the largest whole factor allows within `room` CSS pixels."""
    natural = columns * (images.shape[-1] + 1) + 1
    width = natural * max(1, room // natural)
    data = base64.b64encode(png_grid(images, columns)).decode()
    return f"<img alt='{escape(alt, quote=True)}' style='width: {width}px' src='data:image/png;base64,{data}'>"


def _div(inner: str) -> str:
    return f"<div class='ds'>{inner}</div>"
