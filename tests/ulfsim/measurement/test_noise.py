"""One verdict on the noise of a scan, from its air and its residuals."""

import math

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.noise import complex_noise
from mrcore.noise_estimate import BACKGROUND, RESIDUAL
from mrcore.notes import cautions
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from ulfsim.measurement.contrast import measure
from ulfsim.measurement.noise import noise_core, scan_noise

SD = 0.5


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(56), seed=2)


def _scan(head, noise):
    return Volume((10.0 * head.image.data + noise).abs(), head.grid)


def _verdict(volume, head):
    return scan_noise(volume, head.mask, noise_core(head.tissues))


def test_air_and_residuals_that_agree_give_one_tight_value(head):
    found = _verdict(_scan(head, complex_noise(head.grid.shape, SD, seeded(0, "white"))), head)
    assert found.method == BACKGROUND
    assert found.low == found.sd == found.high == pytest.approx(SD, rel=0.01)
    assert found.error < 0.015
    assert found.independent_share == 1
    assert not cautions(found.notes)


def test_noise_of_parallel_imaging_is_that_of_the_tissue(head):
    """Noise four times as large in the middle as in the air: the air alone would claim four times the SNR."""
    gain = torch.where(head.mask, 4.0, 1.0)
    volume = _scan(head, gain * complex_noise(head.grid.shape, SD, seeded(1, "g")))
    found = _verdict(volume, head)
    assert found.method == RESIDUAL
    assert found.low == pytest.approx(SD, rel=0.02)
    assert found.sd == found.high == pytest.approx(4 * SD, rel=0.12)
    assert "only bracketed" in cautions(found.notes)[0]
    stats = measure(volume, head.tissues)
    low, high = stats.snr_interval("WM")
    truth = stats.mean_of("WM") / SD
    assert low < truth / 4 < high
    assert high > 0.98 * truth


def test_anatomy_in_residuals_leaves_the_value_to_the_air_and_widens_its_interval(head):
    line = torch.sin(torch.arange(56.0) * 2.4)
    wave = 1 + 0.09 * line[:, None, None] * line[:, None] * line
    noise = complex_noise(head.grid.shape, SD, seeded(2, "anatomy"))
    found = _verdict(Volume((10.0 * head.image.data * wave + noise).abs(), head.grid), head)
    assert found.method == BACKGROUND
    assert found.sd == found.low == pytest.approx(SD, rel=0.02)
    assert 1.25 * SD < found.high < 2 * SD
    assert "only bracketed" in cautions(found.notes)[0]


def test_coloured_noise_of_the_air_widens_the_interval_and_explains_residuals(head):
    white, coloured = (
        _verdict(_scan(head, complex_noise(head.grid.shape, SD, seeded(3, "c"), (w, w, 0.0))), head) for w in (0.0, 1.5)
    )
    assert coloured.method == BACKGROUND
    assert not coloured.is_bracketed
    assert coloured.fwhm_voxels == pytest.approx((1.5, 1.5, 0.0), abs=0.1)
    # By hand: 1 / sum of exp(-x^2 / (2 s^2)) over whole x, s = 1.5 / 2.3548, for two axes.
    share = 1 / sum(math.exp(-(x**2) / (2 * (1.5 / 2.3548) ** 2)) for x in range(-5, 6)) ** 2
    assert coloured.independent_share == pytest.approx(share, rel=0.1)
    assert coloured.error > 1.02 * white.error


def test_residuals_of_coloured_noise_without_air_are_bracketed(head):
    drawn = complex_noise(head.grid.shape, SD, seeded(5, "coloured"), (1.2, 1.2, 0.0))
    stripped = Volume((10.0 * head.mask + drawn).abs() * head.mask, head.grid)
    found = _verdict(stripped, head)
    assert found.method == RESIDUAL
    assert found.low < 0.75 * SD
    assert found.sd == found.high == pytest.approx(SD, rel=0.12)
    low, high = measure(stripped, head.tissues).snr_interval("WM")
    assert low < 10 / SD < high


