"""What data do not determine: on operators whose null space is known, and against dense algebra."""

import math

import pytest
import torch
from operators import grid

from inr.scans.heldout import split
from inr.scans.single import View
from inr.trust.null_space import hidden_excess, joint_view, null_component, posterior_samples, posterior_sd
from mrcore.data.acquisition import gaussian_psf
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator
from mrcore.operators.pointwise import DiagonalOp
from mrcore.operators.separable import SeparableOp

F64 = torch.float64


def seen_half() -> DiagonalOp:
    """Sees the first four of eight rows, nothing of the others."""
    weight = torch.zeros(8, 6, 5, dtype=F64)
    weight[:4] = 1
    return DiagonalOp(weight)


def pair_means() -> SeparableOp:
    """Sees the means of pairs along the first axis: their differences are its null space."""
    eye = torch.eye(4, dtype=F64)
    return SeparableOp((0.5 * torch.eye(4, dtype=F64).repeat_interleave(2, 1), eye, eye))


def dense(operator) -> torch.Tensor:
    n = math.prod(operator.shape_in)
    return operator(torch.eye(n, dtype=F64).reshape(n, *operator.shape_in)).reshape(n, -1).T


def test_null_component_is_what_the_operator_does_not_see():
    operator = pair_means()
    image = torch.randn(operator.shape_in, generator=torch.Generator().manual_seed(0), dtype=F64)
    hidden = null_component(operator, image, 1e-4)
    half = (image[0::2] - image[1::2]) / 2
    expected = torch.stack([half, -half], 1).reshape(image.shape)
    assert torch.allclose(hidden, expected, atol=1e-4)
    assert operator(hidden).abs().max() < 1e-4


SCAN, LATTICE = grid((5, 5, 3), (2.0, 2.0, 4.0)), grid((6, 6, 6), (1.7, 1.7, 2.0))


def dense_penalty(wide: torch.Tensor) -> torch.Tensor:
    """The precision of the prior whose gradients have the sd `wide` (X, Y, Z)."""
    n = math.prod(LATTICE.shape)
    eye = torch.eye(n, dtype=F64).reshape(n, *LATTICE.shape)
    weight = math.prod(LATTICE.spacing_mm) / wide**2
    penalty = torch.zeros(n, n, dtype=F64)
    for axis, spacing in enumerate(LATTICE.spacing_mm):
        steps = torch.diff(eye, dim=1 + axis).reshape(n, -1).T / spacing
        ends = weight.narrow(axis, 1, LATTICE.shape[axis] - 1) + weight.narrow(axis, 0, LATTICE.shape[axis] - 1)
        penalty += steps.T @ (0.5 * ends.reshape(-1, 1) * steps)
    return penalty


def test_variance_of_hidden_voxels_against_dense_algebra():
    operator = imaging_operator(LATTICE, SCAN, gaussian_psf(SCAN.spacing_mm), dtype=F64)
    seen = split(operator, torch.zeros(SCAN.shape, dtype=F64), SCAN.spacing_mm, fold=0, seed=1)
    tested = seen.held_out.reshape(-1)
    assert 1 <= int(tested.sum()) < 10
    matrix = dense(operator)
    precision = matrix[~tested].T @ matrix[~tested] / 0.1**2
    covariance = torch.linalg.inv(precision + dense_penalty(torch.full(LATTICE.shape, 0.2, dtype=F64)))
    exact = (matrix[tested] @ covariance @ matrix[tested].T).diagonal().mean().item() / 0.1**2
    samples = posterior_samples(seen.operator, 0.1, LATTICE.spacing_mm, 1, 200, gradient_sd=0.2)
    found = hidden_excess(samples, operator, seen.held_out, 0.1)
    assert found == pytest.approx(exact, rel=0.15)
    with pytest.raises(BadInputError, match="no hidden voxel"):
        hidden_excess([], operator, seen.held_out & False, 0.1)


@pytest.mark.parametrize("is_map", [False, True])
def test_posterior_sd_against_dense_algebra(is_map):
    lattice = LATTICE
    operator = imaging_operator(lattice, SCAN, gaussian_psf(SCAN.spacing_mm), dtype=F64)
    matrix = dense(operator)
    wide = torch.full(lattice.shape, 0.2, dtype=F64)
    wide[:3] = 0.05 if is_map else 0.2
    precision = matrix.T @ matrix / 0.1**2 + dense_penalty(wide)
    exact = torch.linalg.inv(precision).diagonal().sqrt().reshape(lattice.shape)
    n_samples = 100
    found = posterior_sd(
        operator, 0.1, lattice.spacing_mm, seed=0, n_samples=n_samples, gradient_sd=wide if is_map else 0.2
    )
    ratio = found / exact
    assert ratio.mean().item() == pytest.approx(1, abs=0.05)
    assert ratio.std().item() == pytest.approx(math.sqrt(1 / (2 * n_samples)), rel=0.5)


def test_same_seed_same_map_other_seed_another():
    one, same, other = (posterior_sd(pair_means(), 0.1, (1.0, 1.0, 1.0), seed, 2) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("bad", [(0.0, 0.3, 4), (0.1, 0.0, 4), (0.1, 0.3, 0)])
def test_what_makes_no_map(bad):
    noise_sd, prior_sd, n_probes = bad
    with pytest.raises(BadInputError):
        posterior_sd(seen_half(), noise_sd, (1.0, 1.0, 1.0), 0, n_probes, prior_sd)


def test_a_single_scan_keeps_its_operator():
    scan = torch.zeros(8, 6, 5, dtype=F64)
    operator, noise_sd = joint_view([View(seen_half(), scan, 0.1)], 0)
    assert isinstance(operator, DiagonalOp)
    assert noise_sd == 0.1


def test_scans_of_a_contrast_tell_together_what_each_tells_in_its_own_noise():
    """Two scans see the same voxels, the second with twice the noise and half of its voxels hidden."""
    ones, weight = DiagonalOp(torch.ones(4, 3, 2, dtype=F64)), torch.ones(4, 3, 2, dtype=F64)
    weight[2:] = 0
    scan = torch.zeros(4, 3, 2, dtype=F64)
    views = [View(ones, scan, 0.1, 0), View(ones, scan, 0.2, 0, weight), View(ones, scan, 0.01, 1)]
    operator, noise_sd = joint_view(views, 0)
    assert noise_sd == 0.1
    precision = operator.H(operator(torch.ones(4, 3, 2, dtype=F64))) / noise_sd**2
    expected = 1 / 0.1**2 + weight / 0.2**2
    assert torch.allclose(precision, expected)
    with pytest.raises(BadInputError, match="no scan shows the contrast 2"):
        joint_view(views, 2)
