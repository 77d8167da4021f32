import math

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid, grid_about, with_spacing
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.phantom import digital_head, head_grid
from ulfsim.degradations import (
    TORCHIO_MIDDLE,
    TorchioSettings,
    gaussian_blur_degradation,
    scaled_to_mean,
    scan_grid_like,
    torchio_style_degradation,
    with_noise_of,
)

FINE = Grid((64, 64, 60), np.diag([2.0, 2.0, 2.0, 1.0]))
SIGMA = 1 / math.sqrt(8 * math.log(2))


def blob(grid, centre_mm, sigma_mm, dtype=torch.float64):
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    distance = np.linalg.norm(voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3] - centre_mm, axis=-1)
    return Volume(torch.from_numpy(np.exp(-0.5 * (distance / sigma_mm) ** 2)).to(dtype), grid)


def spread(volume, axis):
    """Centre and standard deviation of the intensities along one axis, in mm."""
    profile = volume.data.double().sum(dim=tuple(a for a in range(3) if a != axis)).numpy()
    at = volume.grid.affine[axis, 3] + volume.grid.affine[axis, axis] * np.arange(len(profile))
    centre = (profile * at).sum() / profile.sum()
    return centre, math.sqrt((profile * (at - centre) ** 2).sum() / profile.sum())


def test_gaussian_blur_has_its_width_on_every_axis_and_moves_nothing():
    scan = with_spacing(FINE, (3.2, 3.2, 5.0))
    seen = gaussian_blur_degradation(blob(FINE, (60.3, 64.9, 58.7), 6.0), scan, (4.0, 6.0, 10.0))
    for axis, (fwhm, centre) in enumerate(zip((4.0, 6.0, 10.0), (60.3, 64.9, 58.7), strict=True)):
        found, width = spread(seen, axis)
        assert found == pytest.approx(centre, abs=0.02)
        assert width == pytest.approx(math.hypot(6.0, fwhm * SIGMA), rel=5e-3)


def test_gaussian_blur_is_one_voxel_wide_by_default_and_keeps_a_flat_image():
    scan = with_spacing(FINE, (3.2, 3.2, 5.0))
    _, width = spread(gaussian_blur_degradation(blob(FINE, (60, 64, 58), 6.0), scan), 2)
    assert width == pytest.approx(math.hypot(6.0, 5.0 * SIGMA), rel=5e-3)
    flat = gaussian_blur_degradation(Volume(torch.full(FINE.shape, 3.0), FINE), scan)
    assert flat.grid.matches(scan)
    assert torch.allclose(flat.data, torch.tensor(3.0), rtol=1e-5)


def test_grid_has_the_voxels_of_the_scan_over_the_source():
    tilted = np.array([[-1.5, 0, 0, 80], [0, 0, 1.5, -90], [0, -5.0, 0, 70], [0, 0, 0, 1.0]])
    grid = scan_grid_like(FINE, Grid((100, 30, 120), tilted))
    assert grid.spacing_mm == pytest.approx((1.5, 1.5, 5.0))
    assert np.abs(grid.origin_mm - FINE.origin_mm).max() < 1e-9


def test_added_noise_is_complex_and_has_its_sd():
    scan = with_spacing(FINE, (3.2, 3.2, 5.0))
    empty = Volume(torch.zeros(scan.shape), scan)
    noisy = with_noise_of(empty, 2.0, seed=1)
    assert float(noisy.data.mean()) == pytest.approx(2.0 * math.sqrt(math.pi / 2), rel=0.02)
    assert torch.equal(noisy.data, with_noise_of(empty, 2.0, seed=1).data)
    assert not torch.equal(noisy.data, with_noise_of(empty, 2.0, seed=2).data)
    assert torch.equal(with_noise_of(noisy, 0.0, seed=1).data, noisy.data)


