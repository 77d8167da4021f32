"""Several scans of one person as the data of one fit: any orientation, contrasts that share the anatomy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from inr.losses import Misfit, rician_misfit
from inr.scans.alignment import AlignmentSettings, Pose, align, fitted_scale, posed
from inr.scans.bias import BiasField, estimate_bias
from inr.scans.single import View
from inr.voxels import GRADIENT_SD, add_gradient_normal
from mrcore.data.acquisition import Psf
from mrcore.data.brief import Brief
from mrcore.data.grid import Grid, Shape3, cropped, to_voxel, to_world
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import covering_grid, imaging_operator, predict
from mrcore.noise import chi_moments
from mrcore.operators.indexing import CropOp
from mrcore.operators.linop import LinearOp
from mrcore.operators.pointwise import DiagonalOp
from mrcore.solvers import Solution, conjugate_gradient
from mrcore.spatial.resampling import resample

SLICE_TOLERANCE = 3.0
"""Residual power of a slice, relative to the median slice of its stack, up to which it counts in full."""


@dataclass(frozen=True, eq=False, repr=False)
class Stack(Brief):
    """One scan of the subject: what was measured, where, how, and how far it is trusted.

    Attributes:
        scan: magnitudes on the grid that the header states.
        noise_sd: per real channel, in the scan's units.
        psf: point spread along the scan's voxel axes.
        contrast: index of the image (channel) that it shows.
        pose: what the header does not say; the first stack is the frame of all.
        scale: intensity of the scan per intensity of the image.
        slice_weights: (n_slices) 0 to 1 along `slice_axis`; None for 1.
        hidden: voxels of the scan (bool) that do not count, whatever they hold; None for none.

    Raises:
        BadInputError: a noise, scale or contrast out of range, or weights that do not fit the slices.
    """

    scan: Volume
    noise_sd: float
    psf: Psf
    contrast: int = 0
    pose: Pose = field(default_factory=Pose)
    scale: float = 1.0
    slice_weights: Tensor | None = None
    hidden: Tensor | None = None

    def __post_init__(self) -> None:
        if not min(self.noise_sd, self.scale) > 0 or not max(self.noise_sd, self.scale) < math.inf:
            raise BadInputError(
                f"a stack needs a positive, finite noise_sd and scale, got {self.noise_sd} and {self.scale}"
            )
        if self.contrast < 0:
            raise BadInputError(f"the contrast of a stack is the index of an image, from 0, got {self.contrast}")
        n_slices = self.scan.grid.shape[self.slice_axis]
        if self.slice_weights is not None and tuple(self.slice_weights.shape) != (n_slices,):
            raise BadInputError(
                f"the stack has {n_slices} slices along its axis {self.slice_axis}, got weights of shape "
                f"{tuple(self.slice_weights.shape)}"
            )

    def to(self, device: torch.device | str) -> Stack:
        """Return the stack on `device`."""
        weights, hidden = (None if x is None else x.to(device) for x in (self.slice_weights, self.hidden))
        return replace(self, scan=self.scan.to(device), slice_weights=weights, hidden=hidden)

    @property
    def slice_axis(self) -> int:
        """The axis of the longest voxels; the last of equals."""
        spacing = self.scan.grid.spacing_mm
        return max(range(3), key=lambda axis: (round(spacing[axis], 3), axis))

    @property
    def grid(self) -> Grid:
        """Where the scan lies."""
        return posed(self.scan.grid, self.pose)


@dataclass(frozen=True, eq=False, repr=False)
class Stacks(Brief):
    """Scans of one subject on one `lattice`: data of `inr.fitting.fit`. Images are (C, X, Y, Z), a channel a contrast.

    Scan voxels that reach beyond the lattice do not count. The first stack of each contrast keeps pose and scale;
    `alignment` sets how those of the others are found. Images are 0 outside `support` (X, Y, Z, bool), where it is
    given: turned stacks are then predicted several times faster. `n_values` counts the scan voxels that count.
    `likelihood` is that of the noise. `biases`, one a contrast, are smooth receive fields on the lattice of which the
    images are free; they are found again with the poses where `prob` (T, X, Y, Z) holds the tissues for it.

    Raises:
        BadInputError: no stacks, contrasts that are not 0, 1, 2, ..., or a stack that does not meet the lattice.
    """

    stacks: tuple[Stack, ...]
    lattice: Grid
    alignment: AlignmentSettings = field(default_factory=lambda: AlignmentSettings((3.0,)))
    support: Tensor | None = None
    likelihood: Misfit = rician_misfit
    biases: tuple[BiasField, ...] = ()
    prob: Tensor | None = field(default=None, repr=False)
    operators: tuple[LinearOp, ...] = field(init=False, repr=False)
    weights: tuple[Tensor, ...] = field(init=False, repr=False)
    n_values: int = field(init=False)
    _fields: Tensor | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        contrasts = {stack.contrast for stack in self.stacks}
        if not self.stacks or contrasts != set(range(len(contrasts))):
            raise BadInputError(f"stacks need contrasts 0, 1, 2, ... without gaps, got {sorted(contrasts)}")
        if self.biases and len(self.biases) != len(contrasts):
            raise BadInputError(f"{len(contrasts)} contrasts need as many receive fields, got {len(self.biases)}")
        fields = torch.stack([bias.field() for bias in self.biases]) if self.biases else None
        object.__setattr__(self, "_fields", fields)
        object.__setattr__(self, "weights", tuple(_weights(stack, self.lattice) for stack in self.stacks))
        object.__setattr__(self, "n_values", sum(int((weight > 0).sum()) for weight in self.weights))
        object.__setattr__(
            self, "operators", tuple(_operator(stack, self.lattice, self.support) for stack in self.stacks)
        )

    @property
    def n_contrasts(self) -> int:
        """Number of images."""
        return 1 + max(stack.contrast for stack in self.stacks)

    def misfit(self, images: Tensor) -> Tensor:
        """Return the weighted negative log likelihood of all scans given `images` (C, X, Y, Z), summed."""
        total = images.new_zeros(())
        for stack, predicted, weight in zip(self.stacks, self.predictions(images), self.weights, strict=True):
            total = total + self.likelihood(predicted, stack.scan.data, stack.noise_sd, weight)
        return total

    def predictions(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the noise-free scan of each stack, in its own intensities, given `images` (C, X, Y, Z)."""
        self._check(images)
        seen = self.with_fields(images)
        for stack, operator in zip(self.stacks, self.operators, strict=True):
            yield stack.scale * predict(operator, seen[stack.contrast])

    def with_fields(self, images: Tensor) -> Tensor:
        """Return `images` (C, X, Y, Z) as the receive fields show them; as they are where none are known."""
        return images if self._fields is None else images * self._fields.to(images)

    def views(self) -> tuple[View, ...]:
        """Return each scan over its scale, with its own operator, receive field included."""
        found = []
        for stack, operator, weight in zip(self.stacks, self.operators, self.weights, strict=True):
            if self._fields is not None:
                operator = operator @ DiagonalOp(self._fields[stack.contrast].to(operator.dtype))
            scan, noise_sd = stack.scan.data / stack.scale, stack.noise_sd / stack.scale
            found.append(View(operator, scan, noise_sd, stack.contrast, weight))
        return tuple(found)

    def normal(self, images: Tensor) -> Tensor:
        """Return sum over stacks of s^2 A^H W A x / sd^2, the Hessian of the Gaussian misfit, on (C, X, Y, Z)."""
        self._check(images)
        out, seen = torch.zeros_like(images), self.with_fields(images)
        for stack, operator, weight in zip(self.stacks, self.operators, self.weights, strict=True):
            gain = (stack.scale / stack.noise_sd) ** 2
            out[stack.contrast] += operator.H((gain * weight) * operator(seen[stack.contrast]))
        return self.with_fields(out)

    def right_hand_side(self) -> Tensor:
        """Return sum over stacks of s A^H W y / sd^2 (C, X, Y, Z)."""
        first = self.stacks[0].scan.data
        out = first.new_zeros((self.n_contrasts, *self.lattice.shape))
        for stack, operator, weight in zip(self.stacks, self.operators, self.weights, strict=True):
            out[stack.contrast] += operator.H((stack.scale / stack.noise_sd**2) * weight * stack.scan.data)
        return self.with_fields(out)

    def refreshed(self, images: Tensor) -> Stacks:
        """Return the stacks with poses, scales, slice weights and fields found again, given `images` (C, X, Y, Z)."""
        self._check(images)
        seen = [Volume(image, self.lattice) for image in self.with_fields(images.detach())]
        # A fit that is under way may be too dark everywhere: scales are those relative to the first stack's.
        gains = [self._gain(self._lead(contrast), image) for contrast, image in enumerate(seen)]
        found = tuple(
            self._refreshed(number, seen[stack.contrast], gains[stack.contrast])
            for number, stack in enumerate(self.stacks)
        )
        biases = self.biases
        if self.prob is not None:
            biases = tuple(estimate_bias(image.data, self.prob, self.lattice.spacing_mm) for image in seen)
        return replace(self, stacks=found, biases=biases)

    def to(self, device: torch.device | str) -> Stacks:
        """Return the stacks on `device`; operators are made anew there."""
        support, prob = (None if x is None else x.to(device) for x in (self.support, self.prob))
        biases = tuple(bias.to(device) for bias in self.biases)
        stacks = tuple(stack.to(device) for stack in self.stacks)
        return replace(self, stacks=stacks, support=support, prob=prob, biases=biases)

    def _lead(self, contrast: int) -> int:
        """Return which stack is the first of a contrast: it sets pose and scale of the image."""
        return next(number for number, stack in enumerate(self.stacks) if stack.contrast == contrast)

    def _gain(self, number: int, image: Volume) -> float:
        stack, predicted = self.stacks[number], predict(self.operators[number], image.data)
        return fitted_scale(stack.scan.data, predicted, self.weights[number], self.alignment) / stack.scale

    def _refreshed(self, number: int, image: Volume, gain: float = 1.0) -> Stack:
        stack = self._weighed(self.stacks[number], self.operators[number], image)
        if number == self._lead(stack.contrast):
            return stack
        # Weights before and after: a slice that is wrong must not steer the pose, nor a wrong pose condemn slices.
        found = align(image, stack.scan, stack.psf, stack.pose, _weights(stack, self.lattice), self.alignment)
        stack = replace(stack, pose=found.pose, scale=found.scale / gain)
        return self._weighed(stack, _operator(stack, self.lattice, self.support), image)

    def _weighed(self, stack: Stack, operator: LinearOp, image: Volume) -> Stack:
        predicted = stack.scale * predict(operator, image.data)
        return replace(stack, slice_weights=slice_weights(stack, predicted, _counted(stack, self.lattice)))

    def _check(self, images: Tensor) -> None:
        expected = (self.n_contrasts, *self.lattice.shape)
        if tuple(images.shape) != expected:
            raise BadInputError(f"these stacks need images (C, X, Y, Z) of shape {expected}, got {tuple(images.shape)}")


