"""What a fit compares its images with: scans, each seen through its own operator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from inr.losses import Misfit, rician_misfit
from inr.scans.bias import BiasField, biased, estimate_bias
from mrcore.data.brief import Brief
from mrcore.data.grid import Triple
from mrcore.errors import BadInputError
from mrcore.forward import predict
from mrcore.operators.linop import LinearOp


@dataclass(frozen=True, eq=False)
class View:
    """One scan as what an operator makes of one image, plus noise: scan = operator(images[contrast]).

    `noise_sd` is per real channel. `weight` (0 to 1, the scan's shape) is what each voxel counts; None: all alike.
    """

    operator: LinearOp
    scan: Tensor
    noise_sd: float
    contrast: int = 0
    weight: Tensor | None = None

    def counted(self, voxels: Tensor) -> Tensor:
        """Return those of `voxels` (bool, the scan's shape) that count."""
        return voxels if self.weight is None else voxels & (self.weight > 0)


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

    def predictions(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the noise-free scan of each, in its own intensities, given `images` (C, X, Y, Z)."""

    def views(self) -> tuple[View, ...]:
        """Return each scan with its own operator, relative to WM = 1, as far as poses and fields are known."""

    def refreshed(self, images: Tensor) -> Data:
        """Return the data with the model's own unknowns found again, given `images` (C, X, Y, Z)."""

    def to(self, device: torch.device | str) -> Data:
        """Return the data with all their tensors on `device`."""


def noise_on_lattice(data: Data, foreground: Tensor) -> tuple[float, ...]:
    """Return the noise sd that the scans leave in a voxel of the lattice, one a contrast, relative to WM = 1.

    It is that of the mean of all that the scans tell about the voxel, were its neighbours known: 1 / sqrt of the
    Hessian's row sums, averaged over the `foreground` (X, Y, Z, bool).
    """
    flat = foreground.float().expand(data.n_contrasts, *foreground.shape)
    precision = data.normal(flat)[:, foreground].mean(1)
    return tuple(float(p) ** -0.5 for p in precision.clamp_min(1e-12))


@dataclass(frozen=True, eq=False, repr=False)
class OneScan(Brief):
    """One magnitude scan, its operator and its noise per real channel; intensities are relative to WM = 1.

    `likelihood` is that of its noise: Rician, or `inr.losses.absolute_misfit`, which outliers move less.
    """

    scan: Tensor
    operator: LinearOp
    noise_sd: float
    likelihood: Misfit = rician_misfit

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

    @property
    def model(self) -> LinearOp:
        """The operator from the image to the noise-free scan."""
        return self.operator

    def misfit(self, images: Tensor) -> Tensor:
        """Return the negative log likelihood of the scan given the image in `images` (1, X, Y, Z)."""
        return self.likelihood(predict(self.model, images[0]), self.scan, self.noise_sd)

    def normal(self, images: Tensor) -> Tensor:
        """Return A^H A x / sd^2 of `images` (1, X, Y, Z)."""
        model = self.model
        return model.H(model(images)) / self.noise_sd**2

    def right_hand_side(self) -> Tensor:
        """Return A^H y / sd^2 (1, X, Y, Z)."""
        return self.model.H(self.scan)[None] / self.noise_sd**2

    def predictions(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the noise-free scan given the image in `images` (1, X, Y, Z)."""
        yield predict(self.model, images[0])

    def views(self) -> tuple[View]:
        """Return the scan with its operator."""
        return (View(self.model, self.scan, self.noise_sd),)

    def refreshed(self, images: Tensor) -> OneScan:
        """Return the same: nothing of it is unknown."""
        return self

    def to(self, device: torch.device | str) -> OneScan:
        """Return the scan on `device`."""
        return replace(self, scan=self.scan.to(device), operator=self.operator.to(device))


@dataclass(frozen=True, eq=False)
class BiasedScan(OneScan):
    """A scan with a smooth receive field that is found with the image: the image is free of it.

    Attributes:
        bias: the field on the lattice as known so far; None before the first estimate, which `with_bias` makes.
        prob: tissues (T, X, Y, Z) whose means it is estimated against.
        spacing_mm: of the lattice.
    """

    bias: BiasField | None = None
    prob: Tensor | None = None
    spacing_mm: Triple = (1.0, 1.0, 1.0)

    @property
    def model(self) -> LinearOp:
        """The operator of the image times the field."""
        return self.operator if self.bias is None else biased(self.operator, self.bias)

    def refreshed(self, images: Tensor) -> BiasedScan:
        """Return the scan with the field estimated again from the image times the field so far."""
        if self.prob is None:
            return self
        seen = images[0] if self.bias is None else images[0] * self.bias.field()
        return replace(self, bias=estimate_bias(seen, self.prob, self.spacing_mm))

    def to(self, device: torch.device | str) -> BiasedScan:
        """Return the scan and its field on `device`."""
        return replace(
            self,
            scan=self.scan.to(device),
            operator=self.operator.to(device),
            bias=None if self.bias is None else self.bias.to(device),
            prob=None if self.prob is None else self.prob.to(device),
        )


def with_bias(data: OneScan, start: Tensor, prob: Tensor, spacing_mm: Triple) -> tuple[BiasedScan, Tensor]:
    """Return the scan with a bias field estimated from `start` (1, X, Y, Z), and the start without it.

    Raises:
        BadInputError: too little tissue to estimate it from.
    """
    plain = BiasedScan(data.scan, data.operator, data.noise_sd, data.likelihood, None, prob, spacing_mm)
    found = plain.refreshed(start)
    return found, start if found.bias is None else start / found.bias.field()
