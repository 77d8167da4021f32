"""A volume of 192^3, 8 coils and 5 coefficients on one H200, by measured parts and arithmetic: no GPU is needed.

Each part is measured on one CPU core on a small problem, scaled to the volume, and divided by how much faster the GPU
is at what limits that part: memory traffic for FFTs, mixing and matching, multiplications for the denoiser's
convolutions. What the core reaches is measured; of the GPU's data sheet half the bandwidth and a tenth of the
arithmetic are taken. It is an estimate, not a timing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from common.results import Row, measured, target

from mrcore.denoisers.files import shipped_denoiser
from mrcore.denoisers.trained import sliced_denoiser
from mrcore.random import seeded
from recon.encoding.toeplitz import KernelNormalOp
from recon.methods.mri2qmap import Mri2QmapSettings

TABLE = "Estimate: MRI2Qmap of 192^3, 8 coils, 5 coefficients on one H200"
MATRIX, N_COILS, RANK, SMALL = 192, 8, 5, 48
HEAD_SHARE = 0.35  # of the voxels of the volume
H200_BYTES_PER_S, H200_FLOPS = 4.8e12, 67e12  # NVIDIA's data sheet: HBM3e, float32 without tensor cores
REACHED_BANDWIDTH, REACHED_FLOPS = 0.5, 0.1
LIMIT_S = 120.0


def estimated_rows(voxels_matched_per_s: float, n_repeats: int) -> tuple[list[Row], list[Row]]:
    """Return what each part of MRI2Qmap would take; matching a voxel takes what it took on the CPU."""
    settings = Mri2QmapSettings()
    by_memory, by_arithmetic = _gains(n_repeats)
    n_voxels = MATRIX**3
    padding = math.log2(2 * MATRIX) / math.log2(2 * SMALL)  # an FFT grows as n log n
    normal_s = _normal_s(n_repeats) * (MATRIX / SMALL) ** 3 * padding * N_COILS
    match_s = HEAD_SHARE * n_voxels / voxels_matched_per_s
    denoise_s = _slice_s(n_repeats) * MATRIX * 3 * len(settings.contrasts)  # along three axes
    # A step solves, and computes its misfit at the price of one more; the start solves as well.
    n_normal = settings.n_start + settings.n_iter * (settings.n_cg + 1)
    parts = {
        "normal operator": (normal_s, n_normal, by_memory),
        "denoiser, 2-D along three axes": (denoise_s, settings.n_iter, by_arithmetic),
        "matching": (match_s, settings.n_iter, by_memory),
    }
    rows: list[Row] = [
        {
            "table": TABLE,
            "part": name,
            "CPU seconds of one core, once": seconds,
            "times": times,
            "gain of the GPU": gain,
            "seconds on the GPU": seconds * times / gain,
        }
        for name, (seconds, times, gain) in parts.items()
    ]
    total = sum(seconds * times / gain for seconds, times, gain in parts.values())
    name = "seconds of 192^3, 8 coils, K = 5 on one H200, estimated from measured parts, not timed"
    return rows, [target(name, total, at_most=LIMIT_S)]


def _gains(n_repeats: int) -> tuple[float, float]:
    """Return how many times the GPU outdoes the core in memory traffic and in arithmetic."""
    source, sink = torch.ones(2**26), torch.empty(2**26)  # 256 MiB each
    bytes_per_s = 2 * source.numel() * source.element_size() / _least_s(lambda: sink.copy_(source), n_repeats)
    matrix = torch.ones(1024, 1024)
    flops = 2 * 1024**3 / _least_s(lambda: matrix @ matrix, n_repeats)
    return REACHED_BANDWIDTH * H200_BYTES_PER_S / bytes_per_s, REACHED_FLOPS * H200_FLOPS / flops


def _normal_s(n_repeats: int) -> float:
    shape, generator = (SMALL,) * 3, seeded(0, "small volume")
    kernel = torch.rand(RANK * (RANK + 1) // 2, *(2 * n for n in shape), generator=generator)
    images = torch.randn(RANK, *shape, dtype=torch.complex64, generator=generator)
    normal = KernelNormalOp(kernel, torch.ones(1, *shape, dtype=torch.complex64))
    return _least_s(lambda: normal(images), n_repeats)


def _slice_s(n_repeats: int) -> float:
    denoise = sliced_denoiser(shipped_denoiser(2))
    image = torch.rand(MATRIX, MATRIX, 1, generator=seeded(0, "slice"))
    return _least_s(lambda: denoise(image, 0.05), n_repeats)


def _least_s(run: Callable[[], object], n_repeats: int) -> float:
    run()
    seconds = []
    for _ in range(n_repeats):
        with measured() as cost:
            run()
        seconds.append(cost.cpu_seconds)
    return min(seconds)
