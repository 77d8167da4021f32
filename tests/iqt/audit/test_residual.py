import pytest
import torch

from iqt.audit.residual import ALARM_Z, residual_map
from mrcore.errors import BadInputError
from mrcore.noise import add_noise, complex_noise
from mrcore.random import seeded

VOXEL_MM = (1.6, 1.6, 5.0)
SHAPE = (60, 70, 24)
SD = 0.05


@pytest.fixture(scope="module")
def mask():
    x, y, z = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return x**2 + y**2 + z**2 < 0.8


@pytest.mark.parametrize("fwhm", [(0.0, 0.0, 0.0), (1.5, 1.0, 0.8)])
def test_of_a_right_image_z_has_unit_sd_also_at_the_border_and_in_coloured_noise(mask, fwhm):
    signal = torch.full(SHAPE, 1.0)
    noise = SD * complex_noise(SHAPE, 1.0, seeded(0, "noise"), fwhm)
    scan = (signal + noise).abs()
    found = residual_map(scan, signal, SD, VOXEL_MM, mask, fwhm)
    inner = torch.nn.functional.max_pool3d(-mask[None, None].float(), 3, 1, 1)[0, 0] == -1
    for where in (inner, mask & ~inner):
        # The larger in magnitude of two correlated widths is a little above 1.
        assert float(found.z[where].std()) == pytest.approx(1.12, abs=0.15)
        assert abs(float(found.z[where].mean())) < 0.25
    assert found.rms == pytest.approx(1.0, abs=0.04)
    assert not found.alarm


def test_colour_that_is_not_known_would_look_like_structure(mask):
    signal, fwhm = torch.full(SHAPE, 1.0), (2.0, 2.0, 0.0)
    scan = (signal + SD * complex_noise(SHAPE, 1.0, seeded(0, "noise"), fwhm)).abs()
    assert abs(residual_map(scan, signal, SD, VOXEL_MM, mask).worst) > 1.3 * abs(
        residual_map(scan, signal, SD, VOXEL_MM, mask, fwhm).worst
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_a_missing_and_an_added_structure_are_found_with_their_sign(mask, sign):
    signal = torch.full(SHAPE, 1.0)
    spot = (slice(29, 32), slice(34, 37), slice(12, 13))
    scanned = signal.clone()
    scanned[spot] += sign * 0.2
    scan = add_noise(scanned, SD, seeded(1, "noise"))
    found = residual_map(scan, signal, SD, VOXEL_MM, mask)
    assert found.alarm
    assert sign * found.worst > ALARM_Z
    assert max(abs(a - b) for a, b in zip(found.voxel, (30, 35, 12), strict=True)) <= 1
    assert found.rms < 1.1  # the whole image's misfit is blind to it


def test_what_lies_outside_the_mask_does_not_count(mask):
    signal = torch.full(SHAPE, 1.0)
    scan = add_noise(torch.where(mask, 1.0, 5.0), SD, seeded(2, "noise"))
    assert not residual_map(scan, signal, SD, VOXEL_MM, mask).alarm


def test_images_that_do_not_fit_are_refused(mask):
    signal = torch.full(SHAPE, 1.0)
    with pytest.raises(BadInputError, match="one shape"):
        residual_map(signal[1:], signal, SD, VOXEL_MM, mask)
    with pytest.raises(BadInputError, match="mask is empty"):
        residual_map(signal, signal, SD, VOXEL_MM, torch.zeros(SHAPE, dtype=torch.bool))
