# %% [markdown]
# # Training pairs from a simulator
#
# A network that is to improve ultra-low-field scans has to see many of them, of all the kinds that it may meet.
# `AcquisitionRange` states those kinds, `SimulatedPairs` draws scans from them: protocol, voxels, point spread, SNR,
# noise colour, tilt and artefacts, each with the object that it shows.

# %%
import json
import time
from dataclasses import replace

import torch
from torch.utils.data import DataLoader

from mrcore import digital_head, head_grid
from ulfsim import SWOOP_LIKE, SimulatedPairs, draw, source_of

torch.set_num_threads(1)
started = time.perf_counter()

# %% [markdown]
# ## Sources
#
# A `Source` is an image split by tissue. Here two digital heads; with your own scans, list
# `SourceFiles(Path("T1w.nii.gz"), (Path("dseg.nii.gz"),))`, which are loaded when they are needed.

# %%
heads = [digital_head(head_grid(48), seed=seed) for seed in (1, 2)]
sources = [source_of(head.image, head.tissues) for head in heads]

# %% [markdown]
# ## Ranges
#
# `SWOOP_LIKE` lies around three published 64 mT protocols, `BROAD` is wider than any scanner. Any range may be changed.

# %%
ranges = replace(SWOOP_LIKE, in_plane_mm=(4.0, 5.5), slice_mm=(6.0, 10.0), wm_snr=(20.0, 60.0))
for number in range(3):
    drawn = draw(ranges, seed=7, key=f"pair {number}")
    size = " x ".join(f"{v:.2f}" for v in drawn.acquisition.voxel_mm)
    print(f"pair {number}: {drawn.protocol}, {size} mm, SNR of WM {drawn.snr['WM']:.0f}")

# %% [markdown]
# ## Batches
#
# Scans of different voxels have different shapes. For batches each is resampled onto the lattice of its object, and a
# block is cut from both. Pair `i` depends on the seed and on `i` alone, so workers may share the work as they like.

# %%
pairs = SimulatedPairs(sources, ranges, seed=7, n_per_source=4, patch=(32, 32, 32))
batches = list(DataLoader(pairs, batch_size=4))
for batch in batches:
    print(f"scan {tuple(batch.scan.shape)}, truth {tuple(batch.truth.shape)}, noise {batch.noise_sd.numpy().round(4)}")
for text in batches[0].settings:
    stated = json.loads(text)
    print(f"source {stated['Source']}, {stated['Protocol']}, artefacts {sorted(stated['Artefacts'])}")

# %% [markdown]
# The truth has the contrast of the scan; `high` keeps that of the high-field image, for networks that change it.

# %%
whole = SimulatedPairs(sources, ranges, seed=7, n_per_source=4)
shapes = {tuple(whole[i].scan.shape) for i in range(2)}
print("scans as they were acquired:", shapes)
print(f"{time.perf_counter() - started:.1f} s")

# %%
assert len(batches) == 2
assert all(batch.scan.shape == batch.truth.shape == batch.high.shape == (4, 1, 32, 32, 32) for batch in batches)
assert len(shapes) == 2
again = list(DataLoader(pairs, batch_size=4, shuffle=False, num_workers=2))
assert all(torch.equal(a.scan, b.scan) and a.settings == b.settings for a, b in zip(batches, again, strict=True))
images = [(scan, truth) for batch in batches for scan, truth in zip(batch.scan, batch.truth, strict=True)]
assert min(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in images) > 0.5
assert [json.loads(text)["Source"] for batch in batches for text in batch.settings] == [0, 1] * 4
