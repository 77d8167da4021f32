# %% [markdown]
# # From a high-field head to an ultra-low-field scan
#
# A 64 mT scan differs from a 3 T scan in four ways: thick slices, blur, little signal over noise, and another
# contrast between tissues. `simulate_ulf` makes all four from a published protocol, and says what it decided.

# %%
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mrcore import Volume, digital_head, head_grid, load_volume, save_volume, to_world
from mrkit import simulate_ulf
from ulfsim import measure, plan_scan, tissues_through

torch.set_num_threads(1)
started = time.perf_counter()

# %% [markdown]
# ## The object
#
# A `Volume` is data (X, Y, Z) on a `Grid`: a shape and an affine to the world in RAS+ millimetres. Here it is a
# digital head, so the example needs no file; with your own scan, write `volume = load_volume(Path("T1w.nii.gz"))`.
# `TissueMap` holds the share of each voxel in CSF, GM and WM. The phantom knows its own; of your scan mrkit finds
# them, if you leave `tissues` out.

# %%
head = digital_head(head_grid(65), seed=1)
volume, tissues = head.image, head.tissues
print(f"object {volume.grid.shape} at {np.round(volume.grid.spacing_mm, 2)} mm, {volume.grid.orientation}")

# %% [markdown]
# ## The scan
#
# The preset states voxels, point spread and the SNR of each tissue. The seed decides the noise and nothing else.

# %%
done = simulate_ulf(volume, preset="hyperfine-t1w", tissues=tissues, seed=1)
scan, truth = done.scan, done.truth
print(f"scan {scan.grid.shape} at {np.round(scan.grid.spacing_mm, 2)} mm, noise sd {done.acquisition.noise_sd:.4f}")

# %% [markdown]
# ## The calibration report
#
# One gain per tissue takes the high-field image to the new contrast. Contrasts alone leave the gains open along one
# direction; the gauge says what closed it, and the interval how far the bounds would have let it go.

# %%
calibration = done.calibration
for name, gain in calibration.gains.items():
    print(f"{name:4s} gain {gain:.3f}, SNR {calibration.predicted[name]:5.1f}, asked {calibration.target[name]:5.1f}")
low, high = calibration.feasible_interval
print(f"gauge: {calibration.gauge}; every SNR could be {low:+.1f} to {high:+.1f} with the same contrasts")
for note in done.notes:
    print("note:", note[:100])

# %% [markdown]
# ## Measured again
#
# The scan is measured as a real one would be: tissue cores as its thick voxels see them, noise from the air.

# %%
seen = tissues_through(plan_scan(volume.grid, done.acquisition), tissues)
found = measure(scan, seen)
measured = dict(zip(found.names, found.snr, strict=True))
print("measured SNR:", {name: round(value, 1) for name, value in measured.items()}, "-", found.noise_method)

# %% [markdown]
# The world stays where it is: the centre of mass of the brain is the same in both images, to a fraction of a voxel.


# %%
def centre_mm(image: Volume) -> np.ndarray:
    """Centre of mass in the world, of what stands clear of the noise."""
    data = image.data.double().numpy()
    weight = np.where(data > 0.2 * data.max(), data, 0)[..., None]
    voxels = np.stack(np.meshgrid(*map(np.arange, image.grid.shape), indexing="ij"), -1)
    return (to_world(image.grid, voxels) * weight).sum((0, 1, 2)) / weight.sum()


shift_mm = np.abs(centre_mm(scan) - centre_mm(truth)).max()
print(f"centres of mass differ by {shift_mm:.2f} mm")

# %% [markdown]
# ## Saving
#
# NIfTI with a JSON sidecar: BIDS keys, the whole acquisition, gains and seed. What is loaded again is a scan that
# `superresolve` can use with the right point spread.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "sub-01_T1w.nii.gz"
    save_volume(scan, path, sidecar=scan.meta)
    again = load_volume(path)
    print("written:", sorted(p.name for p in Path(folder).iterdir()))
print(f"{time.perf_counter() - started:.1f} s")

# %%
same, other = (simulate_ulf(volume, tissues=tissues, seed=seed).scan for seed in (1, 2))
assert torch.equal(same.data, scan.data)
assert not torch.equal(other.data, scan.data)
assert all(abs(calibration.predicted[name] / calibration.target[name] - 1) < 0.01 for name in calibration.target)
assert all(abs(measured[name] / calibration.target[name] - 1) < 0.1 for name in ("GM", "WM"))
assert abs(found.noise_sd / done.acquisition.noise_sd - 1) < 0.03
assert shift_mm < 0.5
assert again.grid.matches(scan.grid)
assert again.meta["Simulation"]["Seed"] == 1
assert torch.allclose(again.data, scan.data)
