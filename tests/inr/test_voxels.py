"""Voxel baselines: positions, the Tikhonov solution against a dense solve, Huber-TV."""

import math

import pytest
import torch
from operators import blob, centroid_mm, grid, imaging, numbers, positions_mm

from inr.losses import data_term, total_variation
from inr.voxels import GRADIENT_SD, TvSettings, cosine, cubic, ended, huber_tv, tikhonov, trilinear
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.volume import Volume
from mrcore.forward import covering_grid, imaging_operator, predict
from mrcore.noise import add_noise
from mrcore.random import seeded

F64 = torch.float64
SCAN = grid((24, 20, 12), (1.6, 1.7, 3.0), (5, -8, 12), (12, -8, 30), flips=(0,))


@pytest.mark.parametrize("interpolate", [trilinear, cubic])
def test_interpolation_keeps_places_in_the_world(interpolate):
    place = (7.0, -6.0, 10.5)
    out = interpolate(Volume(blob(SCAN, place, 4.0), SCAN), covering_grid(SCAN, 1.0))
    assert out.grid.spacing_mm == pytest.approx((1, 1, 1))
    assert abs(centroid_mm(out.data, out.grid) - place).max() < 0.05


@pytest.mark.parametrize("interpolate", [trilinear, cubic])
def test_interpolation_is_exact_on_a_ramp(interpolate):
    # Outside the field of view the scan reads 0, which splines feel for a few voxels.
    wide = grid((30, 28, 24), (1.6, 1.7, 3.0), (5, -8, 12), (12, -8, 30), flips=(0,))
    ramp = (positions_mm(wide) * torch.tensor([0.5, -0.3, 0.2], dtype=F64)).sum(-1) + 50
    lattice = grid((9, 9, 9), (0.9, 0.8, 1.1), (5, -8, 12))
    expected = (positions_mm(lattice) * torch.tensor([0.5, -0.3, 0.2], dtype=F64)).sum(-1) + 50
    assert torch.allclose(interpolate(Volume(ramp, wide), lattice).data, expected, atol=0.002)


def test_cubic_is_sharper_than_trilinear_and_never_negative():
    scan = Volume(blob(SCAN, (5, -8, 12), 2.0), SCAN)
    sharp, soft = (f(scan, covering_grid(SCAN, 0.8)).data for f in (cubic, trilinear))
    truth = blob(covering_grid(SCAN, 0.8), (5, -8, 12), 2.0)
    assert (sharp - truth).square().mean() < 0.5 * (soft - truth).square().mean()
    edge = torch.zeros(SCAN.shape)
    edge[12:] = 1.0
    out = cubic(Volume(edge, SCAN, {"a": 1}), covering_grid(SCAN, 0.8))
    assert out.data.min().item() == 0
    assert out.data.max().item() > 1.02
    assert out.meta == {"a": 1}


@pytest.mark.parametrize("noise_sd", [0.02, 0.5])
def test_tikhonov_against_a_dense_solve(noise_sd):
    source, scan_grid = grid((6, 5, 8), (1.0, 2.4, 0.8)), grid((3, 3, 2), (2.0, 4.0, 3.2))
    operator = imaging(scan_grid, source=source)
    n = math.prod(source.shape)
    basis = torch.eye(n, dtype=F64).reshape(n, *source.shape)
    dense = operator(basis).reshape(n, -1).T
    penalty = torch.zeros(n, n, dtype=F64)
    for axis, spacing in enumerate(source.spacing_mm):
        step = torch.diff(basis, dim=axis + 1).reshape(n, -1).T / spacing
        penalty += step.T @ step
    scan = numbers(3, 3, 2).abs()
    # Both terms as integrals: the penalty per mm^3, the data per scan voxel.
    weight = (noise_sd / GRADIENT_SD) ** 2 * math.prod(source.spacing_mm)
    expected = torch.linalg.solve(dense.T @ dense + weight * penalty, dense.T @ scan.reshape(-1))
    found = tikhonov(operator, scan, noise_sd, torch.zeros(source.shape, dtype=F64), source.spacing_mm, max_iter=300)
    assert found.converged
    assert (found.x.reshape(-1) - expected).norm() < 0.02 * expected.norm()


