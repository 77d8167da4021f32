"""A small fingerprint whose truth is known, simulated frame by frame on a Cartesian grid."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.noise import complex_noise
from mrcore.operators.fourier import FourierOp
from mrcore.random import seeded
from mrcore.signals.mrf_sequence import MrfSequence
from recon.dictionary.dictionary import Dictionary, build_dictionary, compress_dictionary, fisp_model, log_grid
from recon.encoding.encoding import Encoding, subspace_encoding
from recon.encoding.subspace import subspace_of
from recon.trajectories.builders import cartesian

N_FRAMES, N, N_COILS = 120, 24, 4


@dataclass(frozen=True)
class SmallScan:
    """Maps (24, 24, 1) of two tissues, their dictionary, and how they are seen."""

    t1_s: torch.Tensor
    t2_s: torch.Tensor
    pd: torch.Tensor
    mask: torch.Tensor
    dictionary: Dictionary
    signals: torch.Tensor
    coil_maps: torch.Tensor

    def scan(self, share: float, noise_sd: float = 0.0, seed: int = 0) -> tuple[Encoding, torch.Tensor]:
        """Encoding and samples where a `share` of k-space is seen in each frame."""
        generator = seeded(seed, "mask")
        sampled = torch.rand((N_FRAMES, N, N, 1), generator=generator) < share
        trajectory = cartesian(sampled, Grid((N, N, 1), np.diag([8.0, 8.0, 5.0, 1.0])))
        images = torch.zeros((N_COILS, N_FRAMES, N, N, 1), dtype=torch.complex64)
        images[:, :, self.mask] = self.signals.T * self.pd[self.mask]
        k_space = FourierOp(images.shape, n_axes=3)(images * self.coil_maps[:, None])
        samples = k_space[:, sampled]
        samples = samples + complex_noise(tuple(samples.shape), noise_sd, generator)
        return subspace_encoding(trajectory, self.dictionary.subspace, self.coil_maps), samples

    def errors_percent(self, t1_s: torch.Tensor, t2_s: torch.Tensor) -> tuple[float, float]:
        """Mean absolute errors of T1 and T2 in the mask."""
        pairs = ((t1_s, self.t1_s), (t2_s, self.t2_s))
        first, second = (float(((found - true).abs() / true)[self.mask].mean()) for found, true in pairs)
        return 100 * first, 100 * second


@pytest.fixture(scope="session")
def small_scan() -> SmallScan:
    flips = torch.cat([torch.linspace(5, 60, 60), torch.linspace(60, 5, 60)])
    sequence = MrfSequence(flips, torch.tensor(0.012), torch.tensor(0.002), ti_s=0.02)
    model = fisp_model(sequence, tolerance=1e-3)
    full = build_dictionary(log_grid((0.4, 3.0), (0.03, 0.3), step=0.06), model, N_FRAMES)
    dictionary = compress_dictionary(full, subspace_of(full.atoms, 5))
    x, y = torch.meshgrid(*[torch.linspace(-1, 1, N)] * 2, indexing="ij")
    radius = (x**2 + (1.2 * y) ** 2).sqrt()[..., None]
    mask, inner = radius < 0.8, radius < 0.45
    t1_s = torch.where(inner, 0.83, 1.37) * mask
    t2_s = torch.where(inner, 0.063, 0.097) * mask
    pd = (mask * torch.where(inner, 0.7, 0.9)) * torch.exp(1j * (0.5 + x + y**2))[..., None]
    signals = model(t1_s[mask], t2_s[mask], torch.ones(int(mask.sum())))
    centres = ((-1.3, 0), (1.3, 0), (0, -1.3), (0, 1.3))
    coils = torch.stack([torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 2 + 1j * (a * y - b * x)) for a, b in centres])
    coils = (coils / coils.abs().square().sum(0).sqrt())[..., None]
    return SmallScan(t1_s, t2_s, pd, mask, dictionary, signals, coils.to(torch.complex64))
