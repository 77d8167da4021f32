"""What a fit compares its images with: scans, each seen through its own operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from inr.loss import data_term
from mrcore.errors import BadInputError
from mrcore.linop import LinearOp


class Data(Protocol):
    """Scans of one person, seen through a model whose own unknowns (poses, scales, weights) may be found in the fit."""

    @property
    def n_values(self) -> int:
        """Number of scan voxels, of all scans."""

    @property
    def n_contrasts(self) -> int:
        """Number of images that the scans show."""

    def misfit(self, images: Tensor) -> Tensor:
        """Return the summed negative log likelihood of all scans given `images` (C, X, Y, Z); differentiable."""

    def normal(self, images: Tensor) -> Tensor:
        """Return A^H A x / sd^2, summed over scans: the Hessian of the misfit for Gaussian noise; (C, X, Y, Z)."""

    def right_hand_side(self) -> Tensor:
        """Return A^H y / sd^2, summed over scans; (C, X, Y, Z)."""

    def refreshed(self, images: Tensor) -> Data:
        """Return the data with the model's own unknowns found again, given `images` (C, X, Y, Z)."""


@dataclass(frozen=True, eq=False)
class OneScan:
    """One magnitude scan, its operator and its noise per real channel; intensities are relative to WM = 1."""

    scan: Tensor
    operator: LinearOp
    noise_sd: float

    def __post_init__(self) -> None:
        if not self.noise_sd > 0:
            raise BadInputError(f"a scan needs a positive noise sd, got {self.noise_sd}")
        if tuple(self.scan.shape) != self.operator.shape_out:
            raise BadInputError(
                f"the operator makes scans of {self.operator.shape_out}, the scan has {tuple(self.scan.shape)}"
            )

    @property
    def n_values(self) -> int:
        """Number of scan voxels."""
        return self.scan.numel()

    @property
    def n_contrasts(self) -> int:
        """One."""
        return 1

    def misfit(self, images: Tensor) -> Tensor:
        """Return the Rician negative log likelihood of the scan given the image in `images` (1, X, Y, Z)."""
        return data_term(self.operator, images[0], self.scan, self.noise_sd)

    def normal(self, images: Tensor) -> Tensor:
        """Return A^H A x / sd^2 of `images` (1, X, Y, Z)."""
        return self.operator.H(self.operator(images)) / self.noise_sd**2

    def right_hand_side(self) -> Tensor:
        """Return A^H y / sd^2 (1, X, Y, Z)."""
        return self.operator.H(self.scan)[None] / self.noise_sd**2

    def refreshed(self, images: Tensor) -> OneScan:
        """Return the same: nothing of it is unknown."""
        return self