def with_biases(data: Stacks, start: Tensor, prob: Tensor) -> tuple[Stacks, Tensor]:
    """Return the stacks with a receive field a contrast, estimated from `start` (C, X, Y, Z), and the start without.

    The fields are found again in a fit, against the means of the tissues `prob` (T, X, Y, Z).

    Raises:
        BadInputError: too little tissue to estimate them from.
    """
    biases = tuple(estimate_bias(image, prob, data.lattice.spacing_mm) for image in start)
    found = replace(data, biases=biases, prob=prob)
    return found, start / torch.stack([bias.field() for bias in biases])


def slice_weights(stack: Stack, predicted: Tensor, counted: Tensor) -> Tensor:
    """Return the weight (n_slices) of each slice from its residual power.

    q_s is the mean of z^2 over the slice's `counted` voxels (bool), z = (y - E[y]) / sd[y] under Rician noise about
    `predicted`; u_s = q_s / max(1, median q). The weight is min(1, 3 / u_s): beyond three times the power of the
    usual slice, where misfit is more than noise, it falls as the inverse of the slice's own variance.
    """
    mean, sd = chi_moments(predicted, stack.noise_sd)
    counted = counted.to(mean.device)
    power = ((stack.scan.data - mean) / sd).square() * counted
    across = [axis for axis in range(3) if axis != stack.slice_axis]
    n_counted = counted.sum(across)
    q = power.sum(across) / n_counted.clamp_min(1)
    if not bool((n_counted > 0).any()):
        return torch.ones_like(q)
    usual = max(1.0, float(q[n_counted > 0].median()))
    return (SLICE_TOLERANCE * usual / q.clamp_min(1e-12)).clamp_max(1.0)