def test_tikhonov_keeps_a_flat_object_and_smooths_more_with_more_noise():
    source, scan_grid = grid((12, 12, 12), (1.0, 1.0, 1.0)), grid((6, 6, 4), (2.0, 2.0, 3.0))
    operator = imaging(scan_grid, source=source)
    flat = torch.full(source.shape, 0.8, dtype=F64)
    kept = tikhonov(operator, operator(flat), 0.05, flat, source.spacing_mm)
    assert torch.allclose(kept.x, flat, atol=1e-3)
    scan = numbers(6, 6, 4).abs()
    rough = [tikhonov(operator, scan, sd, flat, source.spacing_mm, 60).x for sd in (0.01, 0.5)]
    variation = [total_variation(x, source.spacing_mm, 0.0).item() for x in rough]
    assert variation[1] < 0.5 * variation[0]


@pytest.fixture(scope="module")
def boxes():
    """Piecewise constant boxes of 1 mm voxels and a noisy scan of 1.6 x 1.6 x 4 mm."""
    source = grid((32, 32, 32), (1.0, 1.0, 1.0))
    truth = torch.zeros(source.shape)
    truth[5:27, 6:26, 6:26] = 0.6
    truth[10:22, 10:20, 11:21] = 1.0
    scan_grid = grid((20, 20, 8), (1.6, 1.6, 4.0))
    operator = imaging_operator(source, scan_grid, gaussian_psf(scan_grid.spacing_mm))
    scan = add_noise(predict(operator, truth), 0.02, seeded(0, "boxes"))
    return source, scan_grid, operator, truth, scan


def test_huber_tv_recovers_boxes_better_than_cubic(boxes):
    source, scan_grid, operator, truth, scan = boxes
    start = cubic(Volume(scan, scan_grid), source).data
    settings = TvSettings(weight=1.0)
    found = huber_tv(operator, scan, 0.02, start, source.spacing_mm, settings)

    def error(image):
        return (image - truth).square().mean().sqrt().item()

    def objective(image):
        variation = total_variation(image, source.spacing_mm, settings.smoothing)
        return (data_term(operator, image, scan, 0.02) + settings.weight * variation).item()

    assert objective(found.x) < 0.8 * objective(start)
    assert found.history[-1] < 0.8 * found.history[0]
    assert found.history[0] * scan.numel() == pytest.approx(objective(start), rel=1e-4)
    assert len(found.history) == found.n_iter == settings.n_steps
    assert error(found.x) < 0.8 * error(start)
    assert found.x.min().item() >= 0
    assert torch.equal(start, cubic(Volume(scan, scan_grid), source).data), "the start is left as it was"


def test_every_setting_of_huber_tv_changes_the_result(boxes):
    source, scan_grid, operator, _, scan = boxes
    start = cubic(Volume(scan, scan_grid), source).data
    base = TvSettings(n_steps=6)
    first = huber_tv(operator, scan, 0.02, start, source.spacing_mm, base).x
    for name, value in {"weight": 5.0, "smoothing": 0.1, "n_steps": 7, "learning_rate": 0.01}.items():
        other = TvSettings(**{"n_steps": 6, name: value})
        assert not torch.allclose(first, huber_tv(operator, scan, 0.02, start, source.spacing_mm, other).x, atol=1e-4)
    assert torch.equal(first, huber_tv(operator, scan, 0.02, start, source.spacing_mm, base).x)


def test_rate_falls_along_half_a_cosine():
    assert [cosine(step, 4) for step in range(5)] == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0])


def test_end_of_a_descent_says_whether_it_settled():
    falling = ended(torch.zeros(1), [100.0 - i for i in range(50)])
    settled = ended(torch.zeros(1), [1 + 100 * 0.7**i for i in range(50)])
    assert (falling.converged, settled.converged) == (False, True)
    assert "of 50 steps" in falling.message
    assert settled.n_iter == 50
    assert not ended(torch.zeros(1), [1.0]).converged, "one step says nothing"
