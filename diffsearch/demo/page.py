"""The page itself, in gradio: controls on the left, what they draw on the right.

All that it shows is made in `drawing` and `markup`; here the controls' values become their arguments. A mistake that a
person can act on appears in words where the answer would stand. Nothing is fetched from outside: letters are the
system's, pictures lie in the page, and gradio's own statistics are off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import gradio as gr
import torch

from diffsearch.demo import controls, drawing, markup
from diffsearch.demo.controls import MOST_GUIDANCE, Asked, Said
from diffsearch.demo.drawing import Cost, Drawn, Heard
from diffsearch.demo.networks import Networks
from diffsearch.diffusion.journeys import DDIM
from diffsearch.errors import DiffsearchError
from diffsearch.report.style import PALETTE
from diffsearch.space.members import spelled

LETTERS, DIGITS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
MOST_IMAGES, MOST_ROWS, MOST_FRAMES = 128, 8, 16
X_T, X_0 = "x_t, what the sampler holds", "x̂_0, the image that the network sees in it"
PROGRESS = gr.Progress()
INSIDE: dict[str, Any] = {"api_visibility": "private"}  # of events: they are no interface for programs
AT_ONCE: dict[str, Any] = {**INSIDE, "show_progress": "hidden", "trigger_mode": "always_last"}
Answer = tuple[Any, ...]


@dataclass(frozen=True)
class Served:
    """Where the page is."""

    url: str
    public_url: str | None  # None: no link was asked for, or none could be had


def serve(networks: Networks, host: str, port: int, *, share: bool = False) -> Served:
    """Serve the page for as long as this process lives; returns as soon as it answers.

    Args:
        host: the address that it answers at; 127.0.0.1 is this machine alone.
        share: ask gradio's own servers for a public link, too.
    """
    _, url, public_url = build(networks).launch(
        server_name=host,
        server_port=port,
        share=share,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        footer_links=[],
        run_history=False,
        theme=_theme(),
        css=markup.CSS,
    )
    return Served(url, public_url)


def build(networks: Networks) -> gr.Blocks:
    with gr.Blocks(title=f"diffsearch: {networks.name}", analytics_enabled=False) as blocks:
        heading = gr.HTML(markup.title(networks))
        first, second = networks.drawable(2)
        run = gr.Dropdown(_runs(networks), value=first.key, label="Run, the best first", elem_id="run")
        card = gr.HTML(elem_id="card")
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                chosen = _Controls(run)
            with gr.Column(scale=9, min_width=300), gr.Tabs():
                with gr.Tab("Draw"):
                    _draw_tab(networks, chosen)
                with gr.Tab("Between two seeds"):
                    _between_tab(networks, chosen)
                with gr.Tab("Two runs"):
                    other = _two_runs_tab(networks, chosen, second.key, blocks)
                with gr.Tab("Scores"):
                    of_run = gr.HTML()
                    of_all = gr.HTML()

        @_in_words(*[gr.skip()] * 3)
        def look() -> Answer:
            networks.look()
            runs = gr.update(choices=_runs(networks))
            return markup.title(networks), runs, runs, markup.scores(networks)

        @_in_words("", *(gr.skip() for _ in chosen.of_run))
        def follow(key: str | None) -> Answer:
            found = networks.run(key)
            offered = controls.offered(networks, found)
            settings = (gr.update(**offered[name]) for name in chosen.of_run)
            return markup.card(networks, found), markup.scores_of(networks, found), *settings

        blocks.load(look, None, [heading, run, other, of_all], **AT_ONCE)
        gr.on([blocks.load, run.change], follow, run, [card, of_run, *chosen.of_run.values()], **AT_ONCE)
    return blocks


def _theme() -> gr.themes.Base:
    light, dark = ("#f0f7fc", "#dcecf7", "#bcdcf0", "#8ec5e6", "#4fa3d6"), ("#00629b", "#005383", "#00456d", "#003858")
    blue = gr.themes.Color(*light, PALETTE[0], PALETTE[0], *dark, name="house")
    return gr.themes.Default(primary_hue=blue, neutral_hue="zinc", font=LETTERS, font_mono=DIGITS, radius_size="sm")


# --- the controls -------------------------------------------------------------------------------------------------


class _Controls:
    """How the run is sampled: the column that the tabs share."""

    def __init__(self, run: gr.Dropdown) -> None:
        self.of_run = {  # by their names in `controls.offered`
            "epoch": gr.Dropdown(label="Checkpoint (epochs trained)", elem_id="epoch"),
            "ema": gr.Radio(label="EMA track (half-life in images)", elem_id="ema"),
            "sampler": gr.Dropdown(label="Sampler (options: ddim:eta=0.5)", allow_custom_value=True, elem_id="sampler"),
            "steps": _number(1, 2, 1, "Steps (network calls)", "steps"),
            "label": gr.Dropdown(label="Class", visible=False, elem_id="class"),
            "weight": gr.Slider(
                -1,
                MOST_GUIDANCE,
                step=0.1,
                label="Guidance weight (0: none)",
                buttons=[],
                visible=False,
                elem_id="guidance",
            ),
        }
        seed = gr.Number(0, precision=0, label="Seed of the noise", elem_id="seed")
        self.said = [run, *self.of_run.values(), seed]  # inputs of an event, in the order of `Said`


def _number(low: int, high: int, value: int, label: str, elem_id: str) -> gr.Slider:
    return gr.Slider(low, high, value=value, step=1, precision=0, label=label, buttons=[], elem_id=elem_id)


def _runs(networks: Networks) -> list[tuple[str, str]]:
    return [(markup.run_label(networks, run), run.key) for run in networks.runs]


# --- the tabs -----------------------------------------------------------------------------------------------------


def _draw_tab(networks: Networks, chosen: _Controls) -> None:
    with gr.Row():
        count = _number(1, MOST_IMAGES, 32, "Images", "count")
        go = gr.Button("Draw", variant="primary", elem_id="draw")
    said = gr.HTML(elem_id="said")
    kept = gr.State()
    grid = gr.HTML(elem_id="grid")
    with gr.Column(visible=False) as way:
        with gr.Row():
            moment = _number(0, 1, 0, "The way, from noise to images", "moment")
            which = _number(1, 2, 1, "One image alone, by number", "which")
        shown = gr.Radio([X_T, X_0], value=X_T, show_label=False, container=False, elem_id="shown")
        strip = gr.HTML(elem_id="strip")

    @_in_words(None, "", gr.skip(), gr.skip(), gr.skip(), "", gr.update(visible=False))
    def draw(progress: gr.Progress = PROGRESS, *values: Any) -> Answer:
        number, *rest = values
        asked = controls.read(networks, Said(*rest), number)
        drawn = drawing.watch(asked.network, asked.wish, _heard(progress, asked))
        last = len(drawn.ts) - 1
        return (
            _told(asked, drawn.cost),
            drawn,
            markup.moment(drawn, last, of_x_0=False),
            gr.update(maximum=last, value=last),
            gr.update(value=X_T, visible=drawn.x_0 is not None),
            gr.update(maximum=max(2, number), value=1),
            markup.strip(drawn, 0),
            gr.update(visible=True),
        )

    def look(drawn: Drawn, place: int, view: str) -> str:
        return markup.moment(drawn, place, of_x_0=view == X_0)

    def follow(drawn: Drawn, number: int) -> str:
        return markup.strip(drawn, min(number, len(drawn.images)) - 1)

    outputs = [said, kept, grid, moment, shown, which, strip, way]
    go.click(draw, [count, *chosen.said], outputs, show_progress_on=said, **INSIDE)
    gr.on([moment.input, shown.input], look, [kept, moment, shown], grid, **AT_ONCE)
    which.input(follow, [kept, which], strip, **AT_ONCE)


def _between_tab(networks: Networks, chosen: _Controls) -> None:
    with gr.Row():
        other = gr.Number(1, precision=0, label="The other seed", elem_id="other-seed")
        rows = _number(1, MOST_ROWS, 4, "Rows", "rows")
        frames = _number(2, MOST_FRAMES, 9, "Images a row", "frames")
    go = gr.Button("Draw between", variant="primary", elem_id="draw-between")
    said = gr.HTML(elem_id="said-between")
    picture = gr.HTML(elem_id="between")

    @_in_words("")
    def draw(progress: gr.Progress = PROGRESS, *values: Any) -> Answer:
        end, count, across, *rest = values
        asked = controls.read(networks, replace(Said(*rest), sampler=spelled(DDIM)), count)
        end = controls.given(end, "the other seed, a whole number")
        images, spent = drawing.between(asked.network, asked.wish, end, across, _heard(progress, asked, count))
        how = "Latents on the great arc between those of the two seeds; always by ddim, which adds no noise on the way."
        return _told(asked, spent, how), markup.rows_between(images, asked.wish.seed, end)

    go.click(draw, [other, rows, frames, *chosen.said], [said, picture], show_progress_on=said, **INSIDE)


def _two_runs_tab(networks: Networks, chosen: _Controls, second: str, page: gr.Blocks) -> gr.Dropdown:
    """Returns the list of runs that the second is chosen from; `second` is the key that it begins with."""
    run = gr.Dropdown(_runs(networks), value=second, label="The other run", elem_id="other-run")
    with gr.Row():
        epoch = gr.Dropdown(label="Its checkpoint (epochs)", elem_id="other-epoch")
        count = _number(1, MOST_IMAGES, 32, "Images", "count-two")
        go = gr.Button("Draw both", variant="primary", elem_id="draw-two")
    said = gr.HTML(elem_id="said-two")
    picture = gr.HTML(elem_id="two")

    @_in_words(gr.skip())
    def of_run(key: str | None) -> Answer:
        return "", gr.update(**controls.checkpoints(networks, networks.run(key)))

    @_in_words("")
    def draw(progress: gr.Progress = PROGRESS, *values: Any) -> Answer:
        key, at, number, *rest = values
        asked = controls.read(networks, Said(*rest), number)
        both = [asked, controls.beside(networks, asked, key, at)]
        drawn = [drawing.watch(each.network, each.wish, _heard(progress, each)) for each in both]
        more = [f"{markup.score_of(each.scored)} {markup.cost(it.cost)}." for each, it in zip(both, drawn, strict=True)]
        names = [each.words() for each in both]
        same = "Both from the same noise, by the same sampler and class."
        return markup.told(same), markup.pair(list(zip(drawn, names, more, strict=True)))

    gr.on([page.load, run.change], of_run, run, [said, epoch], **AT_ONCE)
    go.click(draw, [run, epoch, count, *chosen.said], [said, picture], show_progress_on=said, **INSIDE)
    return run


def _in_words(*blank: Any) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """What a handler refuses appears as its first output; `blank` is what the others show then."""

    def guard(handler: Callable[..., Answer]) -> Callable[..., Answer]:
        @wraps(handler)
        def guarded(*values: Any) -> Answer:
            try:
                return handler(*values)
            except DiffsearchError as error:
                return markup.wrong(str(error)), *blank
            except (MemoryError, torch.OutOfMemoryError):
                return markup.wrong("the memory isn't enough for that: ask for fewer images."), *blank
            except OSError as error:
                return markup.wrong(f"the store can't be read: {error}"), *blank

        return guarded

    return guard


def _told(asked: Asked, spent: Cost, *more: str) -> str:
    """What was drawn, what it cost, and how images drawn just so scored."""
    return markup.told(f"{asked.words()}.", f"{markup.cost(spent)}.", *(more or [markup.score_of(asked.scored)]))


def _heard(progress: gr.Progress, asked: Asked, batches: int = 1) -> Heard:
    """Moves the bar with the calls of the network, of which guidance takes two a step."""
    point = asked.wish.point
    calls = (point.steps or asked.run.settings.steps) * (2 if point.guidance else 1) * batches
    return lambda call: progress((min(call, calls), calls), unit="network calls")
