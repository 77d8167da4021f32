"""What the fingerprinting benchmark scans: real maps of people, a slab made from labels; and how they are scanned.

Scans are simulated unlike the reconstruction's model: every voxel has its own signal from the phase graph (the
reconstruction has a subspace and a dictionary), flip angles follow a B1 map that it does not know, gradients come late
and each frame is shifted in k-space, and the coil maps have to be found from the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from common.results import HERE
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from mrcore.io.label_codes import tissue_of_codes
from mrcore.noise import complex_noise
from mrcore.random import seeded
from mrcore.signals.mrf_sequence import MrfSequence
from mrcore.signals.tissue import relaxation
from recon.coils.loops import loop_coil_maps
from recon.rawdata import RawData
from recon.simulation import Jitter, simulate_raw
from recon.trajectories.builders import radial, spiral, stack_of_spirals
from recon.trajectories.trajectory import Trajectory

DATA = HERE.parents[1] / "shared" / "data"
N_COILS = 8
MOST_SHOTS = 16
"""Acceleration 1: the train is repeated as often, each time along other arms; acceleration R repeats 16 / R times."""
ARMS_OF_A_PLANE = 768
"""Spiral arms that sample a plane at the Nyquist rate: a frame of R = 1 is undersampled 48 times, as is usual."""
SNR = 20.0
"""Root mean square signal over voxels and frames, in all coils together, over the noise sd of a full image."""
JITTER = Jitter(delay_samples=(0.05, -0.03, 0.02), offset_sd=0.02)
"""What is left of delays after the usual correction; a sample is about a cycle over the field of view."""
B1_SPREAD = 0.03
RANGES: Mapping[str, tuple[float, float, float, float]] = {
    "WM": (0.6, 1.1, 0.025, 0.1),
    "GM": (1.1, 2.0, 0.03, 0.2),
    "CSF": (2.2, 5.0, 0.2, 4.0),
}
"""Tissues of the in-vivo maps: T1 from, to, T2 from, to, in s."""
_SLAB_LABELS = "labels/synthseg_training_seg_01.nii.gz"
_SLAB_SHAPE, _SLAB_STEP = (80, 96, 12), 2


@dataclass(frozen=True, eq=False)
class Truth:
    """True maps (X, Y, Z) on a grid, 0 PD outside the head, and the tissues in which errors are counted."""

    name: str
    grid: Grid
    t1_s: Tensor
    t2_s: Tensor
    pd: Tensor
    tissues: Mapping[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One scan: what of whom, along which arms, how much accelerated."""

    subject: str
    trajectory: str
    acceleration: int
    seed: int = 1

    def labels(self) -> dict[str, object]:
        """Return what tells the case in a row."""
        return {"scan": self.subject, "trajectory": self.trajectory, "R": self.acceleration, "seed": self.seed}


def in_vivo(subject: int, index: int, data: Path = DATA, step: int = 1) -> Truth:
    """Return every `step`-th voxel of a slice of a person of Deli-CS, cut to the head; PD outside the head is 0."""
    path = data / "mrf" / "delics_invivo_maps" / f"subject{subject:02d}.npz"
    if not path.is_file():
        raise BadInputError(f"there is no {path}; give the folder of the data with --data")
    with np.load(path) as file:
        t1, t2 = (file[name][index].astype(np.float32) / 1000 for name in ("t1_ms", "t2_ms"))
        pd = (file["pd_real"][index].astype(np.float32) + 1j * file["pd_imag"][index]) * file["pd_scale"]
    size = np.abs(pd)
    opened = ndimage.binary_opening(size > 0.1 * np.quantile(size, 0.99), iterations=2)
    head = _largest(ndimage.binary_fill_holes(opened)) & (t1 > 0) & (t2 > 0)
    ranges = {
        tissue: head & (t1 > low_1) & (t1 <= high_1) & (t2 > low_2) & (t2 <= high_2)
        for tissue, (low_1, high_1, low_2, high_2) in RANGES.items()
    }
    opened = ndimage.binary_opening(np.any(list(ranges.values()), axis=0), iterations=4)
    brain = ndimage.binary_fill_holes(ndimage.binary_dilation(_largest(opened), iterations=3))
    cut = tuple(slice(part.start, part.stop, step) for part in _box(head, margin=4, multiple=8 * step))
    scale = np.quantile(size[head], 0.99)
    t1, t2, pd = (_image(values[cut]) for values in (t1, t2, np.where(head, pd / scale, 0)))
    tissues = {tissue: _image((inside & brain)[cut]) for tissue, inside in ranges.items()}
    grid = Grid((*t1.shape[:2], 1), np.diag([float(step), float(step), 4.0, 1.0]))
    return Truth(f"subject {subject}, slice {index}", grid, t1, t2, pd.to(torch.complex64), tissues)


