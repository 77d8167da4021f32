# %% [markdown]
# # T1, T2 and PD from the raw data of a fingerprint
#
# `quantify` takes k-space samples of a magnetic resonance fingerprint and returns quantitative maps with their least
# standard deviations. A prior comes in through weighted images that the maps imply: a net that was trained on ordinary
# weighted images only denoises them, so no fingerprint was ever needed for training.

# %%
import time

import numpy as np
import torch

from mrcore import Grid, cropped, digital_head
from mrcore.signals import MrfSequence
from mrkit import QuantifySettings, least_squares, quantify, weighted_volume
from recon import Contrast, loop_coil_maps, simulate_raw, spiral

torch.set_num_threads(1)
started = time.perf_counter()

# %% [markdown]
# ## A scan
#
# So that the result can be checked, the raw data are simulated: one slice of a digital head, 4 mm, eight coils, 200
# frames of which each has one spiral arm of 40. Every voxel has its own signal from the phase graph; no subspace is in
# the simulation. With your own data: `raw = read_ismrmrd(Path("raw.h5"), sequence=read_sequence(Path("fisp.csv")))`.

# %%
affine = np.diag([4.0, 4.0, 6.0, 1.0])
affine[:3, 3] = (-94, -94, -100)
head = digital_head(Grid((48, 48, 34), affine), seed=1)
grid = cropped(head.grid, (0, 0, 19), (48, 48, 1))
t1_s, t2_s, pd = (values[:, :, 19:20].contiguous() for values in (head.t1_s, head.t2_s, head.pd))
brain = {name: head.tissues.of(name)[:, :, 19:20] > 0.9 for name in ("GM", "WM")}

sequence = MrfSequence(
    flip_deg=10 + 50 * torch.sin(torch.linspace(0, 9.4, 200)).abs(),
    tr_s=torch.tensor(0.012),
    te_s=torch.tensor(0.002),
    ti_s=0.02,
)
trajectory = spiral(grid, sequence.n_frames, n_interleaves=40)
coils = loop_coil_maps(grid, 8)
raw = simulate_raw(t1_s, t2_s, pd.to(torch.complex64), sequence, trajectory, coils, snr=15.0, n_noise=1000, seed=1)
print(f"{raw.n_coils} coils, {raw.n_samples} samples in {raw.n_frames} frames, grid {raw.grid.shape}")

# %% [markdown]
# ## Maps
#
# Noise samples whiten the channels, coil maps come from the data, and signals of the sequence are computed for a grid
# of T1 and T2; the maps lie between its points. Methods are values: `least_squares()` is a plain baseline, MRI2Qmap the
# usual one.

# %%
settings = QuantifySettings(t1_range_s=(0.2, 5.0), t2_range_s=(0.02, 2.0))
plain = quantify(raw, method=least_squares(), settings=settings)
result = quantify(raw, settings=settings)
print(f"{result.n_iter} steps; {result.message}")
for note in result.notes:
    print("note:", note)

# %% [markdown]
# ## Against the truth
#
# Mean absolute error where a voxel holds at least 90 % of one tissue, in per cent.

# %%
errors = {}
for name, done in (("least squares", plain), ("MRI2Qmap", result)):
    for tissue, core in brain.items():
        for quantity, truth in (("t1_s", t1_s), ("t2_s", t2_s)):
            found = getattr(done, quantity).data
            errors[name, tissue, quantity] = 100 * float(((found - truth).abs() / truth)[core].mean())
    print(f"{name:14s}", {f"{t} {q[:2].upper()}": round(e, 1) for (n, t, q), e in errors.items() if n == name})

# %% [markdown]
# ## Uncertainty and computed images
#
# The sd are the least that the noise allows without a prior (Cramer-Rao). Any weighted image follows from the maps.

# %%
white = brain["WM"]
print(f"WM: T1 {result.t1_s.data[white].median():.3f} s, sd {result.t1_sd_s.data[white].median():.3f} s")
flair = weighted_volume(result, Contrast("FLAIR", te_s=0.08, ti_s=2.5))
print(f"FLAIR {tuple(flair.data.shape)}; {time.perf_counter() - started:.1f} s")

# %%
mean_error = {
    name: np.mean([e for (n, *_), e in errors.items() if n == name]) for name in ("least squares", "MRI2Qmap")
}
assert mean_error["MRI2Qmap"] < mean_error["least squares"]
assert errors["MRI2Qmap", "WM", "t1_s"] < 8
assert float(result.t1_s.data[~result.mask].abs().max()) == 0
assert result.t1_s.grid.matches(raw.grid)
assert bool((flair.data >= 0).all())
