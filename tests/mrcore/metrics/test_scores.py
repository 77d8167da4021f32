"""Metrics against values worked out by hand; each case fails when a unit, a spacing or a mask is forgotten."""

import math

import numpy as np
import pytest
import torch
from operators import grid

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.metrics.edges import EdgePair, EdgeSettings, edge_f1, f1_of, reference_edges
from mrcore.metrics.overlap import (
    dice,
    dice_by_tissue,
    hd95,
    volume_error_ml,
    volume_error_relative,
    volume_ml,
    wm_gm_contrast,
)
from mrcore.metrics.scores import score_against, score_image, score_target, score_tissues, scores_to_json
from mrcore.metrics.similarity import gradient_error, inside, intensity_fit, mslc, nrmse, psnr, ssim


def random_image(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ball(n=24, radius=9.0):
    at = torch.arange(n, dtype=torch.float64) - n // 2
    return (at[:, None, None] ** 2 + at[:, None] ** 2 + at**2) <= radius**2


FULL = torch.ones(2, 2, 2, dtype=torch.bool)
REFERENCE = torch.tensor([[[0.0, 1], [2, 3]], [[4, 5], [6, 10]]], dtype=torch.float64)


def test_psnr_uses_the_range_of_the_reference_in_the_mask():
    image = REFERENCE + 0.5
    assert psnr(REFERENCE, image, FULL) == pytest.approx(20 * math.log10(10 / 0.5))
    mask = REFERENCE < 7  # without the 10: the range is 6
    assert psnr(REFERENCE, image, mask) == pytest.approx(20 * math.log10(6 / 0.5))
    assert psnr(REFERENCE, image, FULL, mask) == pytest.approx(20 * math.log10(10 / 0.5))
    assert psnr(REFERENCE, REFERENCE, FULL) == math.inf


def test_psnr_and_nrmse_ignore_what_is_outside_of_mask_and_region():
    image = REFERENCE.clone()
    image[1, 1, 1] = 999
    mask = REFERENCE < 7
    assert psnr(REFERENCE, image, mask) == math.inf
    assert nrmse(REFERENCE, image, FULL, mask) == 0
    assert nrmse(REFERENCE, image, FULL) > 1


def test_nrmse_is_relative_to_the_rms_of_the_reference():
    assert nrmse(REFERENCE, 1.2 * REFERENCE, FULL) == pytest.approx(0.2)
    one_off = REFERENCE.clone()
    one_off[0, 0, 0] += 2
    assert nrmse(REFERENCE, one_off, FULL) == pytest.approx(2 / math.sqrt(191))


def test_intensity_fit_recovers_scale_and_offset():
    scale, offset = intensity_fit(REFERENCE, (REFERENCE - 3) / 2, FULL)
    assert (scale, offset) == (pytest.approx(2), pytest.approx(3))


def test_ssim_of_a_shifted_constant_follows_its_luminance_term():
    # Two flat images inside, so far from the mask's edge only the luminance term is left: C1 = (.01 * range)^2.
    mask = ball(40, 19)
    reference = torch.where(mask, 1.0, 0.0).double()
    reference[20, 20, 20] = 2.0  # sets the range in the mask to 1
    image = reference + 0.5
    region = torch.zeros_like(mask)
    region[20, 20, 30] = True
    c1 = 0.01**2
    expected = (2 * 1.0 * 1.5 + c1) / (1.0**2 + 1.5**2 + c1)
    assert ssim(reference, image, mask, region) == pytest.approx(expected, abs=2e-3)


def test_ssim_is_one_for_equal_images_and_falls_with_noise():
    reference, mask = random_image(24, 24, 24), ball()
    assert ssim(reference, reference, mask) == pytest.approx(1)
    small, large = (ssim(reference, reference + s * random_image(24, 24, 24, seed=1), mask) for s in (0.1, 0.5))
    assert 0 < large < small < 1


def test_ssim_does_not_see_outside_of_the_mask():
    reference, mask = random_image(24, 24, 24), ball()
    image = reference + 0.2 * random_image(24, 24, 24, seed=1)
    outside = torch.where(mask, image, 77.0)
    assert ssim(reference, outside, mask) == ssim(reference, image, mask) < 1
    # A mask that touches the array's border is scored as if background followed.
    corner = torch.ones(8, 8, 8, dtype=torch.bool)
    padded = [torch.nn.functional.pad(x, (9,) * 6) for x in (reference[:8, :8, :8], image[:8, :8, :8])]
    wide = torch.nn.functional.pad(corner, (9,) * 6)
    assert ssim(reference[:8, :8, :8], image[:8, :8, :8], corner) == pytest.approx(ssim(*padded, wide), rel=1e-9)


def test_gradient_error_counts_every_axis_per_mm():
    x, _, z = torch.meshgrid(*[torch.arange(8, dtype=torch.float64)] * 3, indexing="ij")
    mask = torch.ones(8, 8, 8, dtype=torch.bool)
    reference, image = 2 * x + 3 * z, 2 * x
    # Per voxel (2, 0, 3) against (2, 0, 0); with 5 mm along z the missing part is 0.6 per mm against (2, 0.6).
    assert gradient_error(reference, image, mask, (1.0, 1.0, 1.0)) == pytest.approx(3 / math.hypot(2, 3))
    assert gradient_error(reference, image, mask, (1.0, 1.0, 5.0)) == pytest.approx(0.6 / math.hypot(2, 0.6))
    assert gradient_error(reference, reference + 4, mask, (1.0, 1.0, 1.0)) == 0
    assert gradient_error(reference, 0 * x, mask, (1.0, 2.0, 3.0)) == pytest.approx(1)


def test_gradient_error_leaves_out_the_step_at_the_mask():
    reference, mask = random_image(24, 24, 24), ball()
    image = torch.where(mask, reference, 50.0)
    assert gradient_error(reference, image, mask, (1.0, 1.0, 1.0)) == 0
    with pytest.raises(BadInputError, match="too thin"):
        gradient_error(reference, image, mask & (torch.arange(24) == 12), (1.0, 1.0, 1.0))


def step_at(position, shape=(20, 20, 20), axis=0):
    """0, then 1/2 at `position`, then 1: one voxel has the steepest gradient, not two."""
    at = torch.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(3)])
    return (0.5 + 0.5 * (at - position).sign()).double().expand(shape).contiguous()


