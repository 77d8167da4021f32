"""Poses and their estimation: signs, centre of rotation, units, recovery of a known motion."""

import math

import numpy as np
import pytest
import torch
from operators import blob, grid

from inr.scans.alignment import (
    AlignmentSettings,
    Pose,
    _linearised,
    align,
    apart,
    centre_of,
    pose_matrix,
    pose_of,
    posed,
)
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.grid import to_world
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator, predict
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded

MOTION = Pose((2.0, -1.5, 2.5), (-2.5, 1.0, 3.0))
SPACING = (6.0, 6.0, 12.0)


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(32, 192.0), seed=2).image


def scan_of(head: Volume, pose: Pose, sd: float = 0.02) -> Volume:
    """Return a scan of the head whose header knows nothing of `pose`."""
    header = grid((30, 32, 15), SPACING)
    clean = predict(imaging_operator(head.grid, posed(header, pose), gaussian_psf(SPACING)), head.data)
    return Volume(add_noise(clean, sd, seeded(3, "align")), header)


def test_a_turn_of_90_degrees_about_s_takes_right_to_anterior():
    # Voxel (2, 1, 1) of 3^3 is one step to the right of the centre.
    header = grid((3, 3, 3), (2.0, 2.0, 2.0), centre_mm=(10.0, 20.0, 30.0))
    turned = posed(header, Pose((0.0, 0.0, 90.0), (1.0, 0.0, -4.0)))
    np.testing.assert_allclose(
        to_world(turned, np.array([1, 1, 1])), centre_of(header) + np.array([1, 0, -4]), atol=1e-9
    )
    np.testing.assert_allclose(
        to_world(turned, np.array([2, 1, 1])), centre_of(header) + np.array([1, 2, -4]), atol=1e-9
    )


def test_pose_and_matrix_are_inverse_of_one_another():
    header = grid((12, 14, 5), (2.0, 2.0, 5.0), centre_mm=(40.0, -3.0, 12.0))
    again = pose_of(pose_matrix(MOTION, header), header)
    np.testing.assert_allclose(again.turn_deg, MOTION.turn_deg, atol=1e-9)
    np.testing.assert_allclose(again.shift_mm, MOTION.shift_mm, atol=1e-9)
    assert MOTION.angle_deg == pytest.approx(math.sqrt(12.5))
    assert MOTION.distance_mm == pytest.approx(math.sqrt(16.25))


def test_slopes_are_the_derivatives_of_the_prediction():
    header, where, psf = grid((16, 16, 8), SPACING), head_grid(36, 144.0), gaussian_psf(SPACING)
    image = Volume((blob(where, (25.0, -10.0, 5.0), 15.0) + blob(where, (-20.0, 15.0, 20.0), 12.0)).float(), where)
    _, slopes = _linearised(image, header, psf)

    def predicted(motion: np.ndarray) -> torch.Tensor:
        # Turns are in mm at 70 mm: a radian is 70.
        pose = Pose(tuple(np.degrees(motion[3:] / 70.0)), tuple(motion[:3]))
        return _linearised(image, posed(header, pose), psf)[0]

    for number, step in enumerate(0.3 * np.eye(6)):
        slope = (predicted(step) - predicted(-step)) / 0.6
        assert float((slope - slopes[number]).norm() / slope.norm()) < 0.05


def test_a_known_motion_is_found(head):
    scan = scan_of(head, MOTION)
    brighter = Volume(1.3 * scan.data, scan.grid)
    found = align(head, brighter, gaussian_psf(SPACING), Pose(), settings=AlignmentSettings((12.0, 6.0)))
    left = apart(found.pose, MOTION, scan.grid)
    assert left.angle_deg < 0.3
    assert left.distance_mm < 0.15
    assert found.converged
    assert found.scale == pytest.approx(1.3, abs=0.02)
    assert found.history[-1] < 0.3 * found.history[0]


def test_weights_leave_out_what_is_wrong(head):
    scan = scan_of(head, MOTION)
    data, weights = scan.data.clone(), torch.ones(scan.grid.shape)
    data[:, :, 5:9], weights[:, :, 5:9] = data[:, :, 5:9].roll(3, 0), 0.0
    spoilt, psf = Volume(data, scan.grid), gaussian_psf(SPACING)
    settings = AlignmentSettings((6.0,))
    without = apart(align(head, spoilt, psf, Pose(), weights, settings).pose, MOTION, scan.grid)
    trusting = apart(align(head, spoilt, psf, Pose(), None, settings).pose, MOTION, scan.grid)
    assert without.distance_mm < 0.2 < trusting.distance_mm


def test_bad_input_is_refused(head):
    with pytest.raises(BadInputError, match="three finite numbers"):
        Pose((0.0, 0.0, math.nan))
    with pytest.raises(BadInputError, match="positive"):
        AlignmentSettings(levels_mm=())
    far = Volume(torch.ones(8, 8, 4), grid((8, 8, 4), SPACING, centre_mm=(900.0, 0.0, 0.0)))
    with pytest.raises(BadInputError, match="shows nothing"):
        align(head, far, gaussian_psf(SPACING), Pose())
