import cmath
import math

import numpy as np
import pytest
import torch
from operators import blob, centroid_mm, grid, numbers

from mrcore.data.acquisition import DELTA_PSF, Acquisition, PulseSequence
from mrcore.errors import BadInputError
from mrcore.operators.fourier import FourierOp
from ulfsim.artefacts.artefacts import Artefacts, disturbed_operator
from ulfsim.artefacts.encoding import AxisRoles, field_of_view_centre
from ulfsim.artefacts.kspace import (
    IntensityDrift,
    NyquistGhost,
    ShotMotion,
    ShotPose,
    Wrap,
    drift_weight,
    ghost_weight,
    lines_of_shot,
    pose_matrix,
)
from ulfsim.plan import plan_scan

F64 = torch.float64
OBJECT = grid((36, 40, 32), (4.0, 4.0, 4.0), (5, -8, 3), flips=(0,))
PLAN = plan_scan(OBJECT, Acquisition(0.064, (4.0, 4.0, 8.0), PulseSequence("T1w"), psf=DELTA_PSF), F64)
CENTRE = field_of_view_centre(PLAN.scan_grid)


def beside(right: float, anterior: float, superior: float) -> np.ndarray:
    """World position that far from the centre of the field of view."""
    return CENTRE + np.array([right, anterior, superior])


HEAD = blob(OBJECT, beside(10, -12, 6), 10.0)
CLEAN = PLAN.operator(HEAD)


def scanned(artefacts: Artefacts) -> torch.Tensor:
    return disturbed_operator(PLAN, artefacts)(HEAD)