@pytest.mark.parametrize(("shift", "at_0", "at_1", "at_2"), [(0, 1, 1, 1), (1, 0, 1, 1), (2, 0, 0, 1)])
def test_edge_f1_of_a_shifted_plane_knows_its_tolerance(shift, at_0, at_1, at_2):
    mask = torch.ones(20, 20, 20, dtype=torch.bool)
    # Nearly all of the gradient is zero: the quantiles must lie on the edge itself.
    settings = EdgeSettings(low_quantile=0.85, high_quantile=0.9, axes=(1, 2))
    found = [edge_f1(step_at(10), step_at(10 + shift), mask, t, settings) for t in (0, 1, 2)]
    assert found == [at_0, at_1, at_2]


def test_edge_f1_is_the_harmonic_mean_of_precision_and_recall():
    mask = torch.ones(24, 24, 24, dtype=torch.bool)
    settings = EdgeSettings(low_quantile=0.85, high_quantile=0.9, axes=(2,))
    two = step_at(6, (24,) * 3) + step_at(16, (24,) * 3)
    # One of the two planes: precision 1, recall 1/2.
    assert edge_f1(two, step_at(6, (24,) * 3), mask, 0, settings) == pytest.approx(2 / 3)


def test_edge_thresholds_come_from_the_reference_alone():
    mask = torch.ones(20, 20, 20, dtype=torch.bool)
    settings = EdgeSettings(low_quantile=0.85, high_quantile=0.9, axes=(2,))
    # With thresholds of its own (or a min-max of each image) the faint step would be found.
    assert edge_f1(step_at(10), 0.05 * step_at(10), mask, 1, settings) == 0
    assert edge_f1(step_at(10), 3 * step_at(10), mask, 0, settings) == 1


def test_edges_across_slices_need_slices_along_them():
    mask = torch.ones(20, 20, 20, dtype=torch.bool)
    missed = step_at(10, axis=2)
    # A step along z is in no slice across z, so its loss is only seen in the slices along it.
    quantiles = {"low_quantile": 0.85, "high_quantile": 0.9}
    reference = step_at(10, axis=0) + missed
    image = step_at(10, axis=0)
    assert edge_f1(reference, image, mask, 0, EdgeSettings(**quantiles, axes=(2,))) == 1
    assert edge_f1(reference, image, mask, 0, EdgeSettings(**quantiles, axes=(0, 1, 2))) < 0.9


