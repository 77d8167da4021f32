import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from operators import blob, centroid_mm, grid

from mrcore.data.acquisition import DELTA_PSF, Acquisition, PulseSequence
from mrcore.data.grid import Grid, directions
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator
from ulfsim.artefacts.artefacts import NO_ARTEFACTS, Artefacts, disturbed_operator
from ulfsim.artefacts.encoding import AxisRoles
from ulfsim.artefacts.fields import (
    B0Distortion,
    ConcomitantWarp,
    ReceiveBias,
    bias_factor,
    concomitant_field_t,
    peak_to_peak_ppm,
    readout_gradient_t_per_m,
)
from ulfsim.plan import ScanPlan, plan_scan

F64 = torch.float64
GAMMA = 42.577478518e6
ACQUISITION = Acquisition(0.064, (4.0, 3.0, 6.0), PulseSequence("T1w"), psf=DELTA_PSF)
OBJECT = grid((44, 48, 46), (3.0, 3.0, 3.0), (5, -8, 3))
CENTRE = np.array([5.0, -8.0, 3.0])


def moved_by(artefacts: Artefacts, place_mm, acquisition: Acquisition = ACQUISITION, where: Grid = OBJECT):
    """Return how far (mm, world) the image of a blob at `place_mm` from the centre moves, and the sums' ratio."""
    plan = plan_scan(where, acquisition, F64)
    x = blob(where, CENTRE + place_mm, 6.0)
    before, after = (disturbed_operator(plan, a)(x).real for a in (NO_ARTEFACTS, artefacts))
    way = centroid_mm(after, plan.scan_grid) - centroid_mm(before, plan.scan_grid)
    return way, float(after.sum() / before.sum())


@pytest.mark.parametrize(
    "where",
    [
        OBJECT,
        grid((44, 48, 46), (3.0, 3.0, 3.0), (5, -8, 3), flips=(0, 2)),
        grid((46, 44, 48), (3.0, 3.0, 3.0), (5, -8, 3), order=(2, 0, 1), flips=(1,)),
    ],
    ids=["RAS", "LAI", "permuted"],
)
@pytest.mark.parametrize("readout", [0, 2])
def test_off_resonance_moves_by_hz_over_hz_per_voxel_toward_rising_index(where, readout):
    # Off-resonance that varies along A only is the same over the way of the readout.
    b0 = B0Distortion((0, 100, 0, 0, 0, 0, 0, 0))
    way, total = moved_by(Artefacts(b0=b0, encoding=AxisRoles(readout, 1, 200.0)), (0, 30, 0), where=where)
    shift_mm = 30e-6 * GAMMA * 0.064 / 200.0 * ACQUISITION.voxel_mm[readout]
    axis = directions(plan_scan(where, ACQUISITION, F64).scan_grid)[:, readout]
    assert shift_mm > 1
    np.testing.assert_allclose(way, shift_mm * axis, atol=2e-3)
    assert total == pytest.approx(1, abs=1e-10)


def test_off_resonance_moves_along_the_readout_of_an_oblique_scan():
    acquisition = replace(ACQUISITION, tilt_deg=(0.0, 0.0, 25.0))
    b0 = B0Distortion((0, 0, 100, 0, 0, 0, 0, 0))
    way, total = moved_by(Artefacts(b0=b0, encoding=AxisRoles(0, 1, 200.0)), (0, 0, 30), acquisition)
    axis = directions(plan_scan(OBJECT, acquisition, F64).scan_grid)[:, 0]
    assert abs(axis[1]) > 0.4
    np.testing.assert_allclose(way, 30e-6 * GAMMA * 0.064 / 200.0 * 4.0 * axis, atol=0.02)
    assert total == pytest.approx(1, abs=1e-3)


def test_what_is_stretched_gets_darker_by_the_jacobian():
    plan = plan_scan(OBJECT, ACQUISITION, F64)
    slope = 60e-6 * GAMMA * 0.064 / 200.0 * 4.0 / 100  # mm per mm
    scan = disturbed_operator(
        plan, Artefacts(b0=B0Distortion((60, 0, 0, 0, 0, 0, 0, 0)), encoding=AxisRoles(0, 1, 200.0))
    )
    flat = scan(torch.ones(OBJECT.shape, dtype=F64)).real[8:-8]
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / (1 + slope)), rtol=1e-6, atol=0)


def test_harmonics_of_off_resonance_have_no_source():
    # The Laplacian of each harmonic is 0: the mean over the sphere is that at its centre.
    for i in range(8):
        b0 = B0Distortion(tuple(100.0 * (j == i) for j in range(8)))
        assert peak_to_peak_ppm(b0) == pytest.approx((200, 200, 200, 100, 100, 100, 150, 200)[i], rel=0.03)


@pytest.mark.parametrize("field_axis", ["R", "A", "S"])
def test_concomitant_field_is_what_the_length_of_the_whole_field_has_beyond_its_main_part(field_axis):
    main = "RAS".index(field_axis)
    r, s = [a for a in range(3) if a != main]
    gradient, place_mm, field_t = (0.007, -0.011, 0.013), (61.0, -45.0, 83.0), 1.5
    m = np.array(place_mm) * 1e-3
    field = np.zeros(3)
    field[main] = field_t + np.dot(gradient, m)
    # Free of divergence and curl: G_x goes with (z, 0, x), G_z of symmetric coils with (-x / 2, -y / 2, z).
    field[r] = gradient[r] * m[main] - gradient[main] / 2 * m[r]
    field[s] = gradient[s] * m[main] - gradient[main] / 2 * m[s]
    expected = np.linalg.norm(field) - field[main]
    at = tuple(torch.tensor(v, dtype=F64) for v in place_mm)
    found = float(concomitant_field_t(ConcomitantWarp(field_axis), gradient, at, field_t))
    assert found == pytest.approx(expected, rel=3e-3)


