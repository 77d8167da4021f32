import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from mrcore.errors import BadInputError
from mrcore.noise import (
    BACKGROUND,
    RESIDUAL,
    add_noise,
    background_noise,
    estimate_noise,
    residual_noise,
    rician_nll,
    seeded,
)
from mrcore.phantom import digital_head, head_grid

SD = 0.02


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(64), seed=1, texture=0.02)


@pytest.fixture(scope="module")
def scan(head):
    return add_noise(head.image.data, SD, seeded(5, "test"))


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


def test_same_seed_in_two_processes_same_bytes():
    code = (
        "import hashlib, torch; from mrcore.noise import add_noise, seeded; "
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


def test_air_gives_the_noise_with_and_without_a_mask(head, scan):
    for mask in (head.mask, None):
        found = background_noise(scan, mask)
        assert found.method == BACKGROUND
        assert found.plausible
        assert found.sd == pytest.approx(SD, rel=0.01)


def test_air_is_found_around_skull_and_scalp():
    head = digital_head(head_grid(64, 220.0), seed=1, skull=True)
    scan = add_noise(head.image.data, SD, seeded(5, "skull"))
    assert background_noise(scan, head.mask).sd == pytest.approx(SD, rel=0.01)


def test_air_that_software_zeroed_is_not_believed(head, scan):
    zeroed = torch.where(head.mask, scan, 0.0)
    assert background_noise(zeroed, head.mask) is None
    assert background_noise(zeroed) is None
    found = estimate_noise(zeroed, head.mask, head.tissues.of("WM") > 0.99)
    assert found.method == RESIDUAL
    assert found.sd == pytest.approx(SD, rel=0.05)


def test_half_zeroed_air_still_counts(head, scan):
    partly = scan.clone()
    partly[:, :, :6] = 0
    assert background_noise(partly, head.mask).sd == pytest.approx(SD, rel=0.01)


def test_ghosts_in_part_of_the_air_are_left_out(head, scan):
    ghosted = scan.clone()
    air = ~head.mask
    ghosted[:, 20:44][air[:, 20:44]] += 0.05 * scan.roll(32, 1)[:, 20:44][air[:, 20:44]] + 0.03
    found = background_noise(ghosted, head.mask)
    assert found.sd == pytest.approx(SD, rel=0.03)
    assert "quietest" in found.message


def test_air_that_is_nowhere_noise_yields_to_smaller_residuals(head, scan):
    filtered = torch.where(head.mask, scan, scan + 3 * SD)
    found = estimate_noise(filtered, head.mask, head.tissues.of("WM") > 0.99)
    assert found.method == RESIDUAL
    assert found.sd == pytest.approx(SD, rel=0.05)
    assert "not used" in found.message


def test_residuals_ignore_anatomy_in_a_homogeneous_core(head, scan):
    core = head.tissues.of("WM") > 0.99
    assert residual_noise(scan, core).sd == pytest.approx(SD, rel=0.05)
    assert residual_noise(2 * scan, core).sd == pytest.approx(2 * SD, rel=0.05)
    # A linear ramp is no noise.
    ramp = scan + torch.linspace(0, 2, scan.shape[0])[:, None, None]
    assert residual_noise(ramp, core).sd == pytest.approx(SD, rel=0.05)


def test_residuals_need_room():
    mask = torch.zeros((8, 8, 8), dtype=torch.bool)
    mask[4, 4, 4] = True
    with pytest.raises(BadInputError, match="larger mask"):
        residual_noise(torch.rand((8, 8, 8)), mask)


def test_core_without_room_gives_way_to_the_mask(head, scan):
    core = torch.zeros_like(head.mask)
    core[32, 32, 32] = True
    stripped = scan * head.mask
    found = estimate_noise(stripped, head.mask, core)
    assert found.sd == estimate_noise(stripped, head.mask).sd > 0
    assert found.method == RESIDUAL


def test_too_little_quiet_air_proves_nothing():
    """One slice has no blocks of air to choose from: what is not Rayleigh stays implausible."""
    air = 1 + torch.rand((90, 90, 1), generator=torch.Generator().manual_seed(0))
    air[40:50, 40:50] = 50.0
    found = background_noise(air)
    assert found is not None
    assert not found.plausible
