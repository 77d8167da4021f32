"""What a sidecar or the user says of slices and acquired voxels reaches the model of the scan."""

import numpy as np
import pytest
import torch

from mrcore.data.acquisition import AxisPsf, gaussian_psf
from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.io.bids.resolution import GivenResolution
from mrcore.phantom import digital_head, head_grid
from mrcore.spatial.resampling import resample
from mrkit.anatomy.resolution import psf_of, with_resolution
from mrkit.simulation.protocol import Changes
from mrkit.simulation.simulate import simulate_ulf
from mrkit.superresolution.prepare import require_finer
from mrkit.superresolution.superresolve import superresolve

VOXEL_MM, THICKNESS_MM = (4.0, 4.0, 16.0), 8.0
CONVERTED = {"SliceThickness": THICKNESS_MM, "SpacingBetweenSlices": VOXEL_MM[2], "MRAcquisitionType": "2D"}


@pytest.fixture(scope="module")
def simulated():
    head = digital_head(head_grid(48, 192.0), seed=4)
    changes = Changes(voxel_mm=VOXEL_MM, slice_thickness_mm=THICKNESS_MM)
    return simulate_ulf(head.image, tissues=head.tissues, changes=changes, wm_snr=100, seed=1)


def scan_with(simulated, **meta) -> Volume:
    return Volume(simulated.scan.data, simulated.scan.grid, {"SkullStripped": True, **meta})


def test_user_then_mrkit_then_converter_then_one_voxel(simulated):
    own = psf_of(simulated.scan)
    assert own == (simulated.acquisition.psf, ("point spread: from the scan's sidecar",))
    bare, notes = psf_of(scan_with(simulated))
    assert bare == gaussian_psf(simulated.scan.grid.spacing_mm)
    assert notes[0].startswith("point spread: assumed")
    converted = scan_with(simulated, **CONVERTED)
    assert psf_of(converted)[0][2] == AxisPsf(gaussian_fwhm_mm=8.0, truncate=False)
    given = with_resolution(simulated.scan, GivenResolution(slice_thickness_mm=12.0))
    assert psf_of(given)[0][2].gaussian_fwhm_mm == 12.0
    assert with_resolution(converted, GivenResolution()) is converted


def test_a_known_gap_brings_the_image_closer_to_the_truth(simulated):
    def error(scan, **options) -> float:
        result = superresolve(scan, voxel_mm=4.0, tissues=simulated.scan_tissues, preview=True, **options)
        truth = resample(simulated.truth, result.image.grid, order=1).data
        inside = truth > 0.1 * truth.max()
        return float((result.image.data - truth)[inside].square().mean().sqrt() / truth[inside].mean())

    assumed = error(scan_with(simulated))
    stated = error(scan_with(simulated, **CONVERTED))
    assert stated < 0.93 * assumed
    assert error(scan_with(simulated), slice_thickness_mm=THICKNESS_MM) == pytest.approx(stated, rel=1e-4)


def test_results_do_not_say_what_held_for_the_scans_own_voxels(simulated):
    scan = scan_with(simulated, **CONVERTED, Manufacturer="any")
    result = superresolve(scan, voxel_mm=8.0, tissues=simulated.scan_tissues, preview=True, slice_thickness_mm=8.0)
    assert set(result.image.meta) & {*CONVERTED, "GivenResolution"} == set()
    assert result.image.meta["Manufacturer"] == "any"


@pytest.mark.parametrize("size", [0.9, 1.6, 4.2])
def test_the_voxel_of_the_scan_itself_may_be_asked_for(size):
    stored = float(np.float32(size))
    grid = Grid((20, 20, 20), np.diag([stored, stored, stored, 1]))
    require_finer(size, grid)
    with pytest.raises(BadInputError, match="largest voxel"):
        require_finer(1.01 * size, grid)


def test_the_fit_at_the_scans_own_voxel_is_sharper_than_the_scan(simulated):
    head = digital_head(head_grid(48, 192.0), seed=4)
    made = simulate_ulf(head.image, tissues=head.tissues, changes=Changes(voxel_mm=(4.0, 4.0, 4.0)), wm_snr=100, seed=1)
    result = superresolve(made.scan, voxel_mm=4.0, tissues=made.scan_tissues, preview=True)
    assert result.image.grid.matches(made.scan.grid)
    truth, brain = made.truth.data, made.tissues.mask
    errors = [float((image - truth)[brain].square().mean()) for image in (result.image.data, made.scan.data)]
    assert errors[0] < 0.8 * errors[1]
    assert torch.isfinite(result.image.data).all()
