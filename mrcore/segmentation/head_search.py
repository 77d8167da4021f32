"""Guesses of how a head lies: from where a template's registration starts."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from mrcore.data.grid import to_world
from mrcore.data.volume import Volume
from mrcore.segmentation.foreground import largest_part, object_level
from mrcore.spatial.registration import Matrix, block_mean, rotation

SCALES = (1.06, 1.2, 1.36)
"""From a head to the ICBM-152 template: adults (1.06) to brains of three quarters of their size."""
_DEPTHS_MM = (60.0, 70.0, 80.0, 90.0, 100.0, 110.0)  # of the brain's centre under the top of an adult's head
_UPPER_MM = 130.0  # of an adult's head, from its top: no face, no neck
_PITCHES = (-0.5, -0.25, 0.0, 0.25, 0.5)
_STRAIGHT = ((0.0, 0.0),)
_TURNS = (*_STRAIGHT, (0.35, 0.0), (-0.35, 0.0), (0.0, 0.35), (0.0, -0.35))  # about anterior, about superior


def head_points(head: Volume) -> NDArray[np.float64]:
    """Return places (N, 3) in the head, in world mm, about 4 mm apart.

    Raises:
        BadInputError: an image without positive values.
    """
    coarse = block_mean(head, 4.0)
    data = coarse.data.numpy()
    return to_world(coarse.grid, np.argwhere(largest_part(data > object_level(data))))


def adult_starts(points_mm: NDArray[np.float64], template_centre_mm: NDArray[np.float64]) -> list[Matrix]:
    """Return guesses of the motion from an adult's head (`head_points`) to the template: straight, or nodding."""
    return _starts(points_mm, template_centre_mm, SCALES[0], _DEPTHS_MM[1:], (-0.4, -0.2, 0.0, 0.2, 0.4), _STRAIGHT)


def head_starts(
    points_mm: NDArray[np.float64],
    template_centre_mm: NDArray[np.float64],
    scale: float,
    *,
    axes: Matrix | None = None,
    tilted: bool = True,
) -> list[Matrix]:
    """Return guesses of the motion from a head (`head_points`) to the template, `scale` times as large.

    They hold heads that are turned by up to 35 degrees about each axis (about x alone where not `tilted`). `axes`
    (4 x 4) is a turn that is tried before: one of `axis_orders` where the header's axes may be wrong.
    """
    axes = np.eye(4) if axes is None else axes
    pitches, turns = (_PITCHES, _TURNS) if tilted else (_PITCHES[1:4], _STRAIGHT)
    world = points_mm @ axes[:3, :3].T
    return [motion @ axes for motion in _starts(world, template_centre_mm, scale, _DEPTHS_MM, pitches, turns)]


def _starts(
    world: NDArray[np.float64],
    template_centre_mm: NDArray[np.float64],
    scale: float,
    depths_mm: tuple[float, ...],
    pitches: tuple[float, ...],
    turns: tuple[tuple[float, float], ...],
) -> list[Matrix]:
    smaller = SCALES[0] / scale
    top = float(np.percentile(world[:, 2], 99.8))
    upper = world[world[:, 2] > top - _UPPER_MM * smaller]
    x, y = (float(np.percentile(upper[:, a], [1, 99]).mean()) for a in range(2))
    starts = []
    for depth_mm, pitch, (roll, yaw) in itertools.product(depths_mm, pitches, turns):
        motion = rotation((pitch, roll, yaw)) @ np.diag([scale, scale, scale, 1.0])
        motion[:3, 3] = template_centre_mm - motion[:3, :3] @ np.array([x, y, top - depth_mm * smaller])
        starts.append(motion)
    return starts


def axis_orders() -> list[Matrix]:
    """Return the 23 turns (4 x 4) by right angles that exchange the world axes; mirrors are left out.

    A symmetric template cannot tell a mirrored head from one that is not.
    """
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            turn = np.eye(4)
            turn[:3, :3] = np.diag(signs) @ np.eye(3)[list(order)]
            if np.linalg.det(turn) > 0 and not np.array_equal(turn, np.eye(4)):
                found.append(turn)
    return found