def test_anatomy_that_looks_like_coloured_noise_is_bounded_by_the_air(head):
    wave = 1 + 0.3 * torch.sin(torch.arange(head.grid.shape[0]) * 0.6)[:, None, None]
    noise = complex_noise(head.grid.shape, SD, seeded(6, "bound"))
    # Air whose level varies from voxel to voxel is not distributed as noise.
    level = 0.2 + 2.3 * torch.rand(head.grid.shape, generator=seeded(6, "level"))
    data = (10.0 * head.mask * wave + noise * torch.where(head.mask, 1.0, level)).abs()
    found = _verdict(Volume(data, head.grid), head)
    assert found.method == RESIDUAL
    # From the colour alone it would be 1.8 times the true noise.
    assert found.low < found.sd < 1.3 * SD


def test_noise_of_an_interpolated_scan_is_that_of_its_acquired_voxels(head):
    """Zero-filled twofold in the plane and stripped: second differences of neighbours see a tenth of the noise."""
    seen = 10.0 * head.image.data + complex_noise(head.grid.shape, SD, seeded(7, "zero-filled"))
    k = np.fft.fftshift(np.fft.fft2(seen.numpy(), axes=(0, 1)), axes=(0, 1))
    fine = 4 * np.fft.ifft2(np.fft.ifftshift(np.pad(k, ((28, 28), (28, 28), (0, 0))), axes=(0, 1)), axes=(0, 1))
    double = head.mask.repeat_interleave(2, 0).repeat_interleave(2, 1)
    grid = Grid((112, 112, 56), head.grid.affine @ np.diag([0.5, 0.5, 1, 1]))
    prob = head.tissues.prob.repeat_interleave(2, 1).repeat_interleave(2, 2)
    volume = Volume(torch.from_numpy(np.abs(fine)).float() * double, grid)
    found = scan_noise(volume, double, noise_core(TissueMap(prob, TISSUES, grid)))
    spacing = head.grid.spacing_mm
    assert found.acquired_mm == pytest.approx((spacing[0], spacing[1], spacing[2]), rel=0.08)
    assert found.low == pytest.approx(SD, rel=0.2)
    assert found.high < 1.6 * SD
    assert any("interpolated" in note for note in found.notes)


def test_the_flattest_part_stands_in_for_a_core(head):
    stripped = Volume(_scan(head, complex_noise(head.grid.shape, SD, seeded(8, "flat"))).data * head.mask, head.grid)
    assert scan_noise(stripped, head.mask).low == pytest.approx(SD, rel=0.15)


def test_too_little_to_tell_is_refused():
    mask = torch.zeros((8, 8, 8), dtype=torch.bool)
    mask[4, 4, 4] = True
    with pytest.raises(BadInputError, match="larger mask"):
        scan_noise(Volume(mask.float(), Grid((8, 8, 8), np.eye(4))), mask)


def _boxes(*widths):
    """One box per tissue, side by side, of these widths along x."""
    prob = torch.zeros(3, 40, 12, 12)
    start = 1
    for index, width in enumerate(widths):
        prob[index, start : start + width, 1:11, 1:11] = 1.0
        start += width
    return TissueMap(prob, TISSUES, Grid((40, 12, 12), np.eye(4)))


def test_residual_noise_is_measured_in_white_matter_with_its_outer_voxels():
    tissues = _boxes(20, 5, 8)  # CSF has more room
    assert torch.equal(noise_core(tissues), tissues.prob[2] > 0.9)


def test_residual_noise_is_measured_where_there_is_room():
    tissues = _boxes(5, 20, 4)  # 4 x 10 x 10 of white matter leave 2 x 8 x 8 with all neighbours
    assert torch.equal(noise_core(tissues), tissues.prob[1] > 0.9)
    thin = TissueMap(0.8 * tissues.prob, TISSUES, tissues.grid)
    assert torch.equal(noise_core(thin), thin.mask)