def test_the_tolerance_is_euclidean_and_in_the_plane_of_the_slice():
    def one_voxel(*at):
        edges = np.zeros((1, 9, 9, 9), bool)
        edges[(0, *at)] = True
        return edges

    def score(shift, tolerance):
        return f1_of(EdgePair(one_voxel(4, 4, 4), one_voxel(*shift), EdgeSettings(axes=(2,))), tolerance)

    assert [score((5, 5, 4), t) for t in (1, 1.5)] == [0, 1]
    assert [score((5, 4, 4), t) for t in (0, 1)] == [0, 1]
    assert score((4, 4, 5), 2) == 0  # the next slice


def test_edges_are_where_the_gradient_exceeds_the_quantile():
    mask = torch.ones(24, 24, 24, dtype=torch.bool)
    # A third of the gradient is below the 93rd percentile, which lies beside the steep step.
    image = step_at(6, (24,) * 3) + 0.3 * step_at(16, (24,) * 3)
    steep = EdgeSettings(low_quantile=0.93, high_quantile=0.93, axes=(2,))
    both = EdgeSettings(low_quantile=0.75, high_quantile=0.75, axes=(2,))
    assert set(np.nonzero(reference_edges(image, mask, steep).edges)[1]) == {6}
    assert set(np.nonzero(reference_edges(image, mask, both).edges)[1]) == {6, 16}


def test_the_border_of_the_mask_is_no_edge():
    mask = ball()
    inner = random_image(24, 24, 24)
    with_rim, without = torch.where(mask, inner, 9.0), torch.where(mask, inner, 0.0)
    assert edge_f1(with_rim, without, mask, 0) == 1


def test_mslc_of_repeated_opposite_and_independent_halves():
    image = random_image(16, 16, 16)
    image[8:] = image[:8]
    image[:, 8:] = image[:, :8]
    image[:, :, 8:] = image[:, :, :8]
    assert mslc(image) == pytest.approx(1)
    flipped = image.clone()
    flipped[8:] *= -1
    # Of three shift axes one is anti-correlated.
    assert mslc(flipped) == pytest.approx(1 / 3)
    assert abs(mslc(random_image(32, 32, 32))) < 0.02


def test_mslc_excludes_constant_lines():
    image = random_image(16, 16, 16)
    image[8:] = image[:8]
    image[:, 8:] = image[:, :8]
    image[:, :, 8:] = image[:, :, :8]
    padded = torch.zeros(16, 16, 32, dtype=torch.float64)
    padded[..., 16:] = image
    padded[..., :16] = image
    padded[:4] = 0
    padded[8:12] = 0  # background lines, which have no correlation
    assert mslc(padded) == pytest.approx(1)
    assert math.isnan(mslc(torch.ones(8, 8, 8)))


def test_mslc_of_an_odd_size_shifts_by_half_rounded_down():
    image = torch.zeros(5, 4, 1, dtype=torch.float64)
    image[0, :, 0] = image[2, :, 0] = torch.tensor([0.0, 1, 2, 4])
    image[1, :, 0] = image[3, :, 0] = torch.tensor([3.0, -1, 2, 4])
    along_y = 1.0
    columns = image[:, :, 0]
    pairs = [np.corrcoef(columns[:, i], columns[:, i + 2])[0, 1] for i in (0, 1)]
    assert mslc(image) == pytest.approx((along_y + np.mean(pairs)) / 2)


def test_dice_by_hand_and_of_nothing():
    a, b = (torch.zeros(4, 4, 4, dtype=torch.bool) for _ in range(2))
    a[:2, 0, 0] = True
    b[1:4, 0, 0] = True
    assert dice(a, b) == pytest.approx(2 * 1 / 5)
    assert math.isnan(dice(~a & a, ~b & b))


def block(start, stop, n=20):
    out = torch.zeros(n, n, n, dtype=torch.bool)
    out[4:10, 4:10, start:stop] = True
    return out