def slab(data: Path = DATA, field_t: float = 3.0) -> Truth:
    """Return a 3-D slab of a label map, 2 mm voxels, with T1, T2 and PD of the tissue table, smoothly varied by 3 %."""
    labels = np.asarray(nib.load(data / _SLAB_LABELS).dataobj).astype(int)
    tissue_of = tissue_of_codes(np.unique(labels).tolist(), _SLAB_LABELS)
    centre = [int(c) for c in ndimage.center_of_mass(np.isin(labels, [2, 3, 41, 42]))]
    parts = [_span(c, n, size) for c, n, size in zip(centre, _SLAB_SHAPE, labels.shape, strict=True)]
    labels = labels[np.ix_(*parts)]
    tissues = {
        name: torch.from_numpy(np.isin(labels, [code for code, t in tissue_of.items() if t == name])) for name in RANGES
    }
    t1_s, t2_s, pd = (torch.ones(labels.shape) * value for value in (1.0, 0.1, 0.0))
    for name, inside in tissues.items():
        values = relaxation(name, field_t)
        t1_s[inside], t2_s[inside], pd[inside] = values.t1_s, values.t2_s, values.pd
    grid = Grid(_SLAB_SHAPE, np.diag([float(_SLAB_STEP)] * 3 + [1.0]))
    varied = [values * (1 + 0.03 * smooth_field(grid, 1, key)) for values, key in ((t1_s, "T1"), (t2_s, "T2"))]
    return Truth("slab of labels", grid, varied[0], varied[1], pd.to(torch.complex64), tissues)


def trajectory_of(case: Case, grid: Grid, n_frames: int) -> Trajectory:
    """Return the nominal trajectory of a case.

    Raises:
        BadInputError: an acceleration that leaves no whole number of shots.
    """
    shots = MOST_SHOTS // case.acceleration
    if shots * case.acceleration != MOST_SHOTS:
        raise BadInputError(f"the acceleration must divide {MOST_SHOTS}, got {case.acceleration}")
    builders = {
        "spiral": partial(spiral, n_interleaves=ARMS_OF_A_PLANE, arms_per_frame=shots),
        "radial": partial(radial, lines_per_frame=shots),
        "stack of spirals": partial(stack_of_spirals, n_interleaves=48, partition_step=case.acceleration),
    }
    return builders[case.trajectory](grid, n_frames)


def scanned(truth: Truth, case: Case, sequence: MrfSequence, snr: float = SNR) -> tuple[RawData, Tensor]:
    """Return the raw data of a case, and the PD (X, Y, Z) as a reconstruction whose coil maps have norm 1 sees it."""
    trajectory = trajectory_of(case, truth.grid, sequence.n_frames)
    coils = loop_coil_maps(truth.grid, N_COILS)
    b1 = 1 + B1_SPREAD * smooth_field(truth.grid, case.seed, "B1")
    maps = (truth.t1_s, truth.t2_s, truth.pd)
    raw = simulate_raw(*maps, sequence, trajectory, coils, b1=b1, jitter=JITTER, snr=snr, seed=case.seed)
    return raw, truth.pd.abs() * coils.abs().square().sum(0).sqrt()


def smooth_field(grid: Grid, seed: int, key: str) -> Tensor:
    """Return a smooth random field (X, Y, Z) between -1 and 1, of about a third of the field of view."""
    width = tuple(0.3 * n if n > 1 else 0.0 for n in grid.shape)
    field = complex_noise(grid.shape, 1.0, seeded(seed, f"field {key}"), (width[0], width[1], width[2])).real
    return field / field.abs().max()


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.reshape(-1))
    sizes[0] = 0
    return labels == sizes.argmax()


def _box(mask: NDArray[np.bool_], margin: int, multiple: int) -> tuple[slice, ...]:
    """Return the box about a mask, widened to sizes that are multiples of a number."""
    box = []
    for axis, n in enumerate(mask.shape):
        inside = np.flatnonzero(mask.any(axis=1 - axis))
        size = min(-(-(inside[-1] - inside[0] + 1 + 2 * margin) // multiple) * multiple, n)
        start = min(max(0, (inside[0] + inside[-1] + 1 - size) // 2), n - size)
        box.append(slice(start, start + size))
    return tuple(box)


def _span(centre: int, n: int, size: int) -> NDArray[np.int64]:
    start = min(max(0, centre - n * _SLAB_STEP // 2), max(0, size - n * _SLAB_STEP))
    return start + _SLAB_STEP * np.arange(n)


def _image(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))[..., None]
