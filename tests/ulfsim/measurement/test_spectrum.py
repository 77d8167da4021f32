import math

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.noise import complex_noise
from mrcore.noise_estimate import BACKGROUND, RESIDUAL
from mrcore.phantom import head_grid
from mrcore.random import seeded
from ulfsim.measurement.air import COMPLEX_BACKGROUND
from ulfsim.measurement.spectrum import (
    coloured_residual_sd,
    fwhm_of_autocorrelation,
    gaussian_autocorrelation,
    noise_spectrum,
    second_difference_gain,
)

SD = 2.0
GRID = head_grid(48, 96.0)
BOX = torch.zeros(GRID.shape, dtype=torch.bool)
BOX[12:36, 12:36, 12:36] = True


def scan(fwhm_voxels, level=60.0):
    """A box in air with complex noise."""
    return BOX * level + complex_noise(GRID.shape, SD, seeded(1, "spectrum"), fwhm_voxels)


@pytest.mark.parametrize("is_complex", [True, False])
def test_white_noise_is_white(is_complex):
    data = scan((0.0, 0.0, 0.0))
    found = noise_spectrum(Volume(data if is_complex else data.abs(), GRID), BOX)
    assert found.method == (COMPLEX_BACKGROUND if is_complex else BACKGROUND)
    assert max(found.fwhm_mm) < 0.3 * 2
    assert found.sd == pytest.approx(SD, rel=0.02)
    assert found.white_fraction > 0.97
    assert np.allclose(found.power[0], 1, atol=0.15)


@pytest.mark.parametrize("is_complex", [True, False])
def test_the_kernel_of_coloured_noise_is_found_in_mm_on_its_axis(is_complex):
    data = scan((2.0, 0.0, 1.2))
    found = noise_spectrum(Volume(data if is_complex else data.abs(), GRID), BOX)
    assert found.fwhm_mm[0] == pytest.approx(4.0, rel=0.10)
    assert found.fwhm_mm[1] < 0.6
    assert found.fwhm_mm[2] == pytest.approx(2.4, rel=0.10)
    assert found.sd == pytest.approx(SD, rel=0.05)
    # White noise would be 1 everywhere; this one falls to nothing at the edge of the band, 1 / (2 x 2 mm).
    assert found.power[0][0] > 1.7
    assert found.power[0][-1] < 0.1
    assert found.k_cyc_per_mm[0][-1] == pytest.approx(0.25)
    assert 0.1 < found.white_fraction < 0.6


def test_without_air_the_residuals_tell_the_colour_in_spite_of_anatomy():
    wave = 1 + 0.1 * torch.sin(torch.arange(48) / 5.0)[:, None, None]
    for fwhm in (0.0, 1.5):
        data = (scan((fwhm,) * 3, level=100.0) * wave).abs() * BOX
        found = noise_spectrum(Volume(data, GRID), BOX)
        assert found.method == RESIDUAL
        assert found.notes
        for axis in range(3):
            assert found.fwhm_mm[axis] == pytest.approx(2 * fwhm, rel=0.15, abs=0.8)


def test_gain_of_second_differences_is_that_of_filtered_noise():
    assert second_difference_gain(0.0) == pytest.approx(1)
    noise = complex_noise(GRID.shape, 1.0, seeded(2, "gain"), (1.5, 0.0, 0.0)).real
    detail = noise[:-2] - 2 * noise[1:-1] + noise[2:]
    assert second_difference_gain(1.5) == pytest.approx(float(detail.var()) / 6, rel=0.05)


def test_coloured_residuals_are_scaled_back_but_not_beyond_the_spread_of_the_tissue():
    gain = second_difference_gain(1.5)
    assert coloured_residual_sd(1.0, (1.5, 0.0, 0.0), 99.0) == pytest.approx(1 / math.sqrt(gain))
    assert coloured_residual_sd(1.0, (1.5, 1.5, 1.5), 2.0) == pytest.approx(2.0)
    assert coloured_residual_sd(1.0, (0.0, 0.0, 0.0), 2.0) == pytest.approx(1.0)
    assert coloured_residual_sd(1.0, (math.nan, 1.5, 0.0), 99.0) == pytest.approx(1 / math.sqrt(gain))


def test_width_of_an_autocorrelation_is_exact():
    for fwhm in (0.5, 1.0, 3.0):
        assert fwhm_of_autocorrelation(gaussian_autocorrelation(fwhm, 5)) == pytest.approx(fwhm, rel=0.01)
    # The autocorrelation of a Gaussian kernel is wider by sqrt 2.
    sd = 3.0 / 2.3548
    assert gaussian_autocorrelation(3.0, 1)[1] == pytest.approx(math.exp(-1 / (4 * sd**2)), rel=1e-3)


def test_a_tiny_core_is_refused():
    with pytest.raises(BadInputError, match="at least 50"):
        noise_spectrum(Volume(torch.ones(GRID.shape) * BOX, GRID), torch.zeros_like(BOX))


def test_a_stack_of_few_slices_has_a_colour_within_its_slices():
    noise = complex_noise((64, 64, 5), SD, seeded(3, "slices"), (1.5, 1.5, 0.0)).real
    grid = Grid((64, 64, 5), np.diag([2.0, 2.0, 6.0, 1.0]))
    core = torch.zeros(grid.shape, dtype=torch.bool)
    core[8:56, 8:56] = True
    found = noise_spectrum(Volume((60 + noise) * core, grid), core)
    assert found.method == RESIDUAL
    assert found.fwhm_mm[:2] == pytest.approx((3.0, 3.0), rel=0.15)


@pytest.mark.parametrize("fwhm_voxels", [0.0, 1.0, 2.0])
def test_second_differences_of_coloured_noise_have_the_variance_that_is_said(fwhm_voxels):
    noise = complex_noise((4000, 8, 8), 1.0, seeded(7, "gain"), (fwhm_voxels, 0.0, 0.0)).real
    filtered = (noise[:-2] - 2 * noise[1:-1] + noise[2:]) / math.sqrt(6)
    assert second_difference_gain(fwhm_voxels) == pytest.approx(float(filtered.square().mean()), rel=0.02)