def test_hd95_is_in_mm_along_the_axis_of_the_shift():
    assert hd95(block(4, 10), block(6, 12), (1.0, 1.0, 1.0)) == pytest.approx(2)
    assert hd95(block(4, 10), block(6, 12), (1.0, 1.0, 5.0)) == pytest.approx(10)
    assert hd95(block(4, 10), block(6, 12), (5.0, 5.0, 1.0)) == pytest.approx(2)
    assert hd95(block(4, 10), block(4, 10), (1.0, 1.0, 1.0)) == 0
    assert math.isnan(hd95(block(4, 10), block(0, 0), (1.0, 1.0, 1.0)))


def test_hd95_takes_the_worse_direction_and_forgives_a_speck():
    far = block(4, 10)
    far[19, 19, 19] = True
    assert hd95(block(4, 10), far, (1.0, 1.0, 1.0)) == 0
    half = block(4, 10)
    half[14:19, 4:19, 4:10] = True
    assert hd95(half, block(4, 10), (1.0, 1.0, 1.0)) == hd95(block(4, 10), half, (1.0, 1.0, 1.0)) > 5


def three_tissues(spacing=(1.0, 1.0, 1.0), cut=8):
    """CSF below 4, GM up to `cut`, WM above, along the last axis; all in a ball."""
    at = torch.arange(24).expand(24, 24, 24)
    parts = torch.stack([at < 4, (at >= 4) & (at < cut), at >= cut])
    return TissueMap((parts & ball()).float(), TISSUES, Grid((24, 24, 24), np.diag([*spacing, 1.0])))


def test_tissue_volume_is_in_ml_and_knows_the_voxel():
    tissues = three_tissues((2.0, 3.0, 5.0))
    n = int(tissues.of("WM").sum())
    assert volume_ml(tissues, "WM") == pytest.approx(n * 30 / 1000)
    more = three_tissues((2.0, 3.0, 5.0), cut=7)
    moved = int((ball() & (torch.arange(24) == 7)).sum())
    assert volume_error_ml(tissues, more, "WM") == pytest.approx(moved * 0.03)
    assert volume_error_relative(tissues, more, "WM") == pytest.approx(moved / n)


def test_dice_counts_what_lies_outside_the_references_mask():
    """WM of 4 voxels in the reference and 6 in the image, of which 2 lie where the reference has no brain: 8 / 10."""
    where = grid((10, 1, 1), (1.0, 1.0, 1.0))
    reference, image = torch.zeros(3, 10, 1, 1), torch.zeros(3, 10, 1, 1)
    reference[2, :4], image[2, :6] = 1, 1
    a, b = TissueMap(reference, TISSUES, where), TissueMap(image, TISSUES, where)
    assert dice_by_tissue(a, b)["WM"] == pytest.approx(0.8)
    assert dice_by_tissue(b, a)["WM"] == pytest.approx(0.8)


def test_dice_by_tissue_and_score_tissues_agree_with_their_parts():
    a, b = three_tissues(), three_tissues(cut=10)
    scores = score_tissues(a, b)
    white = [x.of("WM") > 0.5 for x in (a, b)]
    assert dice_by_tissue(a, b)["WM"] == scores["WM"]["dice"] == pytest.approx(dice(*white))
    assert scores["WM"]["hd95_mm"] == 2
    assert scores["CSF"]["dice"] == 1
    assert scores["GM"]["volume_error_ml"] == pytest.approx(-scores["WM"]["volume_error_ml"])
    assert scores["GM"]["volume_error_ml"] > 0
    with pytest.raises(BadInputError, match="different tissues"):
        dice_by_tissue(a, TissueMap(b.prob, ("WM", "GM", "CSF"), b.grid))


def test_wm_gm_contrasts_have_their_own_formulas():
    tissues = three_tissues()
    image = 3.0 * tissues.of("WM") + 2.0 * tissues.of("GM") + 0.5 * tissues.of("CSF")
    found = wm_gm_contrast(image, tissues, noise_sd=0.25)
    assert (found.white, found.grey) == (3, 2)
    assert found.difference == pytest.approx(1)
    assert found.michelson == pytest.approx(1 / 5)
    assert found.weber == pytest.approx(1 / 2)
    assert found.cnr == pytest.approx(4)
    assert wm_gm_contrast(image, tissues).cnr is None


def test_wm_gm_contrast_looks_at_tissue_cores_only():
    tissues = three_tissues()
    mixed = TissueMap(0.85 * tissues.prob, TISSUES, tissues.grid)
    with pytest.raises(BadInputError, match="probability above"):
        wm_gm_contrast(torch.ones(24, 24, 24), mixed)


