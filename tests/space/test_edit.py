"""Changes to a study file's text: what changes, what stays, and where the reasons land."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffsearch.space.edit import WIDTH, Change, rewrite
from diffsearch.space.lines import Problems, parse

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [
    *(ROOT / "search_spaces" / name for name in ("mnist_unet.yaml", "mnist_report_002.yaml")),
    ROOT / "experiments/conditional_digits/study.yaml",
]

FILE = """\
# my study
name: x        # a name
training:
  loss:        # which
    - x0-l2    # the plain one
    - v-l2
  # between
  batch_size: [32, 64, 2k]     # images
sampling:
  guidance_weight: {values: [0, 1e-1, 2], when: {training.conditioning: class}}
search: {algorithm: {name: tpe, startup_trials: 5}, runs: 20}
"""


def plain(text: str):
    node = parse(text, Problems())
    assert node is not None
    return node.plain


def edited(*changes: tuple[str, object], text: str = FILE) -> str:
    return rewrite(text, [Change(path, value, f"{path} since 3 %") for path, value in changes], "next:")


def test_a_value_changes_and_its_reason_stands_above_it_in_its_column():
    lines = edited(("training.batch_size", [64, "2k", 4000])).splitlines()
    place = lines.index("  # next: training.batch_size since 3 %")
    assert lines[place + 1] == "  batch_size: [64, 2k, 4000]  # images"
    kept = [line for line in lines if "batch_size" not in line]
    assert kept == [line for line in FILE.splitlines() if "batch_size" not in line]


def test_a_block_list_becomes_one_line_and_the_comment_of_its_key_stays():
    text = edited(("training.loss", "v-l2"))
    assert "  loss: v-l2   # which\n  # between\n" in text and "plain one" not in text


def test_conditions_and_spelling_stay():
    text = edited(("sampling.guidance_weight", [0, 0.1, 4]))
    assert "  guidance_weight: {values: [0, 1e-1, 4], when: {training.conditioning: class}}\n" in text


def test_new_keys_and_sections():
    text = edited(("keep", "best"), ("search.stopping", "asha"), ("training.epochs", [1, 3]), ("budget.wall", "3m"))
    assert text.index("keep: best") < text.index("name: x")
    assert "search: {algorithm: {name: tpe, startup_trials: 5}, runs: 20, stopping: asha}" in text
    assert "# images\n  # next: training.epochs since 3 %\n  epochs: [1, 3]\nsampling:" in text
    assert text.endswith("\n\nbudget:\n  # next: budget.wall since 3 %\n  wall: 3m\n")


def test_long_reasons_are_wrapped_and_no_number_is_parted_from_its_percent():
    why = " ".join(f"{n} %" for n in range(200))
    text = rewrite(FILE, [Change("training.loss", "v-l2", why)], "next:")
    comment = [line for line in text.splitlines() if line.startswith("  # ") and "%" in line]
    assert len(comment) > 5 and all(len(line) <= WIDTH and line.endswith("%") for line in comment)
    assert plain(text)["training"]["loss"] == "v-l2"


def test_a_merged_key_is_overridden_in_its_section():
    text = "name: x\nmodel: &m {kind: unet}\nsampling: {<<: *m, steps: 3}\n"
    assert "sampling: {<<: *m, steps: 3, kind: dense}" in edited(("sampling.kind", "dense"), text=text)


@pytest.mark.parametrize("path", ["sampling.steps", "diffusion.steps"])
def test_what_anchors_share_changes_in_one_place_alone(path: str):
    text = "name: x\nsampling:\n  steps: &s 3\ndiffusion: {steps: *s, terminal: clamp}\n"
    wanted = plain(text)
    wanted[path.split(".")[0]]["steps"] = 5
    found = edited((path, 5), text=text)
    assert plain(found) == wanted and f"# next: {path} since 3 %\n" in found


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_axis_of_a_shipped_file_can_be_changed_in_its_place(path: Path):
    text = path.read_text()
    whole = plain(text)
    keys = [
        (s, k)
        for s, inner in whole.items()
        if isinstance(inner, dict)
        for k in inner
        if isinstance(inner[k], list | dict)
    ]
    assert keys
    for section, key in keys:
        old = whole[section][key]
        new = old[:1] if isinstance(old, list) else "changed"
        held = old if isinstance(old, dict) and set(old) - {"when"} in ({"value"}, {"values"}) else None
        found = edited((f"{section}.{key}", new), text=text)
        word = next(iter(set(held) - {"when"})) if held else ""
        wanted = {**held, word: new} if held else new
        assert plain(found) == {**whole, section: {**whole[section], key: wanted}}
        gone = [line for line in text.splitlines() if line not in found.splitlines()]
        assert len(gone) <= 1 + len(str(old)) // 12, "only the key's own lines change"