@pytest.mark.parametrize("phase_axis", [0, 1])
@pytest.mark.parametrize(("phase_deg", "gain"), [(30.0, 0.0), (0.0, 0.2), (-50.0, 0.3)])
def test_ghost_lies_half_a_field_of_view_away_with_the_predicted_amplitude(phase_axis, phase_deg, gain):
    ghost = NyquistGhost(phase_deg, gain)
    scan = scanned(Artefacts(ghost=ghost, encoding=AxisRoles(1 - phase_axis, phase_axis)))
    half = math.radians(phase_deg) / 2
    kept = complex(math.cos(half), gain / 2 * math.sin(half))
    lost = complex(gain / 2 * math.cos(half), math.sin(half))
    away = CLEAN.roll(CLEAN.shape[phase_axis] // 2, phase_axis)
    torch.testing.assert_close(scan, kept * CLEAN + lost * away, rtol=1e-10, atol=1e-12)


def test_even_lines_lead_the_odd_ones_and_the_centre_is_even():
    for n in (6, 7, 8):
        weight = ghost_weight(NyquistGhost(40, 0.2), n)
        middle, next_one = complex(weight[n // 2]), complex(weight[n // 2 + 1])
        assert math.degrees(cmath.phase(middle) - cmath.phase(next_one)) == pytest.approx(40)
        assert abs(middle) - abs(next_one) == pytest.approx(0.2)


def test_drift_is_linear_in_the_order_of_reading_and_1_in_the_mean():
    gain = drift_weight(IntensityDrift(0.4), 5)
    torch.testing.assert_close(gain, torch.tensor([0.8, 0.9, 1.0, 1.1, 1.2], dtype=F64))
    two_passes = drift_weight(IntensityDrift(-0.4, n_passes=2), 5)
    torch.testing.assert_close(two_passes, torch.tensor([1.2, 0.9, 1.1, 0.8, 1.0], dtype=F64))
    assert float(drift_weight(IntensityDrift(0.4), 1)) == 1


def test_drift_over_slices_scales_slices_and_over_lines_scales_lines():
    slices = scanned(Artefacts(drift=IntensityDrift(0.3, over_slices=True)))
    gain = torch.linspace(0.85, 1.15, CLEAN.shape[2], dtype=F64)
    torch.testing.assert_close(slices, (CLEAN * gain).to(slices.dtype))
    lines = scanned(Artefacts(drift=IntensityDrift(0.3)))
    to_k = FourierOp(tuple(CLEAN.shape), torch.complex128)
    ratio = to_k(lines) / to_k(CLEAN + 0j)
    middle = CLEAN.shape[1] // 2
    expected = torch.linspace(0.85, 1.15, CLEAN.shape[1], dtype=F64)[middle - 3 : middle + 4]
    found = ratio[CLEAN.shape[0] // 2, middle - 3 : middle + 4, CLEAN.shape[2] // 2]
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-9, atol=1e-9)


def test_wrap_is_what_half_the_lines_give():
    scan = scanned(Artefacts(wrap=Wrap(0.5))).real
    n = CLEAN.shape[1]
    assert n % 4 == 0
    k_space = FourierOp((n,), torch.complex128)(CLEAN.mT + 0j)
    half = FourierOp((n // 2,), torch.complex128).H(k_space[..., ::2]).real.mT * math.sqrt(2)
    torch.testing.assert_close(scan[:, n // 4 : 3 * n // 4], half, rtol=1e-10, atol=1e-10)
    assert float(scan[:, : n // 4].abs().max()) == float(scan[:, 3 * n // 4 :].abs().max()) == 0


def test_wrap_moves_what_lies_outside_by_the_reduced_field_of_view():
    x = blob(OBJECT, beside(0, 62, 0), 4.0)
    scan = disturbed_operator(PLAN, Artefacts(wrap=Wrap(0.6)))(x).real
    np.testing.assert_allclose(centroid_mm(scan, PLAN.scan_grid), beside(0, 62 - 0.6 * 160, 0), atol=0.05)
    assert float(scan.sum()) == pytest.approx(float(PLAN.operator(x).sum()))


def test_no_motion_is_the_scan_itself():
    still = scanned(Artefacts(motion=ShotMotion((ShotPose(), ShotPose(), ShotPose()))))
    assert torch.equal(still.real, CLEAN)
    assert float(still.imag.abs().max()) == 0


@pytest.mark.parametrize(
    "pose", [ShotPose((6.0, -5.0, 3.0)), ShotPose((2, 3, -4), (8, -6, 10)), ShotPose((0, 0, 0), (0, 0, 15))]
)
def test_a_head_that_all_shots_see_moved_lies_where_the_pose_puts_it(pose):
    scan = scanned(Artefacts(motion=ShotMotion((pose, pose))))
    place = np.append(beside(10, -12, 6), 1)
    expected = (pose_matrix(pose, CENTRE) @ place)[:3]
    assert np.linalg.norm(expected - place[:3]) > 3
    np.testing.assert_allclose(centroid_mm(scan.real, PLAN.scan_grid), expected, atol=0.06)


def test_a_head_turns_about_r_then_a_then_s_of_the_room():
    """Followed by hand: a turn about R takes A to S, one about A takes S to R, one about S takes R to A."""

    def place(turns, point):
        return (pose_matrix(ShotPose(rotation_deg=turns), CENTRE) @ [*beside(*point), 1])[:3] - CENTRE

    np.testing.assert_allclose(place((90, 90, 0), (0, 5, 0)), (5, 0, 0), atol=1e-9)
    np.testing.assert_allclose(place((90, 0, 90), (0, 5, 0)), (0, 0, 5), atol=1e-9)
    np.testing.assert_allclose(place((90, 90, 90), (0, 5, 0)), (0, 5, 0), atol=1e-9)
    np.testing.assert_allclose(place((0, 90, 90), (0, 0, 5)), (0, 5, 0), atol=1e-9)


def test_poses_turn_about_the_centre_right_handed():
    turned = pose_matrix(ShotPose((0, 0, 1), (0, 0, 90)), CENTRE) @ np.append(beside(1, 0, 0), 1)
    np.testing.assert_allclose(turned[:3], beside(0, 1, 1), atol=1e-12)


@pytest.mark.parametrize("interleaved", [True, False])
def test_each_shot_gives_its_lines(interleaved):
    moved = ShotPose((5.0, 0.0, 0.0))
    motion = ShotMotion((ShotPose(), moved, ShotPose()), interleaved)
    to_k = FourierOp(tuple(CLEAN.shape), torch.complex128)
    found = to_k(scanned(Artefacts(motion=motion)))
    there = to_k(scanned(Artefacts(motion=ShotMotion((moved, moved)))))
    lines = [lines_of_shot(motion, s, CLEAN.shape[1]) for s in range(3)]
    assert torch.equal(torch.stack(lines).sum(0), torch.ones(CLEAN.shape[1]).long())
    torch.testing.assert_close(found[:, lines[1]], there[:, lines[1]])
    torch.testing.assert_close(found[:, ~lines[1]], to_k(CLEAN + 0j)[:, ~lines[1]])
    if interleaved:
        assert lines[1].nonzero()[:3, 0].tolist() == [1, 4, 7]
    else:
        assert int(lines[1].diff().sum()) == 2


def test_motion_that_reaches_over_the_edge_of_the_lattice_does_not_wrap():
    x = blob(OBJECT, beside(0, 60, 0), 4.0)
    gone = disturbed_operator(PLAN, Artefacts(motion=ShotMotion((ShotPose((0, 45, 0)),) * 2)))(x)
    assert float(gone.abs().max()) < 1e-3 * float(PLAN.operator(x).max())


def test_one_after_another_they_agree_with_their_product():
    both = scanned(Artefacts(ghost=NyquistGhost(30), drift=IntensityDrift(0.2), wrap=Wrap(0.7)))
    weight = ghost_weight(NyquistGhost(30), CLEAN.shape[1]) * drift_weight(IntensityDrift(0.2), CLEAN.shape[1])
    to_k = FourierOp(tuple(CLEAN.shape), torch.complex128)
    full = to_k.H(weight[:, None] * to_k(CLEAN + 0j))
    start, kept = 6, 28
    expected = full[:, start : start + kept].clone()
    expected[:, -start:] += full[:, :start]
    expected[:, : 40 - start - kept] += full[:, start + kept :]
    torch.testing.assert_close(both[:, start : start + kept], expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ShotPose((0, 0, 300)), "within 200"),
        (lambda: ShotPose((0, 0)), "three numbers"),
        (lambda: ShotPose(rotation_deg=(math.nan, 0, 0)), "within 180"),
        (lambda: ShotMotion((ShotPose(),)), "at least two"),
        (lambda: NyquistGhost(200), "within 180"),
        (lambda: NyquistGhost(0, -2), "within 1"),
        (lambda: IntensityDrift(2), "between -1 and 1"),
        (lambda: IntensityDrift(0.1, n_passes=0), "at least 1"),
        (lambda: Wrap(0.0), "between 0.1 and 1"),
    ],
)
def test_refuses_parameters_out_of_range(build, message):
    with pytest.raises(BadInputError, match=message):
        build()


def test_numbers_of_another_precision_follow_the_plan():
    plan = plan_scan(OBJECT, PLAN.acquisition, torch.float32)
    artefacts = Artefacts(motion=ShotMotion((ShotPose(), ShotPose((1, 2, 3)))), ghost=NyquistGhost(10), wrap=Wrap(0.8))
    single = disturbed_operator(plan, artefacts)(numbers(*OBJECT.shape).float())
    double = disturbed_operator(PLAN, artefacts)(numbers(*OBJECT.shape))
    assert single.dtype == torch.complex64
    torch.testing.assert_close(single.to(torch.complex128), double, rtol=1e-4, atol=1e-4)
