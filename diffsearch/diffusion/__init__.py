"""The diffusion maths: noise processes, what a network learns, and how samples are drawn. No files, no globals."""

from diffsearch.diffusion.denoiser import Denoiser
from diffsearch.diffusion.noising import NoisedBatch, noise_batch, noising_strip
from diffsearch.diffusion.sampling import check_sampling, sample
from diffsearch.diffusion.schedule import Schedule, timesteps

__all__ = [
    "Denoiser",
    "NoisedBatch",
    "Schedule",
    "check_sampling",
    "noise_batch",
    "noising_strip",
    "sample",
    "timesteps",
]
