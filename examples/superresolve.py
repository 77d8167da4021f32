# %% [markdown]
# # Super-resolution of one scan, without training
#
# `superresolve` fits a small continuous field (features on grids, decoded by Gabor wavelets) to one scan, through
# the same forward model that simulates scans. It needs no training data. Image and tissues come together, and with
# them what is needed to doubt them: cubic interpolation, the residual, and notes.

# %%
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mrcore import Volume, digital_head, head_grid, load_volume, resample, save_tissues, save_volume
from mrcore.metrics import gradient_error, psnr
from mrkit import simulate_ulf, superresolve

torch.set_num_threads(1)
started = time.perf_counter()

# %% [markdown]
# ## A scan
#
# So that the result can be checked, the scan is a simulated one: 1.6 x 1.6 x 5 mm, WM SNR 50, of a digital head
# (its own example says how). With your own scan: `scan = load_volume(Path("T1w.nii.gz"))`.

# %%
head = digital_head(head_grid(65), seed=1)
simulated = simulate_ulf(head.image, tissues=head.tissues, wm_snr=50.0, seed=1)
scan = simulated.scan
print(f"scan {scan.grid.shape} at {np.round(scan.grid.spacing_mm, 2)} mm")

# %% [markdown]
# ## The fit
#
# `voxel_mm` is the isotropic output voxel. The output lies along the scan's own axes and covers its field of view; the
# world coordinates of what is in it do not change. A brain mask may be given, as here; otherwise it is found.

# %%
mask = resample(Volume(head.mask.float(), head.grid), scan.grid).data > 0.5
result = superresolve(scan, voxel_mm=3.0, mask=mask, seed=1)
print(f"image {result.image.grid.shape} at {np.round(result.image.grid.spacing_mm, 2)} mm")
for note in result.notes:
    print("note:", note)

# %% [markdown]
# ## How the fit ended
#
# The objective per scan voxel at each step, and whether it had settled. The residual is (scan - expected) / sd on the
# scan's grid: where the model is right it has mean 0 and sd 1, and shows no anatomy.

# %%
solution = result.solution
print(f"{solution.n_iter} steps, converged: {solution.converged}; {solution.message}")
residual = result.residual_z.data[mask]
print(f"residual in the brain: mean {residual.mean():+.2f}, sd {residual.std():.2f}")
print(f"noise sd found {result.noise_sd:.4f}, simulated {simulated.acquisition.noise_sd:.4f}")

# %% [markdown]
# ## Against the truth
#
# The truth of a simulation is the object in the scan's contrast, without noise. Both images are compared with it in
# the brain, in the units they have: nothing is rescaled.

# %%
grid = result.image.grid
truth = resample(simulated.truth, grid, order=3)
brain = resample(Volume(head.mask.float(), head.grid), grid).data > 0.5
scores = {}
for name, image in (("cubic", result.cubic), ("fit", result.image)):
    scores[name] = (
        psnr(truth.data, image.data, brain),
        gradient_error(truth.data, image.data, brain, grid.spacing_mm),
    )
    print(f"{name:6s} PSNR {scores[name][0]:5.2f} dB, gradient error {scores[name][1]:.3f}")

# %% [markdown]
# ## Tissues
#
# One probability map per tissue on the output grid; inside the brain they sum to one. Volumes need caution: slices of
# 5 mm hide thin folds of CSF and cortex, and what they hide is counted as the tissue around it.

# %%
voxel_ml = float(np.prod(grid.spacing_mm)) / 1e3
found_ml = {name: float(result.tissues.of(name).sum()) * voxel_ml for name in result.tissues.names}
true_ml = {name: float(head.tissues.of(name).sum() * np.prod(head.grid.spacing_mm)) / 1e3 for name in found_ml}
for name in found_ml:
    print(f"{name:4s} {found_ml[name]:5.0f} ml, true {true_ml[name]:5.0f} ml")

# %% [markdown]
# ## Saving
#
# NIfTI with a sidecar for each image; the tissues as a label map and a map each. Any viewer shows them over the scan,
# because all share the world. `mrkit superresolve` does this from the command line, with a report.

# %%
with tempfile.TemporaryDirectory() as folder:
    facts = {"Description": "super-resolved by mrkit", "Notes": list(result.notes)}
    save_volume(result.image, Path(folder) / "sub-01_T1w_sr.nii.gz", sidecar=facts)
    save_tissues(result.tissues, Path(folder), "sub-01_T1w_sr", sidecar=facts)
    saved = load_volume(Path(folder) / "sub-01_T1w_sr.nii.gz")
    print("written:", *sorted(p.name for p in Path(folder).glob("*.nii.gz")))
print(f"{time.perf_counter() - started:.1f} s")

# %%
total = result.tissues.prob.sum(0)
assert scores["fit"][0] > scores["cubic"][0] + 0.5
assert scores["fit"][1] < scores["cubic"][1]
assert abs(float(residual.mean())) < 0.3
assert 0.8 < float(residual.std()) < 1.2
assert abs(result.noise_sd / simulated.acquisition.noise_sd - 1) < 0.05
assert bool(((total < 1e-4) | ((total - 1).abs() < 1e-4)).all())
assert abs(sum(found_ml.values()) / sum(true_ml.values()) - 1) < 0.05
assert saved.grid.matches(grid)
assert torch.allclose(saved.data, result.image.data)