def concomitant_way(
    place_mm, field_t: float = 0.064, warp: ConcomitantWarp | None = None, bandwidth_hz: float = 2000.0
):
    artefacts = Artefacts(concomitant=warp or ConcomitantWarp(), encoding=AxisRoles(0, 1, bandwidth_hz))
    return moved_by(artefacts, place_mm, replace(ACQUISITION, field_t=field_t))[0]


def test_concomitant_displacement_is_g_z_squared_over_two_b0():
    gradient = readout_gradient_t_per_m(AxisRoles(0, 1, 2000.0), 4.0)
    assert gradient == pytest.approx(2000 / (GAMMA * 4e-3))
    # The mean of z^2 over a blob has its variance.
    expected_mm = gradient * (0.05**2 + 0.006**2) / (2 * 0.064) * 1e3
    np.testing.assert_allclose(concomitant_way((0, 50, 0)), (expected_mm, 0, 0), atol=2e-3)


def test_concomitant_displacement_goes_as_one_over_the_field():
    strong, weak = concomitant_way((0, 50, 0), 3.0), concomitant_way((0, 50, 0), 0.064)
    assert weak[0] > 0.2
    assert weak[0] / strong[0] == pytest.approx(3.0 / 0.064, rel=0.02)


def test_concomitant_field_vanishes_at_the_isocentre():
    at = tuple(torch.tensor(v, dtype=F64) for v in (10.0, -20.0, 30.0))
    assert float(concomitant_field_t(ConcomitantWarp("A", (10, -20, 30)), (0.01, 0.02, 0.01), at, 0.064)) == 0
    elsewhere = concomitant_way((0, 50, 0), warp=ConcomitantWarp("A", (0, 50, 0)))
    np.testing.assert_allclose(elsewhere, 0, atol=0.02)


def test_bias_has_its_ratio_within_the_head_and_multiplies_the_object():
    bias = ReceiveBias(1.8, (0, 1, 0, 0, 0, 0, 0, 0, 0))
    at = tuple(torch.tensor(v, dtype=F64) for v in ([0, 0, 0], [100, 0, -100], [0, 0, 0]))
    torch.testing.assert_close(bias_factor(bias, at), torch.tensor([1.8**0.5, 1, 1.8**-0.5], dtype=F64))
    plan = plan_scan(OBJECT, ACQUISITION, F64)
    x = blob(OBJECT, CENTRE + np.array([0, 40, 0]), 6.0)
    scan = disturbed_operator(plan, Artefacts(bias=bias))(x).real
    # The factor is an exponential in A: a Gaussian keeps its shape, with exp(slope^2 variance / 2) more of it.
    slope = math.log(1.8) / 200
    expected = math.exp(40 * slope + 0.5 * (6 * slope) ** 2)
    assert float(scan.sum() / plan.operator(x).sum()) == pytest.approx(expected, rel=1e-4)


def test_bias_of_the_default_shape_is_brightest_in_the_middle():
    at = tuple(torch.tensor(v, dtype=F64) for v in ([0, 100], [0, 0], [0, 0]))
    middle, edge = bias_factor(ReceiveBias(2.0), at)
    assert float(middle / edge) == pytest.approx(2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ReceiveBias(0.5), "1 to 100"),
        (lambda: ReceiveBias(2.0, (1, 2)), "needs 9 finite numbers"),
        (lambda: ReceiveBias(2.0, (0,) * 9), "not 0"),
        (lambda: B0Distortion((1, 2, 3)), "needs 8 finite numbers"),
        (lambda: B0Distortion((math.nan,) * 8), "finite"),
        (lambda: ConcomitantWarp("z"), "R, A or S"),
        (lambda: AxisRoles(1, 1), "two different axes"),
        (lambda: AxisRoles(0, 3), "two different axes"),
        (lambda: AxisRoles(bandwidth_hz=0), "positive"),
    ],
)
def test_refuses_parameters_out_of_range(build, message):
    with pytest.raises(BadInputError, match=message):
        build()


def test_off_resonance_moves_along_the_axes_of_the_scan_where_the_object_counts_the_other_way():
    """The same scan of the same head, stored from right to left and from left to right, looks the same."""
    b0, place_mm = B0Distortion((0, 100, 0, 0, 0, 0, 0, 0)), CENTRE + np.array([0.0, 30.0, 0.0])
    artefacts = Artefacts(b0=b0, encoding=AxisRoles(0, 1, 200.0))
    scan_grid = plan_scan(OBJECT, ACQUISITION, F64).scan_grid
    found, clean = [], []
    for flips in ((), (0,), (0, 1)):
        where = grid(OBJECT.shape, OBJECT.spacing_mm, (5, -8, 3), flips=flips)
        plan = ScanPlan(where, scan_grid, imaging_operator(where, scan_grid, ACQUISITION.psf, F64), ACQUISITION)
        head = blob(where, place_mm, 6.0)
        found.append(disturbed_operator(plan, artefacts)(head).real)
        clean.append(plan.operator(head))
    assert float((found[0] - clean[0]).abs().max()) > 0.1
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-9)
