"""Scans as a fit takes them: acquired voxels, point spread and the noise of independent voxels."""

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.io.bids.resolution import GivenResolution
from mrcore.noise import complex_noise
from mrcore.notes import cautions
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrkit.anatomy.resolution import psf_of, with_resolution
from mrkit.superresolution.scans import as_acquired, relative_to_wm

SD = 0.05


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(48), seed=3)


@pytest.fixture(scope="module")
def fine(head):
    """A scan that a console zero-filled to twice the matrix in the plane, with its mask and tissues."""
    seen = head.image.data + complex_noise(head.grid.shape, SD, seeded(7, "zero-filled"))
    k = np.fft.fftshift(np.fft.fft2(seen.numpy(), axes=(0, 1)), axes=(0, 1))
    padded = np.fft.ifftshift(np.pad(k, ((24, 24), (24, 24), (0, 0))), axes=(0, 1))
    data = torch.from_numpy(np.abs(4 * np.fft.ifft2(padded, axes=(0, 1)))).float()
    grid = Grid((96, 96, 48), head.grid.affine @ np.diag([0.5, 0.5, 1, 1]))
    prob = head.tissues.prob.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return Volume(data, grid), TissueMap(prob, TISSUES, grid)


def test_an_interpolated_scan_is_fitted_on_the_voxels_that_were_acquired(head, fine):
    scan, tissues = fine
    found = as_acquired([scan], tissues.mask, tissues)
    spacing = np.array(head.grid.spacing_mm)
    seen = found.scans[0]
    assert np.array(seen.grid.spacing_mm) == pytest.approx(spacing, rel=0.1)
    assert np.array(seen.grid.fov_mm) == pytest.approx(np.array(scan.grid.fov_mm))
    assert found.mask.shape == seen.data.shape
    assert found.tissues.grid == seen.grid
    assert "was interpolated" in cautions(found.notes)[0]
    assert psf_of(seen)[0][0].gaussian_fwhm_mm == pytest.approx(spacing[0], rel=0.1)
    assert relative_to_wm(seen, found.tissues).noise_sd == pytest.approx(SD, rel=0.15)


def test_a_scan_of_its_own_voxels_stays_as_it_is(head):
    noise = complex_noise(head.grid.shape, SD, seeded(1, "plain"))
    scan = Volume((head.image.data + noise).abs(), head.grid)
    found = as_acquired([scan], None, None)
    assert found.scans[0] is scan
    assert found.notes == ()


def test_what_the_user_states_wins_and_voxels_count_as_many_as_are_independent(fine):
    scan, tissues = fine
    voxel = 2 * scan.grid.spacing_mm[0]
    stated = with_resolution(scan, GivenResolution(acquired_voxel_mm=(voxel, voxel)))
    assert as_acquired([stated], None, None).scans[0] is stated
    # A quarter of the voxels would hold as much: each counts as if its noise were twice as large.
    assert relative_to_wm(stated, tissues).noise_sd == pytest.approx(2 * SD, rel=0.15)
    assert relative_to_wm(stated, tissues, 0.3).noise_sd == 0.3
