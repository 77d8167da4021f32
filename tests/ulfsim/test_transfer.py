"""Transfer functions of simulated pairs, whose filter and noise are known."""

import math

import numpy as np
import pytest
import torch

from mrcore.data.acquisition import AxisPsf
from mrcore.data.grid import Grid, with_spacing
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.forward import imaging_operator
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from ulfsim.transfer import degrade, level_of, load_transfer, save_transfer, transfer_operator
from ulfsim.transfer_fit import ScanPair, evaluate, fit_transfer

FWHM_MM = (4.0, 5.0, 8.0)
PSF = tuple(AxisPsf(gaussian_fwhm_mm=width, truncate=False) for width in FWHM_MM)
SD = 0.03
GRID = head_grid(36)


def head(seed, grid=GRID):
    return digital_head(grid, seed=seed).image


def pair(seed, sd=SD, high_gain=3.0, low_gain=7.0):
    image = head(seed)
    low = add_noise(imaging_operator(GRID, GRID, PSF)(image.data), sd, seeded(seed, "pair"))
    return ScanPair(f"head {seed}", Volume(high_gain * image.data, GRID), Volume(low_gain * low, GRID))


def true_transfer(transfer):
    out = torch.ones((), dtype=torch.float64)
    for axis, (n, distance) in enumerate(zip(transfer.values.shape, transfer.node_cyc_per_mm, strict=True)):
        shape = [1, 1, 1]
        shape[axis] = n
        sigma_mm = FWHM_MM[axis] / math.sqrt(8 * math.log(2))
        k = torch.arange(n, dtype=torch.float64) * distance
        out = out * torch.exp(-2 * (math.pi * sigma_mm * k) ** 2).reshape(shape)
    return out


