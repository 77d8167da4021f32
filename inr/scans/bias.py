"""A smooth multiplicative bias field on the lattice, estimated from the ratio of an image to its tissues' means.

log b(x) is a sum of cosines (DCT-II) of wavelengths from twice the lattice down to `BiasSettings.cutoff_mm`, held
smooth by its bending energy, as in Ashburner & Friston, NeuroImage 2005;26:839. Off in a fit unless it is asked for:
`mrcore.segmentation.tissues` has a bias of its own, and a scan's large-scale brightness is part of what it shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.grid import Triple
from mrcore.errors import BadInputError
from mrcore.operators.linop import LinearOp
from mrcore.operators.pointwise import DiagonalOp

_SAMPLE_MM = 4.0
_DARK = 0.5  # of the brightest tissue: below it a voxel's logarithm is mostly noise and partial volume


@dataclass(frozen=True)
class BiasSettings:
    """Settings of `estimate_bias`.

    `cutoff_mm` is the shortest wavelength, `stiffness` the weight of the squared bending against that of the data
    (0: none), `n_rounds` how often tissue means and field take turns.
    """

    cutoff_mm: float = 120.0
    stiffness: float = 0.01
    n_rounds: int = 4

    def __post_init__(self) -> None:
        if self.cutoff_mm <= 0 or self.stiffness < 0 or self.n_rounds < 1:
            raise BadInputError(
                f"a bias field needs a positive cutoff, stiffness of at least 0 and a round, got {self}"
            )


@dataclass(frozen=True, eq=False, repr=False)
class BiasField(Brief):
    """log b as `coefficients` (a, b, c) of cosines over a lattice of `shape`; 1 everywhere where they are 0."""

    coefficients: Tensor
    shape: tuple[int, int, int]

    def to(self, device: torch.device | str) -> BiasField:
        """Return the field on `device`."""
        return BiasField(self.coefficients.to(device), self.shape)

    def field(self) -> Tensor:
        """Return b (X, Y, Z)."""
        x, y, z = (
            _cosines(torch.arange(n, device=self.coefficients.device), n, k)
            for n, k in zip(self.shape, self.coefficients.shape, strict=True)
        )
        log_bias: Tensor = torch.einsum("abc,xa,yb,zc->xyz", self.coefficients, x, y, z)
        return log_bias.exp()


def estimate_bias(image: Tensor, prob: Tensor, spacing_mm: Triple, settings: BiasSettings | None = None) -> BiasField:
    """Estimate the field of `image` (X, Y, Z), given its tissues `prob` (T, X, Y, Z), zero outside the brain.

    Weighted least squares of log(image / mean of the tissues there) over voxels of about 4 mm; tissues darker than
    half the brightest do not count. The geometric mean of the field in the brain is one.

    Raises:
        BadInputError: shapes that do not match, or fewer than 500 voxels of bright tissue.
    """
    settings = settings or BiasSettings()
    if image.shape != prob.shape[1:]:
        raise BadInputError(f"image {tuple(image.shape)} and tissues {tuple(prob.shape[1:])} are on different lattices")
    steps = [max(1, round(_SAMPLE_MM / s)) for s in spacing_mm]
    sparse = (slice(None, None, steps[0]), slice(None, None, steps[1]), slice(None, None, steps[2]))
    values, shares = image[sparse], prob[(slice(None), *sparse)]
    there = (shares.sum(0) > 0.5) & (values > 0)
    index = torch.nonzero(there, as_tuple=True)
    if len(index[0]) < 500:
        raise BadInputError(f"a bias field needs 500 voxels of tissue at {_SAMPLE_MM:g} mm, got {len(index[0])}")
    y, p = values[there].double(), shares[:, there].double()
    n_terms = [1 + int(2 * n * s / settings.cutoff_mm) for n, s in zip(image.shape, spacing_mm, strict=True)]
    axes = [
        _cosines(at * step, n, k).double() for at, step, n, k in zip(index, steps, image.shape, n_terms, strict=True)
    ]
    basis = torch.einsum("na,nb,nc->nabc", *axes).flatten(1)[:, 1:]
    rough = _bending(n_terms, [n * s for n, s in zip(image.shape, spacing_mm, strict=True)])[1:]
    rough, solved = rough.to(basis), torch.zeros_like(basis[0])
    level = 0.0
    for _ in range(settings.n_rounds):
        solved = _solve(y, p, basis, rough, solved, settings.stiffness)
        level = float((basis @ solved).mean())
    # The constant is what makes the mean logarithm in the brain zero: the level stays with the image.
    coefficients = torch.cat([solved.new_full((1,), -level), solved])
    shape = (int(image.shape[0]), int(image.shape[1]), int(image.shape[2]))
    return BiasField(coefficients.reshape(n_terms).to(image.dtype), shape)


def biased(operator: LinearOp, bias: BiasField) -> LinearOp:
    """Return the operator that sees the image times the field: the bias applied in the prediction."""
    return operator @ DiagonalOp(bias.field().to(operator.dtype))


def _solve(y: Tensor, p: Tensor, basis: Tensor, rough: Tensor, before: Tensor, stiffness: float) -> Tensor:
    """Return the coefficients for tissue means of the image freed of the field found `before`."""
    flat = y / (basis @ before).exp()
    # Least squares: means over voxels that tissues share would be drawn to one another.
    means = torch.linalg.solve(p @ p.T + 1e-6 * torch.eye(len(p)).to(p), p @ flat)
    expected = means @ p
    weight = (p.square().sum(0)) * (expected > _DARK * means.max())
    residual = (y / expected.clamp_min(1e-9)).log().clamp(-1, 1)
    # Relative to its weighted mean, which belongs to the means.
    centred = basis - (weight @ basis) / weight.sum()
    residual = residual - (weight @ residual) / weight.sum()
    normal = centred.T @ (centred * weight[:, None]) / weight.sum()
    solution: Tensor = torch.linalg.solve(
        normal + stiffness * torch.diag(rough), centred.T @ (weight * residual) / weight.sum()
    )
    return solution


def _cosines(at: Tensor, n: int, n_terms: int) -> Tensor:
    """Return DCT-II functions (len(at), n_terms) of positions `at` in voxels of an axis of `n`."""
    k = torch.arange(n_terms, dtype=torch.float64, device=at.device)
    return torch.cos(math.pi * k * (at.double()[:, None] + 0.5) / n).float()


def _bending(n_terms: list[int], fov_mm: list[float]) -> Tensor:
    """Return the bending of each cosine, |k|^4 in units in which a wavelength of 200 mm has 1."""
    k = [200.0 * np.arange(n) / (2 * f) for n, f in zip(n_terms, fov_mm, strict=True)]
    square: NDArray[np.float64] = k[0][:, None, None] ** 2 + k[1][:, None] ** 2 + k[2] ** 2
    return torch.from_numpy((square**2).reshape(-1))
