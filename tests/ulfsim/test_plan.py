"""Where a scan lies: axes, tilt, coverage, world positions."""

import itertools
import math

import numpy as np
import pytest
import torch
from operators import blob, centroid_mm, grid

from mrcore.data.acquisition import Acquisition, AxisPsf, PulseSequence, gaussian_psf
from mrcore.data.grid import Grid, directions, to_voxel, to_world, with_spacing
from mrcore.data.volume import TISSUES, TissueMap, Volume
from ulfsim.plan import plan_scan, tilt_matrix, with_margin

F64 = torch.float64
VOXEL = (2.3, 2.7, 4.9)
CENTRE = (6.3, -5.7, 4.9)
OBJECTS = {
    "RAS": grid((44, 51, 47), (1.5, 1.5, 1.5), (1, -2, 3)),
    "LIA": grid((44, 47, 51), (1.5, 1.5, 1.5), (1, -2, 3), flips=(0, 1), order=(0, 2, 1)),
}
TILTS = {"straight": (0.0, 0.0, 0.0), "tilted": (12.0, 0.0, 0.0), "oblique": (12.0, -25.0, 8.0)}
every_object = pytest.mark.parametrize("where", OBJECTS.values(), ids=OBJECTS.keys())


def acquisition(slice_axis="S", tilt_deg=(0.0, 0.0, 0.0), voxel_mm=VOXEL) -> Acquisition:
    psf = tuple(AxisPsf(v, truncate=False) for v in voxel_mm)
    return Acquisition(0.064, voxel_mm, PulseSequence("T1w"), psf=psf, slice_axis=slice_axis, tilt_deg=tilt_deg)


@pytest.mark.parametrize("tilt_deg", TILTS.values(), ids=TILTS.keys())
@pytest.mark.parametrize("slice_axis", ["R", "A", "S"])
@every_object
def test_a_blob_keeps_its_world_position_in_every_orientation(where, slice_axis, tilt_deg):
    plan = plan_scan(where, acquisition(slice_axis, tilt_deg), F64)
    image = plan.operator(blob(where, CENTRE, 3.5))
    np.testing.assert_allclose(centroid_mm(image, plan.scan_grid), CENTRE, atol=0.02)
    assert plan.scan_grid.spacing_mm == pytest.approx(VOXEL)


@pytest.mark.parametrize("slice_axis", ["R", "A", "S"])
@every_object
def test_the_tilt_turns_the_axes_about_the_world(where, slice_axis):
    straight, tilted = (
        plan_scan(where, acquisition(slice_axis, t)).scan_grid for t in TILTS.values() if t != TILTS["tilted"]
    )
    np.testing.assert_allclose(directions(tilted), tilt_matrix(TILTS["oblique"]) @ directions(straight), atol=1e-12)
    # The slices still lie nearest to their world axis.
    assert np.abs(directions(tilted)[:, 2]).argmax() == "RAS".index(slice_axis)


def test_a_tilt_is_right_handed_and_about_fixed_axes():
    r, a, s = np.eye(3)
    np.testing.assert_allclose(tilt_matrix((90.0, 0.0, 0.0)) @ a, s, atol=1e-12)
    np.testing.assert_allclose(tilt_matrix((0.0, 90.0, 0.0)) @ s, r, atol=1e-12)
    np.testing.assert_allclose(tilt_matrix((0.0, 0.0, 90.0)) @ r, a, atol=1e-12)
    # First about R (A goes to S), then about S, which leaves S where it is; the other order would give -R.
    np.testing.assert_allclose(tilt_matrix((90.0, 0.0, 90.0)) @ a, s, atol=1e-12)
    np.testing.assert_allclose(tilt_matrix((90.0, 90.0, 0.0)) @ a, r, atol=1e-12)


