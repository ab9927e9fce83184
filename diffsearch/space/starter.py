"""The study file that `diffsearch init ./photos` writes: complete, commented, and sized to the images that it saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from diffsearch.space.settings import show_count

_SMALLEST_FID = 2_049  # images of each side that a Fréchet distance on Inception's 2,048 features needs
_EPOCHS = (5, 15, 45)


class FolderFacts(Protocol):
    """What the data room finds in a folder of images."""

    @property
    def path(self) -> Path: ...
    @property
    def images(self) -> int: ...
    @property
    def suggested_size(self) -> int: ...  # pixels a side
    @property
    def grey(self) -> bool: ...
    @property
    def classes(self) -> tuple[str, ...]: ...  # names of the sub-folders, if they are classes


def starter_text(facts: FolderFacts, name: str = "my_images") -> str:
    """A study file for that folder, which loads without an error.

    Args:
        facts: of the folder.
        name: of the study.
    """
    epoch = max(100, round(facts.images, -2))
    short, long = epoch, 10 * epoch
    objective = "fid" if facts.images >= 2 * _SMALLEST_FID else "kid"
    samples = 2500 if objective == "fid" else 1000
    classes = f", {len(facts.classes)} classes" if facts.classes else ""
    why = "2,048 features need more images than that" if objective == "fid" else "unbiased, so fit for few images"
    batch = [32, 64] if facts.images >= 1000 else [16, 32]
    return f"""\
# A study of {facts.images:,} images{classes}, written by `diffsearch init`.
# A list where a single value belongs is an axis.
#
#   diffsearch plan {name}.yaml        what it would cost here
#   diffsearch run  {name}.yaml        run it; the same command goes on after a stop, or with more runs

name: {name}
seed: 0

data:
  dataset: folder
  path: {json.dumps(str(facts.path).replace("$", "$$"), ensure_ascii=False)}
  size: {facts.suggested_size}                        # pixels a side; the cost goes with its square
  mode: {"grey" if facts.grey else "rgb"}

model:
  kind: unet
  channels: [[16, 32, 64], [32, 64, 128]]     # of each resolution, finest first

diffusion:
  steps: [50, 200]                # T: into how many steps training divides the noise
  noise_process: [cosine-squared, linear-noise]

training:
  loss: [x0-l2, v-l2]             # what the network predicts, and the norm
  batch_size: {batch}
  learning_rate: {{log: [1e-4, 2e-3]}}            # a range, searched on a log scale
  epochs: {list(_EPOCHS)}            # milestones: points along one run, never runs of their own
  ema_half_life: [0, {show_count(short)}, {show_count(long)}]     # averages of the weights kept side by side, in images

sampling:
  sampler: ddim
  steps: 25                       # network calls an image
  ema: {show_count(short)}

evaluation:
  objective: {objective}                  # {why}
  samples: {samples}
  reference: train                # the images themselves; `test` where some are held out

search:
  algorithm: tpe
  runs: 20
  stopping: {{rule: asha, reduction: 3}}          # about the best third goes on from each milestone
  finalists: {{top: 2, repeats: 3, sampling: {{ema: [0, {show_count(short)}, {show_count(long)}]}}}}

budget: {{wall: 8h}}                # whichever of runs and budget comes first
resources: auto                   # what this machine has
"""
