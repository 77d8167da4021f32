"""Noise that is measured, in air and in residuals."""

import pytest
import torch

from mrcore.errors import BadInputError
from mrcore.noise import add_noise
from mrcore.noise_estimate import BACKGROUND, RESIDUAL, background_noise, estimate_noise, residual_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded

SD = 0.02


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(64), seed=1, texture=0.02)


@pytest.fixture(scope="module")
def scan(head):
    return add_noise(head.image.data, SD, seeded(5, "test"))


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
