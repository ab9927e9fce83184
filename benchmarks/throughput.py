"""Images trained a second: concurrent one-thread workers against a hand-written loop that has all cores."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import replace

import torch
from torch.nn.functional import mse_loss

from diffsearch import registry
from diffsearch.data.datasets import ImageData
from diffsearch.data.datasets import load as load_data
from diffsearch.space.axes import settings_at
from diffsearch.space.load import loads
from diffsearch.space.settings import Choice, RunSettings
from diffsearch.training.loop import start, train

IMAGES = 1280
NETWORKS = {(16, 32, 64): 128, (8, 16, 32): 32, (4, 8, 16): 32}  # channels → batch size


def few_images() -> ImageData:
    data = load_data(Choice("mnist-5k"))
    return replace(data, train=data.train[:IMAGES])


def settings(channels: tuple[int, ...], batch: int) -> RunSettings:
    space = f"""
data: {{dataset: mnist-5k}}
model: {{kind: unet, channels: {list(channels)}}}
diffusion: {{steps: 15, noise_process: linear-noise}}
training: {{loss: x0-l2, batch_size: {batch}, epochs: [1], ema_half_life: [0, 2k, 8k]}}
evaluation: {{objective: fd-digits, samples: 100}}
"""
    return settings_at(loads(space), {}, 0)


def worker(channels: tuple[int, ...], batch: int, barrier: object, results: object, epochs: int) -> None:
    """What a worker does, with one thread: `epochs` epochs by the real loop, after one to warm up."""
    torch.set_num_threads(1)
    data = few_images()
    state = start(settings(channels, batch), "throughput", data, torch.device("cpu"))
    next(iter(train(state, data, 1)))
    barrier.wait()  # type: ignore[attr-defined]
    began = time.perf_counter()
    for _ in train(state, data, 1 + epochs):
        pass
    results.put(epochs * IMAGES / (time.perf_counter() - began))  # type: ignore[attr-defined]


def workers_per_s(channels: tuple[int, ...], batch: int, count: int, epochs: int = 3) -> float:
    """Images a second of `count` workers together, all busy."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    given = channels, batch, barrier, results, epochs
    processes = [context.Process(target=worker, args=given) for _ in range(count)]
    for process in processes:
        process.start()
    rates = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return float(sum(rates))


def by_hand_per_s(
    channels: tuple[int, ...], batch: int, precision: torch.dtype, threads: int, epochs: int = 3
) -> float:
    """Images a second of the loop that one would write in a notebook: the same U-Net, all cores, one process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images = torch.from_numpy(few_images().train.copy()).float() / 127.5 - 1
    network = registry.model.build("unet", (1, 28, 28), 15, channels=channels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    alpha_bar = registry.noise_process.build("linear-noise", 15).float()
    rates = []
    for _ in range(1 + epochs):
        began = time.perf_counter()
        for index in torch.split(torch.randperm(len(images)), batch):
            x_0, t = images[index], torch.randint(1, 16, (len(index),))
            a = alpha_bar[t][:, None, None, None]
            x_t = a.sqrt() * x_0 + (1 - a).sqrt() * torch.randn_like(x_0)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                loss = mse_loss(network(x_t, t), x_0)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        rates.append(len(images) / (time.perf_counter() - began))
    return float(sum(rates[1:]) / epochs)


def rows() -> list[tuple[str, str]]:
    from diffsearch.training.precision import measure

    cores = len(os.sched_getaffinity(0))
    measured = measure(torch.device("cpu"))
    found = []
    for channels, batch in NETWORKS.items():
        ours = workers_per_s(channels, batch, cores)
        by_hand = by_hand_per_s(channels, batch, torch.float32, cores)
        by_hand_bf16 = by_hand_per_s(channels, batch, torch.bfloat16, cores, epochs=1)
        network = f"{channels}, batch {batch}"
        found += [
            (f"{network}: {cores} workers of one thread, {measured} as measured here", f"{ours:.0f} images/s together"),
            (f"{network}: by hand, {cores} threads, fp32", f"{by_hand:.0f} images/s"),
            (f"{network}: by hand, {cores} threads, bf16", f"{by_hand_bf16:.0f} images/s"),
            (f"{network}: workers against fp32 by hand", f"{ours / by_hand:.2f}× (target ≥ 2)"),
            (f"{network}: workers against bf16 by hand", f"{ours / by_hand_bf16:.2f}×"),
        ]
    return found
