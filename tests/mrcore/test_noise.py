"""Noise that is drawn: moments, colour, seeds."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from mrcore.errors import BadInputError
from mrcore.noise import add_noise, chi_moments, complex_noise, residual_z, rician_nll, root_sum_of_squares
from mrcore.random import seeded


def test_background_is_rayleigh():
    noise = add_noise(torch.zeros(200_000, dtype=torch.float64), 3.0, seeded(0, "background"))
    assert float(noise.mean()) == pytest.approx(1.2533 * 3, rel=0.005)
    assert float(noise.std()) == pytest.approx(0.6551 * 3, rel=0.01)


@pytest.mark.parametrize("signal", [0.0, 1.0, 3.0, 20.0])
def test_second_moment_and_distribution_of_the_magnitude(signal):
    sd = 1.7
    drawn = add_noise(torch.full((200_000,), signal, dtype=torch.float64), sd, seeded(1, "moment"))
    assert float(drawn.square().mean()) == pytest.approx(signal**2 + 2 * sd**2, rel=0.01)
    assert stats.kstest(drawn[:20_000].numpy(), stats.rice(signal / sd, scale=sd).cdf).pvalue > 1e-3


def test_complex_signal_gets_the_same_noise_and_phase_does_not_matter():
    signal = torch.full((100_000,), 3.0, dtype=torch.complex128) * np.exp(0.7j)
    drawn = add_noise(signal, 1.0, seeded(2, "complex"))
    assert float(drawn.square().mean()) == pytest.approx(9 + 2, rel=0.01)


def test_no_noise_is_exactly_the_magnitude():
    signal = torch.tensor([-1.0, 0.0, 2.5])
    assert torch.equal(add_noise(signal, 0.0, seeded(0, "none")), signal.abs())


def test_a_negative_sd_is_refused():
    with pytest.raises(BadInputError, match="negative"):
        add_noise(torch.zeros(3), -1.0, seeded(0, "none"))


COLOURS = [(0.0, 0.0, 0.0), (2.0, 0.0, 0.7), (0.3, 3.0, 1.0), (1.5, 1.5, 40.0)]


def test_white_noise_is_the_draw_itself():
    draw = torch.randn((2, 5, 6, 7, 8), generator=seeded(3, "white"))
    noise = complex_noise((5, 6, 7, 8), 0.3, seeded(3, "white"))
    assert torch.equal(torch.view_as_real(noise).movedim(-1, 0), 0.3 * draw)
    signal = torch.rand((6, 7, 8))
    noise = complex_noise((6, 7, 8), 0.3, seeded(3, "one"))
    assert torch.equal(add_noise(signal, 0.3, seeded(3, "one")), torch.hypot(signal + noise.real, noise.imag))


@pytest.mark.parametrize("fwhm_voxels", COLOURS)
def test_noise_has_its_sd_whatever_its_colour(fwhm_voxels):
    """Over many draws, at every voxel alike: colour leaves few independent values in one draw."""
    draws = complex_noise((4000, 5, 6, 4), 1.7, seeded(4, "colour"), fwhm_voxels, torch.float64)
    for part in (draws.real, draws.imag):
        variance = part.square().mean(0) / 1.7**2
        assert float((variance - 1).abs().max()) < 5 * np.sqrt(2 / 4000)
        assert float(part.mean(0).abs().max()) < 5 * 1.7 / np.sqrt(4000)
    assert abs(float((draws.real * draws.imag).mean())) < 0.05 * 1.7**2


@pytest.mark.parametrize("fwhm_voxels", COLOURS[1:3])
def test_coloured_noise_has_the_correlation_of_its_filter(fwhm_voxels):
    """A Gaussian filter of sd s correlates voxels d apart by exp(-d^2 / (4 s^2)) where s is not small."""
    noise = complex_noise((96, 95, 94), 1.0, seeded(5, "colour"), fwhm_voxels, torch.float64).real
    assert float(noise.square().mean()) == pytest.approx(1, rel=0.03)
    for axis, width in enumerate(fwhm_voxels):
        sigma = width / np.sqrt(8 * np.log(2))
        k = np.linspace(-0.5, 0.5, 4001)
        power = np.exp(-((2 * np.pi * sigma * k) ** 2))
        for apart in (1, 2, 3):
            measured = float((noise * noise.roll(apart, axis)).mean())
            expected = (power * np.cos(2 * np.pi * k * apart)).sum() / power.sum()
            assert measured == pytest.approx(expected, abs=0.02)
            if width >= 2:
                assert expected == pytest.approx(np.exp(-(apart**2) / (4 * sigma**2)), abs=0.02)


def test_coloured_noise_repeats_with_its_seed_and_wraps_no_axis_of_one():
    drawn = [complex_noise((8, 1, 6), 1.0, seeded(s, "again"), (2.0, 1.0, 1.0)) for s in (6, 6, 7)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].dtype == torch.complex64
    assert complex_noise((2, 2, 2), 1.0, seeded(0, "again"), dtype=torch.complex128).dtype == torch.complex128
    assert torch.equal(complex_noise((2, 3, 4), 0.0, seeded(0, "none"), (1.0, 1.0, 1.0)).abs(), torch.zeros(2, 3, 4))


@pytest.mark.parametrize("fwhm_voxels", [(1.0, 1.0), (1.0, -1.0, 0.0), (np.inf, 0.0, 0.0)])
def test_colours_that_are_none_are_refused(fwhm_voxels):
    with pytest.raises(BadInputError, match="three widths in voxels"):
        complex_noise((4, 4, 4), 1.0, seeded(0, "refused"), fwhm_voxels)


@pytest.mark.parametrize("n_channels", [1, 4, 16])
@pytest.mark.parametrize("signal", [0.0, 2.0, 30.0])
def test_root_sum_of_squares_is_non_central_chi(signal, n_channels):
    sd = 1.7
    noise = complex_noise((n_channels, 100, 80, 5), sd, seeded(8, "chi"), dtype=torch.float64)
    channels = noise + signal / np.sqrt(n_channels) * np.exp(0.3j)
    magnitude = root_sum_of_squares(channels)
    assert magnitude.shape == (100, 80, 5)
    expected = stats.ncx2(2 * n_channels, (signal / sd) ** 2 + 1e-12)
    assert stats.kstest((magnitude.flatten() / sd).square().numpy(), expected.cdf).pvalue > 1e-3
    assert float(magnitude.square().mean()) == pytest.approx(signal**2 + 2 * n_channels * sd**2, rel=0.01)
    mean, spread = chi_moments(torch.tensor(signal, dtype=torch.float64), sd, n_channels)
    assert float(magnitude.mean()) == pytest.approx(float(mean), rel=0.01)
    assert float(magnitude.std()) == pytest.approx(float(spread), rel=0.015)


def test_one_channel_is_rician():
    signal = torch.tensor([0.0, 0.5, 3.0, 20.0, 1000.0], dtype=torch.float64)
    mean, spread = chi_moments(signal, 0.8)
    rice = stats.rice(signal[:4].numpy() / 0.8, scale=0.8)
    np.testing.assert_allclose(mean[:4], rice.mean(), rtol=1e-9)
    np.testing.assert_allclose(spread[:4], rice.std(), rtol=1e-6)
    assert float(spread[-1]) == pytest.approx(0.8, rel=1e-4)
    with pytest.raises(BadInputError, match="positive noise sd"):
        chi_moments(signal, 0.0)
    with pytest.raises(BadInputError, match="1 to 48 channels, got 49"):
        chi_moments(signal, 1.0, 49)


def test_residuals_of_a_right_prediction_have_unit_sd_at_any_snr():
    """Where there is no signal the plain difference over sd has mean 1.25 and sd 0.66."""
    for signal in (0.0, 1.5, 20.0):
        predicted = torch.full((200, 200), signal, dtype=torch.float64)
        z = residual_z(add_noise(predicted, 0.7, seeded(2, "residual")), predicted, 0.7)
        assert z.mean().item() == pytest.approx(0, abs=0.02)
        assert z.std().item() == pytest.approx(1, abs=0.02)
    above = residual_z(torch.tensor([30.0 + 2 * 0.7]), torch.tensor([30.0]), 0.7)
    assert above.item() == pytest.approx(2, abs=0.02)


def test_same_seed_in_two_processes_same_bytes():
    code = (
        "import hashlib, torch; from mrcore.noise import add_noise; from mrcore.random import seeded; "
        "print(hashlib.sha256(add_noise(torch.ones(1000), 0.3, seeded(7, 'sub-01')).numpy().tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = add_noise(torch.ones(1000), 0.3, seeded(7, "sub-01"))
    assert hashlib.sha256(here.numpy().tobytes()).hexdigest() == there
    assert not torch.equal(here, add_noise(torch.ones(1000), 0.3, seeded(8, "sub-01")))
    assert not torch.equal(here, add_noise(torch.ones(1000), 0.3, seeded(7, "sub-02")))


def test_likelihood_is_that_of_the_rice_distribution():
    predicted = torch.tensor([0.0, 0.5, 2.0, 30.0], dtype=torch.float64)
    measured, sd = torch.tensor([1.0, 1.2, 2.1, 29.0], dtype=torch.float64), 0.8
    exact = -stats.rice(predicted.numpy() / sd, scale=sd).logpdf(measured.numpy())
    constant = exact - rician_nll(predicted, measured, sd).numpy()
    # What was left out depends on the measurement alone: log(sd^2 / m).
    assert np.allclose(constant, np.log(sd**2 / measured.numpy()))