def test_inside_is_a_depth_in_mm():
    mask = torch.zeros(20, 20, 20, dtype=torch.bool)
    mask[2:18, 2:18, 2:18] = True
    assert int(inside(mask, (1.0, 1.0, 1.0), 4.0).sum()) == 8**3
    assert int(inside(mask, (1.0, 1.0, 2.0), 4.0).sum()) == 8 * 8 * 12
    # The border of the array is the border of the mask.
    assert int(inside(torch.ones(12, 12, 12, dtype=torch.bool), (1.0, 1.0, 1.0), 4.0).sum()) == 4**3


def scored_case(spacing=(1.0, 1.0, 1.0)):
    tissues = three_tissues(spacing)
    reference = (3.0 * tissues.of("WM") + 2.0 * tissues.of("GM") + tissues.of("CSF")) + 0.2 * random_image(
        24, 24, 24
    ).float()
    noisy = reference + 0.1 * random_image(24, 24, 24, seed=3).float()
    return Volume(reference, tissues.grid), Volume(noisy, tissues.grid), tissues


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 0.8, 2.0)])
def test_score_image_is_the_single_functions_on_the_uncropped_images(spacing):
    reference, image, tissues = scored_case(spacing)
    mask = ball()
    scores = score_image(reference, image, mask, tissues, inside_depth_mm=3.0)
    deep = inside(mask, spacing, 3.0)
    pair = (reference.data, image.data, mask)
    for region, found in ((mask, scores.whole), (deep, scores.inside)):
        assert found.n_voxels == int(region.sum())
        assert found.psnr_db == pytest.approx(psnr(*pair, region))
        assert found.nrmse == pytest.approx(nrmse(*pair, region))
        assert found.ssim == pytest.approx(ssim(*pair, region), rel=1e-5)
        assert found.gradient_error == pytest.approx(gradient_error(*pair, spacing, region))
    assert scores.whole.edge_f1_0 == pytest.approx(edge_f1(*pair, 0))
    assert scores.whole.edge_f1_1 == pytest.approx(edge_f1(*pair, 1))
    assert scores.whole.edge_f1_1 > scores.whole.edge_f1_0
    assert scores.contrast == wm_gm_contrast(image.data, tissues, None, mask)
    assert scores.reference_contrast == wm_gm_contrast(reference.data, tissues, None, mask)
    assert scores_to_json(scores)["whole"]["psnr_db"] == scores.whole.psnr_db


def test_a_fit_of_intensity_is_made_only_when_asked_and_is_recorded():
    reference, image, _ = scored_case()
    other_units = Volume(5 * image.data + 7, image.grid)
    plain = score_image(reference, other_units, ball())
    fitted = score_image(reference, other_units, ball(), fit_intensity=True)
    assert (plain.scale, plain.offset) == (1, 0)
    assert plain.whole.psnr_db < 0 < fitted.whole.psnr_db
    assert fitted.scale == pytest.approx(0.2, rel=0.1)
    assert fitted.whole.psnr_db >= score_image(reference, image, ball()).whole.psnr_db


def test_a_prepared_target_gives_the_same_scores():
    reference, image, tissues = scored_case()
    target = score_target(reference, ball(), tissues)
    assert score_against(target, image, noise_sd=0.1) == score_image(reference, image, ball(), tissues, noise_sd=0.1)


def test_what_cannot_be_scored_is_refused():
    reference, image, _ = scored_case()
    empty = torch.zeros(24, 24, 24, dtype=torch.bool)
    with pytest.raises(BadInputError, match="mask is empty"):
        score_image(reference, image, empty)
    with pytest.raises(BadInputError, match="boolean"):
        psnr(reference.data, image.data, empty.float())
    with pytest.raises(BadInputError, match="one shape"):
        psnr(reference.data, image.data[:5], ball())
    with pytest.raises(BadInputError, match="constant inside"):
        psnr(0 * reference.data, image.data, ball())
    with pytest.raises(BadInputError, match="lower the depth"):
        score_image(reference, image, ball(), inside_depth_mm=30.0)
    with pytest.raises(GridMismatchError):
        score_image(reference, Volume(image.data, Grid((24, 24, 24), np.diag([2.0, 1, 1, 1]))), ball())
    with pytest.raises(BadInputError, match="quantiles"):
        EdgeSettings(low_quantile=0.9, high_quantile=0.5)
