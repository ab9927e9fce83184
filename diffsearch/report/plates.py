"""From the plates of an album to figures: laid out, labelled, and with captions made of their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from diffsearch.report.album import Album
from diffsearch.report.contact import Row, contact_sheet
from diffsearch.report.figures import Drawn
from diffsearch.report.grids import share
from diffsearch.report.phrases import listing, number, several
from diffsearch.report.sittings import Plate

ACROSS = 8  # drawn images in one row, their neighbours below


def figures(album: Album) -> Iterator[Drawn]:
    """Every figure of an album, in the order of the report."""
    for name, made in FIGURES.items():
        if name in album.plates:
            yield from made(album.plates[name])


def trajectory(plate: Plate) -> Iterator[Drawn]:
    ts, x_t, x_0 = plate.facts["ts"], plate.images["x_t"], plate.images.get("x_0")
    rows = []
    for image in range(x_t.shape[1]):
        rows.append(Row(list(x_t[:, image]), "$x_t$"))
        if x_0 is not None:
            rows.append(Row(list(x_0[:, image]), r"$\hat{x}_0$", joined=True))
    what = f"{several(x_t.shape[1], 'draw')} on the way from noise to image, t = {ts[0]} to 0"
    caption = f"{what}, by {_how(plate)}: what the sampler holds, x_t"
    if x_0 is None:
        caption += "; a network that predicts a mean directly holds no estimate of the image on the way."
    else:
        half = len(ts) // 2
        caption += (
            f", and below it the image that the network sees in it, x̂_0. At t = {ts[half]} that lies "
            f"{number(plate.facts['off'][half])} grey levels of 255 (root mean square) off the image that comes of it."
        )
    yield Drawn("trajectory", contact_sheet(rows, [f"t = {t}" for t in ts]), f"{what}.", caption)


def classes(plate: Plate) -> Iterator[Drawn]:
    rows, names, total = plate.images["rows"], plate.facts["classes"], plate.facts["of_classes"]
    some = "" if len(names) == total else f"{len(names)} of {total} "
    text = f"Draws by class, {some}from above: {listing(names)}"
    caption = f"{text}; the same noise along each column, by {_how(plate)}{_guided(plate)}."
    sheet = contact_sheet([Row(list(row), name) for row, name in zip(rows, names, strict=True)])
    yield Drawn("classes", sheet, f"{text}.", caption)


def interpolation(plate: Plate) -> Iterator[Drawn]:
    arcs, lines = plate.images["slerp"], plate.images["lerp"]
    rows = []
    for arc, line in zip(arcs, lines, strict=True):
        rows += [Row(list(arc), "arc"), Row(list(line), "line", joined=True)]
    norms = listing([number(norm) for norm in plate.facts["norms"]])
    pairs = several(len(arcs), "pair")
    what = f"Images of the latents between two, {pairs} of them, above along the arc, below along the line"
    caption = (
        f"{what}, by {_ddim(plate)}. Half way the line's latent has {norms} of the arc's norm: less than any x_T that "
        "the network was trained on."
    )
    alt = f"{what}; half way the line's norm is {norms} of the arc's."
    yield Drawn("interpolation", contact_sheet(rows, _shares(arcs.shape[1])), alt, caption)


def between_classes(plate: Plate) -> Iterator[Drawn]:
    rows, pairs = plate.images["rows"], plate.facts["pairs"]
    words = listing([f"{first} to {last}" for first, last in pairs])
    text = f"One latent under labels that go evenly from one class to another: {words}"
    caption = f"{text}; by {_ddim(plate)}{_guided(plate)}."
    lined = [Row(list(row), f"{first} →\n{last}") for row, (first, last) in zip(rows, pairs, strict=True)]
    yield Drawn("between-classes", contact_sheet(lined, _shares(rows.shape[1])), f"{text}.", caption)


def reconstruction(plate: Plate) -> Iterator[Drawn]:
    facts, real = plate.facts, plate.images["real"]
    parts = list(
        zip(plate.images["noised"], plate.images["images"], facts["grey_levels"], facts["alpha_bar"], strict=True)
    )
    rows = []
    for image in range(len(real)):
        images, notes = [real[image]], [""]
        for noised, back, levels, alpha_bar in parts:
            images += [noised[image], back[image]]
            notes += [f"ᾱ {share(alpha_bar)}", f"off by {number(levels[image])}"]
        rows.append(Row(images, notes=notes))
    heads = ["real", *(head for t in facts["ts"] for head in (f"t = {t}", "back"))]
    ts = listing([str(t) for t in facts["ts"]])
    levels, own = (_means(facts[name]) for name in ("grey_levels", "errors"))
    images_of = several(len(real), f"{facts['which']} image")
    what = f"{images_of} noised part of the way and denoised from there by {facts['sampler']}"
    off = f"from t = {ts} they come back {levels} grey levels of 255 off on average"
    caption = f"{what}: {off} ({own} in the network's own units), root mean square over the pixels."
    yield Drawn("reconstruction", contact_sheet(rows, heads), f"{what}; {off}.", caption)


def neighbours(plate: Plate) -> Iterator[Drawn]:
    """The best of what was drawn, where something says what is good, and what lies nearest to a training image."""
    facts = plate.facts
    some = "" if facts["searched"] == facts["training"] else f"{facts['searched']:,} of "
    trained = f"{some}{facts['training']:,} training images"
    drawn = f"{several(facts['drawn'], 'draw')} by {_how(plate)}"
    judge = f"distance of their {facts['extractor']} features"
    if "picked" in facts:
        what = (
            f"The best {len(facts['picked'])} of {drawn}, picked by the {judge} to the nearest of {facts['unseen']:,}"
        )
        text = f"{what} real images that weren't trained on"
        caption = f"{text}, best first; below each the nearest of {trained}, under both the distance."
        yield Drawn("best-of", contact_sheet(_pairs(plate, "picked", "to_real")), f"{text}.", caption)
    what = f"The {len(facts['suspects'])} of {drawn} that lie nearest to one of {trained}, by the {judge}"
    caption = f"{what}, above that image; "
    if "memorised" in facts:
        caption += (
            f"{100 * facts['memorised']:.0f} % of all draws lie nearer to one than half of the unseen real images do "
            f"({number(facts['usual'])}): about 50 % where draws are as new as those, near 100 % where they are "
            "copies, near 0 % where they are like no real image."
        )
    else:
        caption += "there are no unseen real images here to say how near is too near."
    yield Drawn("neighbours", contact_sheet(_pairs(plate, "suspects")), f"{what}.", caption)


def _pairs(plate: Plate, name: str, second: str = "") -> list[Row]:
    """Drawn images in rows, each above the training image nearest to it, with the distances."""
    drawn, near, distances = plate.images[name], plate.images[f"{name}_near"], plate.facts[name]
    rows = []
    for start in range(0, len(drawn), ACROSS):
        part = slice(start, start + ACROSS)
        notes = [number(distance) for distance in plate.facts[second][part]] if second else []
        rows.append(Row(list(drawn[part]), "drawn", notes))
        rows.append(Row(list(near[part]), "training", [number(distance) for distance in distances[part]], joined=True))
    return rows


def _how(plate: Plate) -> str:
    calls, every = plate.facts["calls"], plate.facts["of"]
    fewer = f" instead of {every}" if calls < every else ""
    return f"{plate.facts['sampler']} ({several(calls, 'network call')} each{fewer})"


def _ddim(plate: Plate) -> str:
    return f"ddim without fresh noise ({several(plate.facts['calls'], 'network call')} each)"


def _guided(plate: Plate) -> str:
    return f", guidance w {number(plate.facts['guidance'])}" if plate.facts["guidance"] else ""


def _means(rows: list[list[float]]) -> str:
    return listing([number(float(np.mean(row))) for row in rows])


def _shares(count: int) -> list[str]:
    return [f"{100 * part:.0f} %" for part in np.linspace(0, 1, count)]


FIGURES: dict[str, Callable[[Plate], Iterator[Drawn]]] = {
    "trajectory": trajectory,
    "classes": classes,
    "interpolation": interpolation,
    "between-classes": between_classes,
    "reconstruction": reconstruction,
    "neighbours": neighbours,
}
