"""Raw data of a fingerprint from maps of T1, T2 and PD: frame by frame, with signals that no subspace has touched.

Each voxel has its own signal from the phase graph and each frame its own Fourier transform, so that what a
reconstruction leaves out (rank, grid of the dictionary, B1, delays of the gradients) shows as its error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.grid import Grid, Triple
from mrcore.errors import BadInputError
from mrcore.noise import complex_noise
from mrcore.operators.nufft import NufftOp
from mrcore.random import seeded
from mrcore.signals.mrf_sequence import MrfSequence
from recon.dictionary.dictionary import SignalModel, fisp_model
from recon.rawdata import RawData
from recon.trajectories.trajectory import Trajectory

_EXACT = 1e-6  # of the norm of a signal: what leaving out orders of the phase graph may change
_BLOCK_VOXELS = 100_000  # whose signals are held at once


@dataclass(frozen=True)
class Jitter:
    """How a real trajectory differs from the nominal: delays of the gradients and an offset of each frame.

    `delay_samples` of each voxel axis, in samples of the readout (positive: the gradient comes late); `offset_sd` of
    each frame's shift in k, in cycles over the field of view.

    Raises:
        BadInputError: a delay of more than a sample, or an offset that is negative.
    """

    delay_samples: Triple = (0.0, 0.0, 0.0)
    offset_sd: float = 0.0

    def __post_init__(self) -> None:
        if len(self.delay_samples) != 3 or any(abs(delay) > 1 for delay in self.delay_samples):
            raise BadInputError(f"three delays of at most one sample are needed, got {self.delay_samples}")
        if not 0 <= self.offset_sd < math.inf:
            raise BadInputError(f"offset_sd must be finite and not negative, got {self.offset_sd}")


def simulate_raw(
    t1_s: Tensor,
    t2_s: Tensor,
    pd: Tensor,
    sequence: MrfSequence,
    trajectory: Trajectory,
    coil_maps: Tensor,
    *,
    model: SignalModel | None = None,
    b1: Tensor | None = None,
    jitter: Jitter | None = None,
    noise_sd: float = 0.0,
    snr: float | None = None,
    n_noise: int = 0,
    seed: int = 0,
) -> RawData:
    """Return the samples of maps `t1_s`, `t2_s` and complex `pd` (X, Y, Z) seen by `coil_maps` (C, X, Y, Z).

    Voxels with no PD may have any T1 and T2. `model` gives the signals, by default those of a FISP train with all
    orders that matter; `b1` (X, Y, Z) scales the flip angles. `jitter` moves the samples, the data keep the nominal
    trajectory. Noise is white, of `noise_sd` per real channel of a sample, or as strong as `snr` says: the root mean
    square over voxels and frames of the signal in all coils together, over the noise of one real channel in a fully
    sampled image. `n_noise` samples of noise alone come with the data. `seed` decides noise and jitter.

    Raises:
        BadInputError: maps that do not fit the trajectory's grid, times that are not positive, a sequence shorter
            than the trajectory, or both kinds of noise.
    """
    grid = trajectory.grid
    _check_maps(grid, t1_s, t2_s, pd, coil_maps, b1)
    if sequence.n_frames != trajectory.n_frames:
        raise BadInputError(f"the sequence has {sequence.n_frames} frames, the trajectory {trajectory.n_frames}")
    if snr is not None and (noise_sd or not snr > 0):
        raise BadInputError(f"give either noise_sd or an snr above 0, got {noise_sd} and {snr}")
    model = fisp_model(sequence, tolerance=_EXACT) if model is None else model
    k = trajectory.k_cyc_per_mm if jitter is None else jittered(trajectory, jitter, seed)
    readouts = _by_frame(trajectory)
    samples = torch.zeros((len(coil_maps), len(k)), dtype=pd.dtype)
    inside = torch.nonzero(pd.reshape(-1).abs() > 0)[:, 0]
    power = 0.0
    for voxels in torch.split(inside, _BLOCK_VOXELS):
        signals = _signals(voxels, t1_s, t2_s, b1, model) * pd.reshape(-1)[voxels, None]  # (voxels, frames)
        seen = coil_maps.reshape(len(coil_maps), -1)[:, voxels].to(pd.dtype)
        power += float(((seen.abs() ** 2).sum(0)[:, None] * signals.abs() ** 2).mean(1).sum())
        images = torch.zeros((len(coil_maps), math.prod(grid.shape)), dtype=pd.dtype)
        for frame, index in readouts:
            images[:, voxels] = seen * signals[:, frame]
            operator = NufftOp(k[index], grid.shape, grid.spacing_mm, pd.dtype)
            samples[:, index] += operator(images.reshape(-1, *grid.shape))
    if snr is not None:
        noise_sd = math.sqrt(power / max(1, len(inside))) / snr
    noise = complex_noise((len(coil_maps), len(k) + n_noise), noise_sd, seeded(seed, "raw noise"), dtype=t1_s.dtype)
    alone = noise[:, len(k) :].to(pd.dtype) if n_noise else None
    return RawData(samples + noise[:, : len(k)].to(pd.dtype), trajectory, alone, sequence)


def jittered(trajectory: Trajectory, jitter: Jitter, seed: int) -> Tensor:
    """Return the positions (N, 3) in cycles/mm at which the samples are really taken, to first order in the delay.

    A delay moves a sample back along its readout; at the ends of a readout the step that lies within it counts.
    """
    k, frame = trajectory.k_cyc_per_mm, trajectory.frame
    step = torch.diff(k, dim=0)
    length = step.norm(dim=1)
    length[frame[1:] != frame[:-1]] = torch.inf
    infinite = torch.full((1,), torch.inf, dtype=k.dtype)
    before, after = torch.cat([infinite, length]), torch.cat([length, infinite])
    zero = torch.zeros((1, 3), dtype=k.dtype)
    along = torch.where((before <= after)[:, None], torch.cat([zero, step]), torch.cat([step, zero]))
    along[torch.minimum(before, after).isinf()] = 0  # a readout of one sample
    delay, fov_mm = (torch.tensor(values, dtype=k.dtype) for values in (jitter.delay_samples, trajectory.grid.fov_mm))
    generator = seeded(seed, "trajectory offsets")
    offset = torch.randn((trajectory.n_frames, 3), generator=generator, dtype=k.dtype) * jitter.offset_sd
    return k - delay * along + (offset / fov_mm)[frame]


def _signals(voxels: Tensor, t1_s: Tensor, t2_s: Tensor, b1: Tensor | None, model: SignalModel) -> Tensor:
    """Return the signals (voxels, frames); voxels that share T1, T2 and B1 are computed once."""
    scale = torch.ones_like(t1_s) if b1 is None else b1.to(t1_s)
    values = torch.stack([tensor.reshape(-1)[voxels] for tensor in (t1_s, t2_s, scale)], dim=1)
    atoms, which = torch.unique(values, dim=0, return_inverse=True)
    return model(atoms[:, 0].contiguous(), atoms[:, 1].contiguous(), atoms[:, 2].contiguous())[which]


def _by_frame(trajectory: Trajectory) -> list[tuple[int, Tensor]]:
    """Return each frame that has samples, and which they are."""
    order = torch.argsort(trajectory.frame, stable=True)
    counts = torch.bincount(trajectory.frame, minlength=trajectory.n_frames).tolist()
    return [(frame, index) for frame, index in enumerate(torch.split(order, counts)) if len(index)]


def _check_maps(grid: Grid, t1_s: Tensor, t2_s: Tensor, pd: Tensor, coil_maps: Tensor, b1: Tensor | None) -> None:
    given = {"t1_s": t1_s, "t2_s": t2_s, "pd": pd} | ({} if b1 is None else {"b1": b1})
    for name, values in given.items():
        if tuple(values.shape) != grid.shape:
            raise BadInputError(f"{name} has the shape {tuple(values.shape)}, the trajectory's grid is {grid.shape}")
    if coil_maps.ndim != 4 or tuple(coil_maps.shape[1:]) != grid.shape or not len(coil_maps):
        raise BadInputError(f"coil maps must be (C, {', '.join(map(str, grid.shape))}), got {tuple(coil_maps.shape)}")
    if not pd.is_complex():
        raise BadInputError(f"pd must be complex, got {pd.dtype}")
    inside = pd.abs() > 0
    for name, values in given.items():
        if name != "pd" and not bool((values[inside] > 0).all() and values[inside].isfinite().all()):
            raise BadInputError(f"{name} must be finite and above 0 wherever there is PD")
