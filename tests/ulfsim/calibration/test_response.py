import dataclasses

import numpy as np
import pytest
import torch

from mrcore.data.acquisition import DELTA_PSF, Acquisition, PulseSequence, gaussian_psf
from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.phantom import digital_head, head_grid
from ulfsim.calibration.response import response
from ulfsim.measurement.contrast import tissue_cores
from ulfsim.plan import plan_scan, tissues_through
from ulfsim.source.source import source_of, truth_of
from ulfsim.source.window import seen_window, through_window

VOXEL = (4.7, 4.2, 8.3)
STRAIGHT = Acquisition(0.064, VOXEL, PulseSequence("T1w"), psf=gaussian_psf(VOXEL))
SAGITTAL = dataclasses.replace(STRAIGHT, slice_axis="R")
TILTED = dataclasses.replace(STRAIGHT, tilt_deg=(8.0, 0.0, 5.0))


@pytest.fixture(scope="module")
def source():
    head = digital_head(head_grid(48, 220.0), seed=4, skull=True)
    image, tissues = head.image.data.double(), head.tissues.prob.double()
    return source_of(Volume(image, head.grid), TissueMap(tissues, TISSUES, head.grid))


def _whole(source, plan):
    """The response by its definition: each part alone through the whole operator."""
    cores, notes = tissue_cores(tissues_through(plan, source.tissues))
    columns = []
    for i, part in enumerate(source.basis):
        image = source.rest.clone() if i == len(source.basis) - 1 else torch.zeros_like(source.rest)
        image[source.window] += part
        columns.append([float(plan.operator(image)[core].mean()) for core in cores])
    return np.array(columns).T, notes


@pytest.mark.parametrize("acquisition", [STRAIGHT, SAGITTAL, TILTED], ids=["straight", "sagittal", "tilted"])
def test_the_window_changes_nothing(source, acquisition):
    plan = plan_scan(source.volume.grid, acquisition, torch.float64)
    matrix, notes = response(source, plan)
    expected, whole_notes = _whole(source, plan)
    assert np.abs(matrix - expected).max() < 1e-6 * np.abs(expected).max()
    assert notes == whole_notes


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_an_object_through_its_window_gives_what_the_whole_operator_gives(source, order):
    grid = source.volume.grid
    turned = Grid(tuple(grid.shape[a] for a in order), grid.affine[:, [*order, 3]])
    plan = plan_scan(turned, STRAIGHT, torch.float64)
    window = (slice(3, 40), slice(10, 31), slice(22, 48))
    part = torch.rand((2, 37, 21, 26), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    image = torch.zeros((2, *turned.shape), dtype=torch.float64)
    image[(slice(None), *window)] = part
    seen = (slice(2, 9), slice(0, 30), slice(5, 20))
    expected = plan.operator(image)
    assert torch.allclose(through_window(plan.operator, part, window), expected, atol=1e-12)
    found = through_window(plan.operator, part, window, seen)
    assert torch.allclose(found, expected[(slice(None), *seen)], atol=1e-12)


@pytest.mark.parametrize("acquisition", [STRAIGHT, SAGITTAL, TILTED], ids=["straight", "sagittal", "tilted"])
def test_what_is_seen_of_a_window_holds_its_signal(source, acquisition):
    plan = plan_scan(source.volume.grid, acquisition, torch.float64)
    image = torch.zeros(source.volume.grid.shape, dtype=torch.float64)
    image[source.window] = 1.0
    scanned = plan.operator(image)
    outside = scanned.clone()
    outside[seen_window(plan, source.window)] = 0
    assert float(outside.abs().max()) < 0.2
    assert float(scanned.max()) > 0.9
    assert seen_window(plan, source.window) != tuple(slice(0, n) for n in plan.scan_grid.shape)


def test_the_response_predicts_the_means_of_a_scan(source):
    plan = plan_scan(source.volume.grid, STRAIGHT, torch.float64)
    matrix, _ = response(source, plan)
    gains = {"CSF": 0.3, "GM": 0.6, "WM": 0.9}
    scanned = plan.operator(truth_of(source, gains, gains["WM"]).data)
    cores, _ = tissue_cores(tissues_through(plan, source.tissues))
    assert [float(scanned[core].mean()) for core in cores] == pytest.approx(matrix @ list(gains.values()), rel=1e-6)


def test_pure_voxels_of_a_sharp_scan_respond_to_their_tissue_alone():
    """Two halves without noise: a diagonal matrix of their intensities."""
    grid = Grid((20, 20, 20), np.diag([2.0, 2.0, 2.0, 1.0]))
    prob, data = torch.zeros((2, 20, 20, 20)), torch.zeros((20, 20, 20))
    prob[0, 3:10, 3:17, 3:17], prob[1, 10:17, 3:17, 3:17] = 1.0, 1.0
    data[3:10, 3:17, 3:17], data[10:17, 3:17, 3:17] = 50.0, 80.0
    source = source_of(Volume(data, grid), TissueMap(prob, ("GM", "WM"), grid))
    plan = plan_scan(grid, Acquisition(0.064, (2.0, 2.0, 2.0), PulseSequence("T1w"), psf=DELTA_PSF))
    assert response(source, plan)[0] == pytest.approx(np.diag([50.0, 80.0]), abs=0.2)
