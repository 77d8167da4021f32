# %% [markdown]
# # Measuring a scan whose noise, blur and contrast are known
#
# What `mrkit measure` tells of a real scan can only be trusted if it finds what was put into a simulated one. Here a
# digital head is scanned with known SNR, point spread and noise colour, and measured as a magnitude image and as the
# complex image that its k-space gives.

# %%
import itertools
import math
import time

import numpy as np
import torch

from mrcore import (
    Acquisition,
    PulseSequence,
    Volume,
    complex_noise,
    digital_head,
    gaussian_psf,
    head_grid,
    seeded,
    to_world,
)
from mrcore.operators import FourierOp
from ulfsim import (
    edge_spread,
    k_space,
    measure,
    noise_spectrum,
    plan_scan,
    redrawn,
    simulate,
    source_of,
    tissue_cores,
    tissues_through,
)

torch.set_num_threads(1)
started = time.perf_counter()

# %% [markdown]
# ## The scan
#
# Voxels of 2 x 2 x 4 mm, a Gaussian point spread of 1.4 voxels, and noise that looks as if it had been smoothed
# by 3 mm along the first axis. White matter has a signal of 1, so its SNR is 1 / 0.08 = 12.5.

# %%
VOXEL_MM, FWHM_VOXELS, NOISE_SD, NOISE_FWHM_MM = (2.0, 2.0, 4.0), 1.4, 0.08, (3.0, 0.0, 0.0)
head = digital_head(head_grid(96), seed=1)
source = source_of(head.image, head.tissues)
acquisition = Acquisition(
    0.064,
    VOXEL_MM,
    PulseSequence("T1w"),
    noise_sd=NOISE_SD,
    psf=gaussian_psf(VOXEL_MM, FWHM_VOXELS),
    noise_fwhm_mm=NOISE_FWHM_MM,
)
done = simulate(source, acquisition, dict.fromkeys(source.names, 1.0), seed=0)
tissues = tissues_through(plan_scan(head.grid, acquisition), head.tissues)
cores = dict(zip(tissues.names, tissue_cores(tissues)[0], strict=True))
known = {name: float(done.signal[core].double().mean()) / NOISE_SD for name, core in cores.items()}
print(f"scan {done.scan.grid.shape}, known SNR:", {name: round(snr, 2) for name, snr in known.items()})

# %% [markdown]
# ## Contrast, from the magnitude
#
# Noise makes magnitudes brighter (Rician), most of all where there is little signal; `measure` takes that out.
# Nobody tells it the noise: it looks at the air.

# %%
magnitude = measure(done.scan, tissues)
uncorrected = {name: float(done.scan.data[core].mean()) / NOISE_SD for name, core in cores.items()}
print(f"noise sd {magnitude.noise_sd:.4f} ({magnitude.noise_method}), put in {NOISE_SD}")
for name, snr in zip(magnitude.names, magnitude.snr, strict=True):
    low, high = magnitude.snr_interval(name)
    text = f"{snr:5.2f}, 95 % {low:5.2f} to {high:5.2f}, known {known[name]:5.2f}"
    print(f"{name:4s} SNR {text}, uncorrected {uncorrected[name]:5.2f}")
for note in magnitude.notes:
    print("note:", note)

# %% [markdown]
# An interval of 95 % may miss. Of twenty scans that differ in their noise alone, about nineteen should hold the value.

# %%
n_held = dict.fromkeys(known, 0)
for data in redrawn(done, range(20)):
    again = measure(Volume(data, done.scan.grid), tissues)
    for name, snr in known.items():
        low, high = again.snr_interval(name)
        n_held[name] += low < snr < high
print("intervals that hold the known SNR, of 20:", n_held)

# %% [markdown]
# ## The same from k-space
#
# The adjoint of the Fourier operator takes k-space to a complex image, in which the noise is Gaussian.

# %%
samples = k_space(done)[0]
image = Volume(FourierOp(tuple(samples.shape), samples.dtype).H(samples), done.scan.grid)
from_k_space = measure(image, tissues)
print(f"noise sd {from_k_space.noise_sd:.4f} ({from_k_space.noise_method})")
for a, b in (("WM", "GM"), ("WM", "CSF")):
    low, high = from_k_space.cnr_interval(a, b)
    print(f"{a}-{b} CNR {from_k_space.cnr(a, b):.2f}, 95 % {low:.2f} to {high:.2f}, known {known[a] - known[b]:.2f}")

# %% [markdown]
# ## Colour of the noise
#
# Noise that an image filter has been over is correlated between voxels. Its width is that of the filter, in mm.

# %%
spectra = {"magnitude": noise_spectrum(done.scan, tissues.mask), "complex": noise_spectrum(image, tissues.mask)}
for name, spectrum in spectra.items():
    widths = " x ".join(f"{f:.2f}" for f in spectrum.fwhm_mm)
    print(f"{name}: noise kernel {widths} mm, put in 3 x 0 x 0; it fills {spectrum.white_fraction:.0%} of the band")

# %% [markdown]
# ## Sharpness
#
# The edge spread is an upper bound of the blur. A ball has one sharp border, and there it is the blur that was put in;
# the folds of the head lie close together and share voxels, which widens it. Compare scans of like objects.

# %%
voxels = np.stack(np.meshgrid(*map(np.arange, head.grid.shape), indexing="ij"), -1)
radius_mm = np.linalg.norm(to_world(head.grid, voxels), axis=-1)
ball = torch.from_numpy((0.5 - (radius_mm - 60) / head.grid.spacing_mm[0]).clip(0, 1)).float()
plan = plan_scan(head.grid, acquisition)
noise = complex_noise(plan.scan_grid.shape, NOISE_SD, seeded(1, "ball"), (3.0 / VOXEL_MM[0], 0.0, 0.0))
ball_edges = edge_spread(Volume((plan.operator(ball) + noise).abs(), plan.scan_grid))
head_edges = edge_spread(done.scan, tissues.mask)
# Voxels of the object blur as well: a box of 2 mm has the variance of a Gaussian of 0.68 x 2 mm.
put_in_mm = [math.hypot(FWHM_VOXELS * voxel, 0.68 * head.grid.spacing_mm[0]) for voxel in VOXEL_MM]
for axis in range(3):
    of_ball, of_head = ball_edges.fwhm_mm[axis], head_edges.fwhm_mm[axis]
    print(f"axis {axis}: ball {of_ball:.2f} mm, put in {put_in_mm[axis]:.2f} mm, folds of the head {of_head:.2f} mm")
print(f"{time.perf_counter() - started:.1f} s")

# %%
for found in (magnitude, from_k_space):
    assert abs(found.noise_sd / NOISE_SD - 1) < 1.96 * found.noise_error
    for name, snr in known.items():
        low, high = found.snr_interval(name)
        assert low < snr < high
    for a, b in itertools.combinations(reversed(found.names), 2):
        low, high = found.cnr_interval(a, b)
        assert low < known[a] - known[b] < high
assert min(n_held.values()) >= 16
assert sum(n_held.values()) >= 54
for spectrum in spectra.values():
    assert abs(spectrum.fwhm_mm[0] / NOISE_FWHM_MM[0] - 1) < 0.1
    assert max(spectrum.fwhm_mm[1:]) < 0.5
assert all(abs(seen / true - 1) < 0.1 for seen, true in zip(ball_edges.fwhm_mm, put_in_mm, strict=True))
assert all(folds > sharp for folds, sharp in zip(head_edges.fwhm_mm, ball_edges.fwhm_mm, strict=True))
