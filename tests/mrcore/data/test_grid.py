"""Grids: world positions, Fourier origins, refusals."""

import pickle

import numpy as np
import pytest
from operators import grid

from mrcore.data.grid import Grid, cropped, directions, grid_about, to_voxel, to_world, with_spacing
from mrcore.errors import BadInputError

LAS = np.array([[-1.6, 0, 0, 90], [0, 1.6, 0, -110], [0, 0, 5, -70], [0, 0, 0, 1]])
OBLIQUE = grid((11, 8, 5), (1.2, 0.9, 3.1), (4, -7, 12), degrees=(20, -10, 35), flips=(1,))


def test_facts_of_a_flipped_anisotropic_grid():
    g = Grid((112, 136, 40), LAS)
    assert g.spacing_mm == pytest.approx((1.6, 1.6, 5.0))
    assert g.fov_mm == pytest.approx((179.2, 217.6, 200.0))
    assert g.orientation == "LAS"
    # Voxel (56, 68, 20) by hand.
    np.testing.assert_allclose(g.origin_mm, (90 - 1.6 * 56, -110 + 1.6 * 68, -70 + 5 * 20))


def test_oblique_spacing_is_the_length_of_the_columns():
    assert OBLIQUE.spacing_mm == pytest.approx((1.2, 0.9, 3.1))
    np.testing.assert_allclose(directions(OBLIQUE).T @ directions(OBLIQUE), np.eye(3), atol=1e-12)


def test_voxel_and_world_are_inverse():
    voxels = np.array([[0, 0, 0], [3.5, -1.25, 7.0]])
    np.testing.assert_allclose(to_voxel(OBLIQUE, to_world(OBLIQUE, voxels)), voxels, atol=1e-12)
    np.testing.assert_allclose(to_world(Grid((4, 4, 4), LAS), np.array([1, 2, 3])), (88.4, -106.8, -55))


def test_is_read_only_even_when_its_source_changes_or_it_is_copied():
    source = LAS.copy()
    g = Grid((4, 4, 4), source)
    source[0, 3] = 0
    for one in (g, pickle.loads(pickle.dumps(g))):
        assert one.affine[0, 3] == 90
        with pytest.raises(ValueError, match="read-only"):
            one.affine[0, 3] = 1
        with pytest.raises(AttributeError, match="cannot assign"):
            one.shape = (1, 1, 1)


def test_numpy_sizes_become_plain_integers():
    g = Grid(tuple(np.array([4, 5, 6])), np.eye(4))
    assert g.shape == (4, 5, 6)
    assert all(type(n) is int for n in g.shape)


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((4, 4), LAS, r"three positive sizes .* got \(4, 4\)"),
        ((4, 4, 0), LAS, "three positive sizes"),
        ((4, 4, 3.5), LAS, "three positive sizes"),
        (4, LAS, "three positive sizes"),
        ((4, 4, 4), np.eye(3), "finite 4 x 4"),
        ((4, 4, 4), np.full((4, 4), np.nan), "finite 4 x 4"),
        ((4, 4, 4), np.diag([1, 1, 1, 2.0]), "last row"),
        ((4, 4, 4), np.diag([1, 1, 0, 1.0]), "singular"),
        ((4, 4, 4), np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
    ],
)
def test_refuses(shape, affine, message):
    with pytest.raises(BadInputError, match=message):
        Grid(shape, affine)


def test_tiny_voxels_are_not_singular():
    assert Grid((4, 4, 4), np.diag([1e-2, 1e-2, 1e-2, 1])).spacing_mm == pytest.approx((0.01,) * 3)


@pytest.mark.parametrize("shift_mm", [0.0009, 0.0011])
def test_matches_to_a_micrometre(shift_mm):
    other = LAS.copy()
    other[1, 3] += shift_mm
    assert Grid((4, 5, 6), LAS).matches(Grid((4, 5, 6), other)) == (shift_mm < 1e-3)
    assert not Grid((4, 5, 6), LAS).matches(Grid((4, 5, 7), LAS))


def test_a_rotation_that_only_the_far_corner_shows_is_no_match():
    turned = grid((300, 5, 6), (1, 1, 1), degrees=(0, 0, 0.001))
    assert not turned.matches(grid((300, 5, 6), (1, 1, 1)))


@pytest.mark.parametrize("shape", [(6, 7, 8), (1, 2, 3)])
def test_grid_about_puts_the_fourier_origin_where_it_is_told(shape):
    g = grid_about(np.array([3.0, -4, 5]), directions(OBLIQUE), (1.5, 2, 2.5), shape)
    np.testing.assert_allclose(g.origin_mm, (3, -4, 5))
    np.testing.assert_allclose(to_world(g, np.array([n // 2 for n in shape])), (3, -4, 5))
    assert g.spacing_mm == pytest.approx((1.5, 2, 2.5))


def test_with_spacing_keeps_origin_axes_and_field_of_view():
    g = with_spacing(OBLIQUE, (0.7, 1.7, 1.0))
    np.testing.assert_allclose(g.origin_mm, OBLIQUE.origin_mm, atol=1e-12)
    np.testing.assert_allclose(directions(g), directions(OBLIQUE), atol=1e-12)
    assert all(abs(a - b) <= s / 2 for a, b, s in zip(g.fov_mm, OBLIQUE.fov_mm, g.spacing_mm, strict=True))


@pytest.mark.parametrize("spacing_mm", [(0, 1, 1), (1, -1, 1), (1, 1, 400)])
def test_with_spacing_refuses(spacing_mm):
    with pytest.raises(BadInputError, match=r"positive|do not fit"):
        with_spacing(OBLIQUE, spacing_mm)


def test_cropped_keeps_world_positions():
    block = cropped(OBLIQUE, (2, -1, 3), (4, 10, 2))
    assert block.shape == (4, 10, 2)
    np.testing.assert_allclose(to_world(block, np.array([1, 1, 1])), to_world(OBLIQUE, np.array([3, 0, 4])), atol=1e-12)


def test_shear_is_what_a_corner_moves_against_right_angles():
    assert OBLIQUE.shear_mm < 1e-9
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 2] = 0.2
    # The third axis leans by atan(0.1); half of it falls to each of the two axes.
    lean = np.arctan(0.1)
    assert Grid((1, 1, 21), affine).shear_mm == pytest.approx(2 * np.hypot(0.2, 2.0) * 10 * np.sin(lean / 4), rel=0.01)


def test_distance_is_that_of_the_farthest_voxel():
    turned = grid((5, 5, 5), (1, 1, 1), degrees=(0, 0, 1))
    assert turned.distance_mm(grid((5, 5, 5), (1, 1, 1))) > 0.01
    assert grid((5, 5, 5), (1, 1, 1), (3, 4, 0)).distance_mm(grid((5, 5, 5), (1, 1, 1))) == pytest.approx(5)
    assert turned.distance_mm(grid((5, 5, 6), (1, 1, 1))) == np.inf