def test_scaling_to_a_mean():
    scan = blob(FINE, (60, 64, 58), 20.0)
    mask = scan.data > 0.5
    assert float(scaled_to_mean(scan, mask, 7.0).data[mask].mean()) == pytest.approx(7.0)
    with pytest.raises(BadInputError, match="no positive mean"):
        scaled_to_mean(scan, torch.zeros_like(mask), 7.0)


def test_torchio_style_noise_is_relative_to_the_foreground_and_real():
    head = digital_head(head_grid(48), seed=1)
    source = Volume(head.tissues.prob.sum(0).float() * 100 + 20 * head.tissues.prob[2].float(), head.grid)
    scan = scan_grid_like(head.grid, Grid((30, 30, 20), np.diag([6.0, 6.0, 9.0, 1.0])))
    clean = torchio_style_degradation(source, scan, 3, TorchioSettings(noise_sd=0.0))
    noisy = torchio_style_degradation(source, scan, 3)
    foreground = clean.data[clean.data > clean.data.mean()]
    noise = noisy.data - clean.data
    assert float(noise.std()) == pytest.approx(TORCHIO_MIDDLE.noise_sd * float(foreground.std()), rel=0.02)
    assert abs(float(noise.mean())) < 0.1 * float(noise.std())
    assert float(noisy.data.min()) < 0
    assert torch.equal(noisy.data, torchio_style_degradation(source, scan, 3).data)
    assert not torch.equal(noisy.data, torchio_style_degradation(source, scan, 4).data)


def test_torchio_style_takes_the_nearest_slice_and_blurs_by_its_width():
    scan = grid_about(FINE.origin_mm, np.eye(3), (4.0, 4.0, 8.0), (32, 32, 15))
    quiet = TorchioSettings(blur_sd_mm=0.0, noise_sd=0.0)
    ramp = Volume(torch.arange(60.0).expand(64, 64, 60).clone() + 1, FINE)
    seen = torchio_style_degradation(ramp, scan, 0, quiet)
    # Slices of 8 mm on a 2 mm lattice with the same origin fall on its voxels: every fourth, unmixed.
    steps = seen.data[16, 16].diff()
    assert torch.allclose(steps, torch.full_like(steps, 4.0), atol=1e-4)
    wide = torchio_style_degradation(blob(FINE, (64, 64, 60), 6.0), scan, 0, TorchioSettings(3.0, 0.0))
    assert spread(wide, 0)[1] == pytest.approx(math.hypot(6.0, 3.0), rel=0.02)


def test_torchio_style_bias_changes_smoothly_and_by_its_size():
    flat = Volume(torch.full(FINE.shape, 5.0), FINE)
    flat.data[:4] = 0
    scan = with_spacing(FINE, (4.0, 4.0, 8.0))
    seen = torchio_style_degradation(flat, scan, 2, TorchioSettings(0.0, 0.0, bias=0.5)).data[4:]
    assert 1.2 < float(seen.max() / seen[seen > 0].min()) < 1e4
    assert float(seen.diff(dim=1).abs().max()) < 0.3 * float(seen.max())


def test_bad_input_is_refused():
    scan = with_spacing(FINE, (4.0, 4.0, 8.0))
    complex_one = Volume(torch.ones(FINE.shape, dtype=torch.complex64), FINE)
    for degrade in (gaussian_blur_degradation, lambda v, g: torchio_style_degradation(v, g, 0)):
        with pytest.raises(BadInputError, match="magnitude image"):
            degrade(complex_one, scan)
    with pytest.raises(BadInputError, match="no foreground"):
        torchio_style_degradation(Volume(torch.zeros(FINE.shape), FINE), scan, 0)
    with pytest.raises(BadInputError, match="not negative"):
        TorchioSettings(noise_sd=-1)
    with pytest.raises(BadInputError, match="mm"):
        gaussian_blur_degradation(Volume(torch.ones(FINE.shape), FINE), scan, (-1.0, 1.0, 1.0))