def noise_sd_on(transfer, grid):
    """Noise of an empty object: the level that `degrade` scales by is 1, and magnitudes are Rayleigh."""
    point = torch.zeros(grid.shape)
    point[0, 0, 0] = 1.0
    far = degrade(Volume(point, grid), transfer, seed=3).data[grid.shape[0] // 2 :]
    return float(far.mean()) / math.sqrt(math.pi / 2) / level_of(point)


@pytest.fixture(scope="module")
def pairs():
    return [pair(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def transfer(pairs):
    return fit_transfer(pairs)


def test_known_filter_is_found(transfer):
    error = transfer.values - true_transfer(transfer)
    assert float(error.abs().max()) < 0.1
    assert float(error.square().mean().sqrt()) < 0.035
    # Where a head has most of its energy, each axis by itself: none is taken for another.
    true = true_transfer(transfer)
    for axis in range(3):
        found, known = (h.movedim(axis, 0)[:8, 0, 0] for h in (transfer.values, true))
        assert torch.allclose(found, known, atol=0.035)


def test_clean_pairs_give_the_filter_closely():
    found = fit_transfer([pair(seed, sd=0.0) for seed in range(2)])
    assert float((found.values - true_transfer(found)).square().mean().sqrt()) < 0.015
    assert noise_sd_on(found, GRID) < 0.002


def test_noise_is_that_of_the_pairs(transfer):
    assert noise_sd_on(transfer, GRID) * level_of(head(0).data) == pytest.approx(SD, rel=0.04)


def test_smoothness_lowers_the_left_out_error(pairs, transfer):
    rough = fit_transfer(pairs, smoothness=0.0)
    raw = fit_transfer(pairs, smoothness=0.0, node_cyc_per_mm=1 / GRID.fov_mm[0])  # each k by itself
    left_out = [evaluate(fit_transfer([p for p in pairs if p is not one], smoothness=0.0), [one]) for one in pairs]
    one_by_one = [error for each in left_out for error in each.values()]
    assert rough.errors == pytest.approx(one_by_one, rel=1e-4)  # each solved by iterations
    assert all(a < b < c for a, b, c in zip(transfer.errors, rough.errors, raw.errors, strict=True))


def test_a_pair_that_was_fitted_on_is_refused(pairs, transfer):
    renamed = ScanPair("another name", pairs[0].high, pair(0, sd=0.02).low)
    for known in (pairs[1], renamed):
        with pytest.raises(BadInputError, match="used to fit"):
            evaluate(transfer, [known])
    fresh = pair(7)
    error = evaluate(transfer, [fresh])[fresh.name]
    assert error == pytest.approx(np.mean(transfer.errors), rel=0.1)
    noise = float((fresh.low.data.double() - 7 * imaging_operator(GRID, GRID, PSF)(head(7).data)).square().sum())
    assert error < 1.2 * noise / float(fresh.low.data.double().square().sum())


def test_a_third_head_gets_blur_and_noise(transfer):
    """On another grid: other spacing, another order of axes, one flipped."""
    grid = with_spacing(GRID, (3.2, 3.2, 3.2))
    affine = grid.affine[:, [2, 0, 1, 3]] * np.array([1, -1, 1, 1])
    affine[:3, 3] = grid.affine[:3, 3] + grid.affine[:3, 0] * (grid.shape[0] - 1)
    image = head(9, Grid(grid.shape, affine))
    scan = degrade(image, transfer, seed=5)
    expected = imaging_operator(image.grid, image.grid, (PSF[2], PSF[0], PSF[1]))(image.data)
    inside = expected > 0.3
    error = (scan.data - expected)[inside]
    sd = noise_sd_on(transfer, image.grid) * level_of(image.data)
    assert float(error.std()) == pytest.approx(sd, rel=0.1)
    assert abs(float(error.mean())) < 0.02
    corner = scan.data[:5, :5, :5]
    assert float(corner.mean()) == pytest.approx(1.2533 * sd, rel=0.1)
    assert scan.grid.matches(image.grid)


def test_intensities_scale_with_the_image_and_noise_with_them(transfer):
    image = head(9)
    tenfold = degrade(Volume(10 * image.data, GRID), transfer, seed=5)
    assert torch.allclose(tenfold.data, 10 * degrade(image, transfer, seed=5).data, rtol=1e-4, atol=1e-5)


def test_seed_decides_the_bytes(transfer):
    image = head(9)
    first, again, other = (degrade(image, transfer, seed).data for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_scan_grid_samples_what_was_filtered(transfer):
    image = head(9)
    coarse = with_spacing(GRID, (4.0, 4.0, 8.0))
    scan = degrade(image, transfer, 1, coarse)
    assert scan.grid.matches(coarse)
    expected = imaging_operator(GRID, coarse, PSF)(image.data)
    assert float((scan.data - expected)[expected > 0.3].abs().mean()) < 0.03


def test_operator_is_its_own_adjoint_and_keeps_a_flat_image(transfer):
    operator = transfer_operator(transfer, GRID, torch.float64)
    x, y = (torch.randn(GRID.shape, dtype=torch.complex128, generator=seeded(s, "dot")) for s in (0, 1))
    forward, backward = torch.vdot(operator(x).ravel(), y.ravel()), torch.vdot(x.ravel(), operator.H(y).ravel())
    assert abs(forward - backward) < 1e-10 * abs(forward)
    flat = torch.full(GRID.shape, 2.5, dtype=torch.complex128)
    assert torch.allclose(operator(flat), flat)
    # A real image stays real.
    assert float(operator(x.real.to(torch.complex128)).imag.abs().max()) < 1e-12


def test_noise_keeps_its_colour():
    """Pairs whose low-field scan was interpolated from 6 mm slices have no noise beyond that band."""
    coarse = with_spacing(GRID, (4.0, 4.0, 8.0))
    up = imaging_operator(coarse, GRID, (AxisPsf(truncate=False),) * 3)
    made = []
    for seed in range(2):
        image = head(seed)
        low = add_noise(imaging_operator(GRID, coarse, PSF)(image.data), SD, seeded(seed, "pair"))
        made.append(ScanPair(f"head {seed}", image, Volume(up(low).clamp_min(0), GRID)))
    density = fit_transfer(made).noise_density
    k_slice = int(0.8 / 16 / 0.0104)
    assert float(density[0:4, 0:4, 2 * k_slice :].mean()) < 0.2 * float(density[0:4, 0:4, :k_slice].mean())


def test_saved_and_loaded_it_is_the_same(transfer, tmp_path):
    path = tmp_path / "tf.npz"
    save_transfer(transfer, path)
    again = load_transfer(path)
    assert torch.equal(again.values, transfer.values)
    assert torch.equal(again.noise_density, transfer.noise_density)
    for name in ("node_cyc_per_mm", "smoothness", "pairs", "sha256", "errors"):
        assert getattr(again, name) == getattr(transfer, name)
    first = path.read_bytes()
    with pytest.raises(BadInputError, match="exists"):
        save_transfer(transfer, path)
    save_transfer(transfer, path, force=True)
    assert path.read_bytes() == first


def test_bad_files_and_pairs_are_refused(tmp_path, pairs):
    path = tmp_path / "tf.npz"
    with pytest.raises(BadInputError, match="no file"):
        load_transfer(path)
    path.write_bytes(b"PK nonsense")
    with pytest.raises(BadInputError, match="no transfer function"):
        load_transfer(path)
    with path.open("wb") as file:
        np.savez(file, values=np.ones(3))
    with pytest.raises(BadInputError, match="no transfer function"):
        load_transfer(path)
    with pytest.raises(GridMismatchError, match="pair 'x'"):
        ScanPair("x", pairs[0].high, Volume(torch.ones((4, 4, 4)), head_grid(4)))
    with pytest.raises(BadInputError, match="same scan"):
        fit_transfer([pairs[0], ScanPair("twin", pairs[0].high, pairs[1].low)])
    with pytest.raises(BadInputError, match="one pair"):
        fit_transfer(pairs[:1])
    with pytest.raises(BadInputError, match="no pair"):
        fit_transfer([])
    with pytest.raises(BadInputError, match="negative"):
        fit_transfer(pairs, smoothness=-1.0)
    assert fit_transfer(pairs[:1], smoothness=0.1).errors == ()


def test_unrelated_images_are_refused(pairs):
    image = pairs[0].high
    negative = Volume((image.data.max() - image.data) * (image.data > 0), GRID)
    shifted = Volume(negative.data.roll((24, 24, 24), (0, 1, 2)), GRID)
    with pytest.raises(BadInputError, match="do not overlap: 17% of the smaller"):
        fit_transfer([ScanPair("a", Volume(image.data - image.data.mean() * 0.99, GRID), shifted)], smoothness=0.1)
