"""Pictures: a marker at a known side of the world must be seen on the stated side, whatever the voxel order."""

import io

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError
from mrkit.report.pictures import (
    BACKGROUND,
    DIVERGING,
    Window,
    body_frame,
    css_colour,
    intensity_picture,
    mosaic_picture,
    sample,
    sections,
    signed_picture,
    tissue_colour,
    tissue_picture,
    window_of,
)

CODES = ["RAS", "LIA", "LPS", "PIR", "SAL", "ASR"]
HALF_MM = np.array([40.0, 50.0, 60.0])


def grid_of(code, spacing_mm=(2.0, 2.0, 2.0), tilt_deg=0.0):
    """A grid about the world origin, its voxel axes along `code`, covering +- HALF_MM."""
    ornt = nib.orientations.axcodes2ornt(code)
    turn = np.deg2rad(tilt_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine, shape = np.eye(4), []
    for axis, (world_axis, flip) in enumerate(ornt):
        direction = np.zeros(3)
        direction[int(world_axis)] = flip
        affine[:3, axis] = rotation @ direction * spacing_mm[axis]
        shape.append(round(2 * HALF_MM[int(world_axis)] / spacing_mm[axis]))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(tuple(shape), affine)


def world_of(grid):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def marked(grid, centre_mm, radius_mm=6.0):
    """1 in a ball about a world position, else 0; and a mask of everything."""
    near = np.linalg.norm(world_of(grid) - np.array(centre_mm), axis=-1) <= radius_mm
    return Volume(torch.from_numpy(near.astype(np.float32)), grid), torch.ones(grid.shape, dtype=torch.bool)


def centroid(values):
    """Row and column of the centre of mass, from 0 (top, left) to 1 (bottom, right)."""
    values = np.nan_to_num(values)
    row, column = np.indices(values.shape)
    total = values.sum()
    return (row * values).sum() / total / values.shape[0], (column * values).sum() / total / values.shape[1]


def letters(section):
    return {"left": section.ends[0], "right": section.ends[1]}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("radiological", [True, False])
def test_a_marker_at_world_left_is_on_the_side_that_says_l(code, radiological):
    grid = grid_of(code)
    volume, mask = marked(grid, (-25, 0, 0), 12)
    for section in sections(grid, mask, radiological=radiological)[:2]:
        _, column = centroid(sample(volume.data, grid, section))
        side = "left" if column < 0.4 else "right"
        assert column < 0.4 or column > 0.6
        assert letters(section)[side] == "L"
        assert (side == "right") == radiological


@pytest.mark.parametrize("code", CODES)
def test_anterior_is_up_in_axial_and_left_in_sagittal_and_superior_is_up(code):
    grid = grid_of(code)
    front, mask = marked(grid, (0, 30, 0), 14)
    top, _ = marked(grid, (0, 0, 40), 14)
    axial, coronal, sagittal = sections(grid, mask)
    assert centroid(sample(front.data, grid, axial))[0] < 0.4
    assert centroid(sample(front.data, grid, sagittal))[1] < 0.4
    assert letters(sagittal) == {"left": "A", "right": "P"}
    assert centroid(sample(top.data, grid, coronal))[0] < 0.4
    assert centroid(sample(top.data, grid, sagittal))[0] < 0.4
    assert [s.name for s in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]


@pytest.mark.parametrize("code", CODES)
def test_pictures_do_not_depend_on_the_order_of_voxels(code):
    volume, mask = marked(grid_of("RAS"), (-12, 20, 8), 16)
    other, other_mask = marked(grid_of(code), (-12, 20, 8), 16)
    window = Window(0, 1)
    for a, b in zip(sections(volume.grid, mask), sections(other.grid, other_mask), strict=True):
        assert intensity_picture(volume, a, window) == intensity_picture(other, b, window)


@pytest.mark.parametrize("spacing_mm", [(1.6, 1.6, 5.0), (5.0, 2.0, 1.0)])
def test_a_ball_stays_round_and_in_place_in_anisotropic_voxels(spacing_mm):
    fine, mask = marked(grid_of("RAS", (1.0, 1.0, 1.0)), (10, 5, -4), 25)
    thick, _ = marked(grid_of("LIA", spacing_mm), (10, 5, -4), 25)
    for section in sections(fine.grid, mask):
        a, b = (np.nan_to_num(sample(v.data, v.grid, section)) for v in (fine, thick))
        assert np.abs(np.array(centroid(a)) - centroid(b)).max() < 0.01
        height, width = (np.ptp(np.flatnonzero(a.any(axis))) + 1 for axis in (1, 0))
        assert abs(height - width) <= 3
        assert b.sum() == pytest.approx(a.sum(), rel=0.1)


def test_pixels_are_half_a_millimetre_and_voxels_are_seen():
    grid = grid_of("RAS", (1.6, 1.6, 5.0))
    data = torch.arange(np.prod(grid.shape)).reshape(grid.shape).float()
    _, coronal, _ = sections(grid, torch.ones(grid.shape, dtype=torch.bool))
    values = sample(data, grid, coronal)
    middle = values[:, values.shape[1] // 2]
    edges = np.flatnonzero(np.diff(middle[np.isfinite(middle)]))
    assert set(np.diff(edges)) == {10}  # 5 mm slices at 0.5 mm a pixel, without interpolation


def test_a_tilted_grid_is_shown_along_its_own_axes_by_their_body_names():
    grid = grid_of("LIA", tilt_deg=20.0)
    volume, mask = marked(grid, (-25, 0, 0), 12)
    frame = body_frame(grid)
    np.testing.assert_allclose(frame.T @ frame, np.eye(3), atol=1e-12)
    assert (np.diag(frame) > 0.9).all()
    axial, coronal, _ = sections(grid, mask)
    assert axial.ends == ("R", "L")
    assert centroid(sample(volume.data, grid, axial))[1] > 0.6
    assert centroid(sample(volume.data, grid, coronal))[1] > 0.6


def test_outside_of_the_grid_is_unknown_and_dark():
    small = grid_of("RAS")
    volume = Volume(torch.ones(10, 10, 10), Grid((10, 10, 10), small.affine))
    section = sections(small, torch.ones(small.shape, dtype=torch.bool))[0]
    assert np.isnan(sample(volume.data, volume.grid, section)).all()
    picture = np.array(Image.open(io.BytesIO(intensity_picture(volume, section, Window(0, 1)))))
    assert tuple(picture[picture.shape[0] // 2, picture.shape[1] // 2]) == BACKGROUND


def middle_pixel(png):
    picture = np.array(Image.open(io.BytesIO(png)).convert("RGB"))
    return tuple(int(c) for c in picture[picture.shape[0] // 2, picture.shape[1] // 2])


def flat(value):
    grid = grid_of("RAS", (4.0, 4.0, 4.0))
    volume = Volume(torch.full(grid.shape, float(value)), grid)
    return volume, sections(grid, torch.ones(grid.shape, dtype=torch.bool))[0]


@pytest.mark.parametrize(("value", "expected"), [(2.0, BACKGROUND), (6.0, (255, 255, 255)), (9.0, (255, 255, 255))])
def test_the_window_sets_black_and_white(value, expected):
    volume, section = flat(value)
    assert middle_pixel(intensity_picture(volume, section, Window(2, 6))) == expected


@pytest.mark.parametrize(("value", "stop"), [(-9, 0), (-4, 0), (-2, 1), (0, 2), (2, 3), (4, 4), (9, 4)])
def test_signed_maps_are_blue_below_and_red_above(value, stop):
    volume, section = flat(value)
    assert middle_pixel(signed_picture(volume, section, 4.0)) == DIVERGING[stop]


def test_tissues_have_fixed_colours_and_mix():
    grid = grid_of("RAS", (4.0, 4.0, 4.0))
    section = sections(grid, torch.ones(grid.shape, dtype=torch.bool))[0]
    for weights in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0.5, 0.5]):
        prob = torch.tensor(weights).float()[:, None, None, None].expand(3, *grid.shape).contiguous()
        shown = middle_pixel(tissue_picture(TissueMap(prob, TISSUES, grid), section))
        expected = np.array(weights) @ np.array([tissue_colour(t) for t in range(3)])
        np.testing.assert_allclose(shown, expected, atol=0.51)


def test_window_of_ignores_what_is_outside_of_the_mask():
    grid = grid_of("RAS", (4.0, 4.0, 4.0))
    data = torch.rand(grid.shape, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[5:15, 5:15, 5:15] = True
    data[~mask] = 50.0
    window = window_of(Volume(data, grid), mask, (0, 100))
    assert 0 <= window.low < 0.05
    assert 0.95 < window.high <= 1


def test_the_same_picture_twice_is_the_same_bytes():
    volume, section = flat(3)
    assert intensity_picture(volume, section, Window(2, 6)) == intensity_picture(volume, section, Window(2, 6))


def test_letters_are_drawn_in_the_upper_corners():
    volume, section = flat(0)
    picture = np.array(Image.open(io.BytesIO(intensity_picture(volume, section, Window(0, 1))))).astype(int)
    bright = picture.sum(-1) > 300
    rows, columns = np.nonzero(bright)
    assert rows.max() < 0.15 * section.height
    assert (columns < 0.15 * section.width).any()
    assert (columns > 0.85 * section.width).any()


def test_the_caption_says_where_the_plane_is():
    grid = grid_of("LIA", (2.0, 2.0, 2.0))
    low = Grid(grid.shape, grid.affine + np.array([[0, 0, 0, 31], [0, 0, 0, -50], [0, 0, 0, -70.0], [0, 0, 0, 0]]))
    axial, coronal, sagittal = sections(low, torch.ones(grid.shape, dtype=torch.bool))
    assert axial.caption == "axial, I 69 mm, R is left in the picture"
    assert coronal.caption == "coronal, P 49 mm, R is left in the picture"
    assert sagittal.caption == "sagittal, R 42 mm, A is left in the picture"


def test_tissues_over_an_image_are_shaded_by_it_and_dim_the_rest():
    volume, section = flat(1)
    prob = torch.zeros(3, *volume.grid.shape)
    prob[1, :10] = 1
    tissues = TissueMap(prob, TISSUES, volume.grid)
    shown = np.array(Image.open(io.BytesIO(tissue_picture(tissues, section, volume, Window(0, 1)))))
    row = shown[shown.shape[0] // 2]
    # World left, the first half of the R axis, is on the right of the picture.
    assert tuple(row[-40]) == tissue_colour(1)
    assert tuple(row[40]) == (102, 102, 102)


def test_a_mosaic_holds_its_pictures_in_order():
    volume, section = flat(1)
    black, white = (intensity_picture(volume, section, Window(*w)) for w in ((1, 2), (0, 1)))
    whole = np.array(Image.open(io.BytesIO(mosaic_picture([[black, white], [white, black]], gap=4))))
    assert whole.shape[:2] == (2 * section.height + 12, 2 * section.width + 12)
    middles = [whole[y, x, 0] for y in (section.height // 2, -section.height // 2) for x in (100, -100)]
    assert middles == [BACKGROUND[0], 255, 255, BACKGROUND[0]]


def test_colours_for_css_and_what_cannot_be_shown():
    assert css_colour((255, 0, 16)) == "#ff0010"
    volume, section = flat(1)
    with pytest.raises(BadInputError, match="high above low"):
        Window(3, 3)
    with pytest.raises(BadInputError, match="must be positive"):
        signed_picture(volume, section, 0)
    with pytest.raises(BadInputError, match="non-empty mask"):
        sections(volume.grid, torch.zeros(volume.grid.shape, dtype=torch.bool))


@pytest.mark.parametrize("name", ["t1/visualqc_id001_brainmask.mgz", "t1/colin27_ch2_brain.nii.gz"])
def test_real_scans_have_their_eyes_in_front_and_cerebellum_below(shared_data, name):
    image = nib.load(shared_data / name)
    data = torch.from_numpy(np.asarray(image.dataobj, np.float32))
    grid = Grid(image.shape, image.affine)
    mask = data > 0
    _, _, sagittal = sections(grid, mask)
    shown = np.nan_to_num(sample(mask.float(), grid, sagittal))
    rows = np.flatnonzero(shown.any(1))
    lowest = shown[rows[-1] - 20 : rows[-1] + 1]
    # The lowest part of a brain, cerebellum and stem, lies behind the middle: right in this view.
    assert centroid(lowest)[1] > 0.5


def test_left_white_matter_of_a_real_scan_is_on_the_left_side(shared_data):
    image = nib.load(shared_data / "labels" / "visualqc_id001_aparc+aseg.mgz")
    labels = np.asarray(image.dataobj)
    grid = Grid(image.shape, image.affine)
    assert grid.orientation == "LIA"
    left = torch.from_numpy((labels == 2).astype(np.float32))  # FreeSurfer: Left-Cerebral-White-Matter
    right = torch.from_numpy((labels == 41).astype(np.float32))
    for section in sections(grid, torch.from_numpy(labels > 0))[:2]:
        assert section.ends == ("R", "L")
        assert centroid(sample(left, grid, section))[1] > centroid(sample(right, grid, section))[1] + 0.2
