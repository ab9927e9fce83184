"""Contact sheets: pixels stay pixels, words stay in their places, large images make a larger sheet."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from diffsearch.report.contact import Row, contact_sheet


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def noise(count: int, *shape: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(30, 220, (count, *shape), dtype=np.uint8))


def test_every_pixel_is_a_square_of_its_own_colour() -> None:
    (image,) = noise(1, 3, 5, 4)
    sheet = picture(contact_sheet([Row([image])]))
    inner = np.argwhere((sheet != 255).any(2))
    (top, left), (bottom, right) = inner.min(0), inner.max(0) + 1
    assert (bottom - top, right - left) == (5 * 16, 4 * 16)
    expected = image.transpose(1, 2, 0).repeat(16, axis=0).repeat(16, axis=1)
    np.testing.assert_array_equal(sheet[top:bottom, left:right], expected)


def test_rows_fill_the_width_and_empty_places_stay_white() -> None:
    images = noise(9, 1, 28, 28)
    sheet = picture(contact_sheet([Row(images), Row([None, *images[1:]])]))
    assert sheet.shape[1] == 1400
    lower = sheet[sheet.shape[0] * 3 // 4]
    assert (lower[:110] == 255).all() and (lower[300:] != 255).any()
    inked = np.flatnonzero((sheet != 255).any((0, 2)))
    assert inked[-1] > 1150


def test_words_take_room_of_their_own() -> None:
    images = noise(4, 1, 8, 8)
    bare = picture(contact_sheet([Row(images)]))
    worded = picture(contact_sheet([Row(images, "label", ["note"] * 4)], ["t = 1"] * 4))
    assert worded.shape[0] > bare.shape[0] + 40
    left = np.flatnonzero((worded != 255).any((0, 2)))[0]
    assert left < 5  # the label begins at the edge, and no image lies over it
    columns = worded[worded.shape[0] // 2, :60]
    assert len(np.unique(columns)) < 200


def test_a_sheet_of_large_images_is_larger() -> None:
    sheet = picture(contact_sheet([Row(noise(9, 3, 20, 256), "a label")], ["head"]))
    assert sheet.shape[1] > 9 * 256


def test_rows_that_belong_together_lie_closer() -> None:
    images = noise(2, 1, 6, 6)
    apart = picture(contact_sheet([Row(images), Row(images)]))
    joined = picture(contact_sheet([Row(images), Row(images, joined=True)]))
    assert joined.shape[0] < apart.shape[0]