def inside(scan_grid: Grid, lattice: Grid, tolerance_mm: float = 1e-2) -> Tensor:
    """Return which scan voxels (bool) lie in the field of view of `lattice` with their whole box."""
    steps = np.linalg.solve(lattice.affine[:3, :3], scan_grid.affine[:3, :3])
    reach = np.abs(steps).sum(1) / 2 - tolerance_mm / np.array(lattice.spacing_mm)
    out = torch.ones(scan_grid.shape, dtype=torch.bool)
    corner = to_voxel(lattice, to_world(scan_grid, np.zeros(3)))
    index = [torch.arange(n, dtype=torch.float64) for n in scan_grid.shape]
    for axis, n in enumerate(lattice.shape):
        i, j, k = (float(s) * values for s, values in zip(steps[axis], index, strict=True))
        at = float(corner[axis]) + i[:, None, None] + j[:, None] + k
        out &= (at - float(reach[axis]) >= -0.5) & (at + float(reach[axis]) <= n - 0.5)
    return out


def tikhonov_of(data: Stacks, start: Tensor | None = None, max_iter: int = 15, about: Tensor | None = None) -> Solution:
    """Minimise the Gaussian misfit of all stacks plus |grad x|^2 / (2 GRADIENT_SD^2): images `x` (C, X, Y, Z).

    `start` is the mean of the interpolated scans where none is given; intensities are relative to WM = 1. With images
    to start `about` (C, X, Y, Z) `x` is the smooth change of these that the scans ask for.
    """
    spacing = data.lattice.spacing_mm
    weight = math.prod(spacing) / GRADIENT_SD**2

    def normal(images: Tensor) -> Tensor:
        out = data.normal(images)
        for image, into in zip(images, out, strict=True):
            add_gradient_normal(into, image, weight, spacing)
        return out

    if about is not None:
        left = data.right_hand_side() - data.normal(about)
        return conjugate_gradient(normal, left, torch.zeros_like(about), max_iter, tolerance=1e-3)
    begin = mean_of(data) if start is None else start
    return conjugate_gradient(normal, data.right_hand_side(), begin, max_iter, tolerance=1e-3)


