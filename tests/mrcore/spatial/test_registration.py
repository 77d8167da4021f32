import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.phantom import digital_head, head_grid
from mrcore.spatial.registration import RegisterSettings, block_mean, register, rotation, similarity_at
from mrcore.spatial.resampling import ResampleOp

HEAD = digital_head(head_grid(48))
CORNERS_MM = np.array([[0, 0, 0, 1], [55, 0, 0, 1], [0, -70, 10, 1], [10, 20, 60, 1], [-50, 30, -40, 1]], float)
QUICK = RegisterSettings(n_points=12_000)


def moved(motion: np.ndarray, contrast: tuple[float, float, float] | None = None) -> Volume:
    """The head moved in the world by `motion`, its voxels unchanged."""
    data = HEAD.image.data
    if contrast is not None:
        data = sum(level * HEAD.tissues.prob[k] for k, level in enumerate(contrast))
    return Volume(data, Grid(HEAD.grid.shape, motion @ HEAD.grid.affine))


def true_motion(scale: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    out = rotation((0.12, -0.08, 0.15)) @ np.diag([*scale, 1.0])
    out[:3, 3] = [7.0, -11.0, 14.0]
    return out


def error_mm(found: np.ndarray, motion: np.ndarray) -> float:
    return float(np.linalg.norm((found @ motion @ CORNERS_MM.T - CORNERS_MM.T)[:3], axis=0).max())


@pytest.mark.parametrize(("dof", "scale"), [(6, (1.0, 1.0, 1.0)), (9, (1.06, 0.95, 1.08)), (12, (1.06, 0.95, 1.08))])
def test_a_known_motion_is_recovered(dof, scale):
    motion = true_motion(scale)
    settings = RegisterSettings(dof=dof, n_points=12_000)
    found = register(moved(motion), HEAD.image, settings)
    assert error_mm(found.motion, motion) < 1.5
    assert found.similarity > 0.8
    assert found.converged
    assert found.n_iter == len(found.history) > 0


def test_another_contrast_is_recovered():
    motion = true_motion()
    found = register(moved(motion, contrast=(2.0, 1.0, 0.6)), HEAD.image, RegisterSettings(dof=6, n_points=12_000))
    assert error_mm(found.motion, motion) < 2.0


def test_motion_is_what_the_resampling_operator_expects():
    motion = true_motion()
    volume = moved(motion)
    found = register(volume, HEAD.image, RegisterSettings(dof=6, n_points=12_000))
    laid = ResampleOp(volume.grid, HEAD.grid, found.motion)(volume.data)
    inside = HEAD.mask
    before = ResampleOp(volume.grid, HEAD.grid)(volume.data)
    error, untouched = ((x - HEAD.image.data)[inside].abs().mean() for x in (laid, before))
    assert float(error) < 0.4 * float(untouched)


def test_rigid_keeps_lengths():
    found = register(
        moved(true_motion((1.1, 0.9, 1.0))), HEAD.image, RegisterSettings(dof=6, n_points=8000, n_steps=20)
    )
    linear = found.motion[:3, :3]
    assert np.allclose(linear @ linear.T, np.eye(3), atol=1e-5)


def test_the_likeliest_start_is_taken():
    motion = true_motion()
    far = np.eye(4)
    far[:3, 3] = 400.0
    found = register(moved(motion), HEAD.image, QUICK, starts=[far, np.linalg.inv(motion)])
    assert error_mm(found.motion, motion) < 1.5


def test_two_runs_agree_and_settings_matter():
    volume = moved(true_motion())
    short = RegisterSettings(dof=6, n_points=4000, n_steps=8)
    first, second = register(volume, HEAD.image, short), register(volume, HEAD.image, short)
    assert np.array_equal(first.motion, second.motion)
    for other in (
        RegisterSettings(dof=6, n_points=4000, n_steps=9),
        RegisterSettings(dof=6, n_points=2000, n_steps=8),
        RegisterSettings(dof=6, n_points=4000, n_steps=8, n_bins=16),
        RegisterSettings(dof=6, n_points=4000, n_steps=8, levels_mm=(8.0,)),
        RegisterSettings(dof=12, n_points=4000, n_steps=8),
    ):
        assert not np.array_equal(register(volume, HEAD.image, other).motion, first.motion)
    tight = RegisterSettings(dof=12, n_points=4000, n_steps=8, scale_sd=0.001)
    loose = RegisterSettings(dof=12, n_points=4000, n_steps=8)
    assert not np.array_equal(register(volume, HEAD.image, tight).motion, register(volume, HEAD.image, loose).motion)


def test_only_the_mask_is_compared():
    volume = moved(true_motion())
    short = RegisterSettings(dof=6, n_points=4000, n_steps=8)
    masked = register(volume, HEAD.image, short, fixed_mask=HEAD.mask)
    assert not np.array_equal(masked.motion, register(volume, HEAD.image, short).motion)
    with pytest.raises(BadInputError, match="mask of the fixed image is empty"):
        register(volume, HEAD.image, short, fixed_mask=HEAD.mask & False)


def test_similarity_of_the_truth_beats_that_of_a_shift_and_of_noise():
    away = np.eye(4)
    away[0, 3] = 12.0
    noise = Volume(torch.rand(HEAD.grid.shape, generator=torch.Generator().manual_seed(1)), HEAD.grid)
    at_truth = similarity_at(np.eye(4), HEAD.image, HEAD.image, QUICK)
    assert at_truth > similarity_at(away, HEAD.image, HEAD.image, QUICK) + 0.1
    assert similarity_at(np.eye(4), noise, HEAD.image, QUICK) < 0.4
    assert 0 <= at_truth <= 1


def test_block_mean_keeps_the_world_and_the_level():
    grid = Grid((9, 8, 6), np.diag([-1.0, 1.0, 3.0, 1.0]))
    ramp = torch.arange(9.0)[:, None, None].expand(9, 8, 6).contiguous()
    coarse = block_mean(Volume(ramp, grid), 3.0)
    assert coarse.grid.shape == (3, 2, 6)
    assert coarse.grid.spacing_mm == pytest.approx((3.0, 3.0, 3.0))
    assert coarse.grid.affine[:3, 3] == pytest.approx((-1.0, 1.0, 0.0))
    assert coarse.data[:, 0, 0].tolist() == pytest.approx([1.0, 4.0, 7.0])


def test_rotation_about_z_takes_x_to_y():
    assert rotation((0, 0, np.pi / 2)) @ np.array([1.0, 0, 0, 1]) == pytest.approx([0, 1, 0, 1], abs=1e-12)


def test_images_that_cannot_be_registered_are_refused():
    flat = Volume(torch.ones(HEAD.grid.shape), HEAD.grid)
    with pytest.raises(BadInputError, match="moving image is not"):
        register(flat, HEAD.image)
    with pytest.raises(BadInputError, match="fixed image is not"):
        register(HEAD.image, flat)
    with pytest.raises(BadInputError, match="dof"):
        RegisterSettings(dof=7)
    with pytest.raises(BadInputError, match="n_steps"):
        RegisterSettings(n_steps=0)