@pytest.mark.parametrize("tilt_deg", [(12.0, -25.0, 8.0), (45.0, 0.0, 0.0), (90.0, 0.0, 0.0), (0.0, 0.0, -180.0)])
@pytest.mark.parametrize("slice_axis", ["R", "A", "S"])
@every_object
def test_a_tilted_scan_holds_the_whole_object_and_no_more(where, slice_axis, tilt_deg):
    scan = plan_scan(where, acquisition(slice_axis, tilt_deg)).scan_grid
    ends = [(-0.5, n - 0.5) for n in where.shape]
    at = to_voxel(scan, to_world(where, np.array(list(itertools.product(*ends)))))
    room = np.stack([at.min(0) + 0.5, np.array(scan.shape) - 0.5 - at.max(0)])
    assert room.min() > -1e-6
    assert room.max() < 0.5 + 1e-6
    centres = [to_world(g, (np.array(g.shape) - 1) / 2) for g in (where, scan)]
    np.testing.assert_allclose(*centres, atol=1e-9)


def test_a_tilted_scan_keeps_a_flat_object_and_its_own_psf():
    """Blur along the slices widens a blob along the turned axis, and along no other."""
    where, tilt_deg = grid((70, 70, 70), (1, 1, 1)), (0.0, 30.0, 0.0)
    psf = (AxisPsf(truncate=False), AxisPsf(truncate=False), AxisPsf(8.0, truncate=False))
    sharp = Acquisition(0.064, (1.5, 1.5, 3.0), PulseSequence("T1w"), psf=psf, tilt_deg=tilt_deg)
    plan = plan_scan(where, sharp, F64)
    flat = plan.operator(torch.ones(where.shape, dtype=F64))
    middle = tuple(slice(n // 2 - 4, n // 2 + 4) for n in flat.shape)
    torch.testing.assert_close(flat[middle], torch.ones(8, 8, 8, dtype=F64), rtol=0, atol=1e-3)
    image = plan.operator(blob(where, (0, 0, 0), 3.0))
    offset = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij"), -1)
    world = to_world(plan.scan_grid, offset)
    weight = (image / image.sum()).numpy()[..., None, None]
    covariance = (weight * world[..., None] * world[..., None, :]).sum((0, 1, 2))
    along = tilt_matrix(tilt_deg)[:, 2]
    expected = 9.0 * np.eye(3) + 8.0**2 / (8 * np.log(2)) * np.outer(along, along)
    np.testing.assert_allclose(covariance, expected, atol=0.35)


def test_a_tilt_costs_no_resolution():
    """Trilinear interpolation alone would add spacing^2 / 6 to the variance of a blob on every turned axis."""
    where, voxel_mm, tilt_deg = grid((60, 60, 60), (1, 1, 1)), (1.6, 1.6, 2.0), (12.0, -25.0, 8.0)
    plan = plan_scan(where, acquisition(tilt_deg=tilt_deg, voxel_mm=voxel_mm), F64)
    image = plan.operator(blob(where, (2.3, -1.4, 3.7), 2.0))
    at = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij"), -1)
    offset = (to_world(plan.scan_grid, at) - (2.3, -1.4, 3.7)) @ directions(plan.scan_grid)
    variance = ((image / image.sum()).numpy()[..., None] * offset**2).sum((0, 1, 2))
    np.testing.assert_allclose(variance, 4.0 + np.square(voxel_mm) / (8 * np.log(2)), atol=0.03)


@pytest.mark.parametrize("slice_axis", ["R", "A", "S"])
@every_object
def test_without_a_tilt_the_grids_share_their_fourier_origin(where, slice_axis):
    plan = plan_scan(where, acquisition(slice_axis))
    np.testing.assert_allclose(plan.scan_grid.origin_mm, where.origin_mm, atol=1e-9)
    order = [int(np.abs(directions(where)[i]).argmax()) for i in range(3)]
    order = [a for a in order if a != order["RAS".index(slice_axis)]] + [order["RAS".index(slice_axis)]]
    turned = Grid(tuple(where.shape[a] for a in order), where.affine[:, [*order, 3]])
    assert np.array_equal(plan.scan_grid.affine, with_spacing(turned, VOXEL).affine)
    assert plan.scan_grid.shape == with_spacing(turned, VOXEL).shape


@pytest.mark.parametrize("spacing_mm", [3.0, 4.0, 5.5])
@pytest.mark.parametrize("voxel_mm", [(1.6, 1.6, 5.0), (1.0, 2.0, 2.5), (0.9, 1.1, 1.3)])
@pytest.mark.parametrize("shape", [(20, 22, 16), (21, 23, 17), (20, 19, 18)])
def test_coarse_objects_can_be_scanned(spacing_mm, voxel_mm, shape):
    """A scan of an odd number of voxels reaches no further than an even, coarse object."""
    where = grid(shape, (spacing_mm,) * 3, (2, 3, -1))
    plan = plan_scan(where, Acquisition(0.064, voxel_mm, PulseSequence("T1w"), psf=gaussian_psf(voxel_mm)), F64)
    at = to_voxel(where, to_world(plan.scan_grid, np.array([[0, 0, 0], np.array(plan.scan_grid.shape) - 1])))
    tolerance = 0.5 * np.array(plan.scan_grid.spacing_mm) / spacing_mm + 1e-6
    assert (at.min(0) > -0.5 - tolerance).all()
    assert (at.max(0) < np.array(shape) - 0.5 + tolerance).all()
    centre = (2.0 + spacing_mm, 3.0, -1.0)
    image = plan.operator(blob(where, centre, 1.5 * spacing_mm))
    np.testing.assert_allclose(centroid_mm(image, plan.scan_grid), centre, atol=0.03 * spacing_mm)


def test_a_sheared_object_is_scanned_along_axes_at_right_angles():
    """A matrix with shears, as registrations leave it in headers; no scanner samples such a lattice."""
    affine = OBJECTS["RAS"].affine.copy()
    affine[:3, 1] += 0.3 * affine[:3, 0]
    sheared = Grid(OBJECTS["RAS"].shape, affine)
    plan = plan_scan(sheared, acquisition(), F64)
    axes = directions(plan.scan_grid)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    assert plan.scan_grid.spacing_mm == pytest.approx(VOXEL)
    corners = np.array(list(itertools.product(*((0, n - 1) for n in sheared.shape))))
    inside = to_voxel(plan.scan_grid, to_world(sheared, corners))
    assert (inside > -1).all()
    assert (inside < np.array(plan.scan_grid.shape)).all()
    centre = to_world(sheared, np.array([22.0, 25.0, 23.0]))
    image = plan.operator(blob(sheared, tuple(centre), 3.5))
    np.testing.assert_allclose(centroid_mm(image, plan.scan_grid), centre, atol=0.02)


def test_a_margin_leaves_everything_where_it_is():
    """Unequal voxels, so that each axis gets a number of its own: 2, 3 and 6 voxels for 12 mm."""
    where = grid((5, 6, 7), (8.0, 4.0, 2.0), (3, 1, -2), order=(1, 0, 2), flips=(1,))
    data = torch.arange(210.0).reshape(where.shape)
    prob = torch.stack([(data == 100).float(), (data == 33).float(), (data == 7).float()])
    image, tissues = with_margin(Volume(data, where), TissueMap(prob, TISSUES, where), 12.0)
    assert image.data.shape == tuple(
        n + 2 * math.ceil(12 / s) for n, s in zip(where.shape, where.spacing_mm, strict=True)
    )
    for value in (1.0, 33.0, 209.0):
        before, after = ((v.data == value).nonzero()[0].numpy() for v in (Volume(data, where), image))
        np.testing.assert_allclose(to_world(image.grid, after), to_world(where, before), atol=1e-9)
    assert bool((image.data[tissues.of("GM") == 1] == 33).all())