def mean_of(data: Stacks) -> Tensor:
    """Return the mean of the scans, interpolated linearly and divided by their scales: (C, X, Y, Z)."""
    total = torch.zeros((data.n_contrasts, *data.lattice.shape), dtype=data.stacks[0].scan.data.dtype)
    share = torch.zeros_like(total)
    for stack in data.stacks:
        # What is interpolated beyond the outermost voxels counts as little as it holds of them.
        for values, into in ((stack.scan.data.cpu() / stack.scale, total), (torch.ones(stack.grid.shape), share)):
            into[stack.contrast] += resample(Volume(values, stack.grid), data.lattice, order=1).data
    return (total / share.clamp_min(1e-3)).to(data.stacks[0].scan.data.device)


def aligned(
    data: Stacks, voxel_mm: float = 4.0, n_rounds: int = 3, settings: AlignmentSettings | None = None
) -> Stacks:
    """Return the stacks with poses, scales and slice weights from one another, before any fit.

    On a lattice of `voxel_mm` each stack in turn is compared with the Tikhonov image of the *others* of its contrast:
    an image that the stack itself went into would hold it where it is. A contrast with one stack stays as it is.
    """
    settings = settings or AlignmentSettings((voxel_mm,))
    coarse = replace(data, lattice=covering_grid(data.lattice, voxel_mm), support=None, alignment=settings)
    for _ in range(n_rounds):
        for number, stack in enumerate(coarse.stacks):
            others = [s for n, s in enumerate(coarse.stacks) if n != number and s.contrast == stack.contrast]
            if not others:
                continue
            alone = replace(coarse, stacks=tuple(replace(s, contrast=0) for s in others))
            image = tikhonov_of(alone).x[0].clamp_min(0)
            found = coarse._refreshed(number, Volume(image, coarse.lattice))
            coarse = replace(coarse, stacks=(*coarse.stacks[:number], found, *coarse.stacks[number + 1 :]))
    return replace(data, stacks=coarse.stacks)


def _operator(stack: Stack, lattice: Grid, support: Tensor | None) -> LinearOp:
    """Return the imaging operator; where the scan leaves the lattice, of an object that is 0 outside it."""
    data = stack.scan.data
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in stack.grid.shape])).reshape(3, -1).T
    at = to_voxel(lattice, to_world(stack.grid, ends))
    beyond = np.maximum(-0.5 - at.min(0), at.max(0) + 0.5 - np.array(lattice.shape)).clip(0)
    if beyond.max() < 1e-3:
        return imaging_operator(lattice, stack.grid, stack.psf, data.dtype, data.device, support)
    n_more = np.ceil(beyond).astype(int)
    start = cast("Shape3", tuple(int(-n) for n in n_more))
    shape = cast("Shape3", tuple(int(n + 2 * more) for n, more in zip(lattice.shape, n_more, strict=True)))
    pad = CropOp(shape, lattice.shape, data.dtype, data.device).H
    if support is not None:
        support = pad(support.to(data)) > 0
    wider = cropped(lattice, start, shape)
    return imaging_operator(wider, stack.grid, stack.psf, data.dtype, data.device, support) @ pad


def _counted(stack: Stack, lattice: Grid) -> Tensor:
    """Return which voxels of the scan (bool) count: those in the lattice that are not hidden."""
    there = inside(stack.grid, lattice).to(stack.scan.data.device)
    return there if stack.hidden is None else there & ~stack.hidden


def _weights(stack: Stack, lattice: Grid) -> Tensor:
    """Return the weight of each voxel of the scan: 0 where it does not count, else that of its slice."""
    counted = _counted(stack, lattice).to(stack.scan.data)
    if not bool(counted.any()):
        raise BadInputError("no voxel of the stack lies inside the lattice; check the headers or register them first")
    if stack.slice_weights is None:
        return counted
    shape = [-1 if axis == stack.slice_axis else 1 for axis in range(3)]
    return counted * stack.slice_weights.to(counted).reshape(shape)
