"""The two verbs from Python, on digital heads: places in the world, what is refused, what the notes say."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from notebook import assert_shows_itself
from operators import blob, centroid_mm, grid, positions_mm

import mrkit
from inr.fields.multilevel import FieldSettings
from inr.fitting.fit import FitSettings
from mrcore.data.grid import Grid, to_voxel, to_world
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.io.volumes import load_volume
from mrcore.metrics.edges import edge_f1
from mrcore.metrics.overlap import dice_by_tissue
from mrcore.metrics.similarity import gradient_error, psnr
from mrcore.phantom import digital_head, head_grid
from mrcore.segmentation.tissues import Segmentation
from mrcore.spatial.resampling import resample
from mrkit.simulation.simulate import simulate_ulf
from mrkit.superresolution.prepare import prepare
from mrkit.superresolution.superresolve import superresolve
from ulfsim.plan import plan_scan, tissues_through

FEW = FitSettings(field=FieldSettings(spacings_mm=(20.0, 10.0)), n_steps=3)


def tissues_of_scan(simulated, tissues) -> TissueMap:
    """The tissue maps as the voxels of a scan see them."""
    return tissues_through(plan_scan(tissues.grid, simulated.acquisition), tissues)


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(41), seed=4)


@pytest.fixture(scope="module")
def simulated(head):
    return simulate_ulf(head.image, tissues=head.tissues, seed=1)


@pytest.fixture(scope="module")
def seen(head, simulated):
    return tissues_of_scan(simulated, head.tissues)


@pytest.fixture(scope="module")
def resolved(simulated, seen):
    """At 4.8 mm, close to the voxel of the head, with mrkit's own tissues in a given mask."""
    return superresolve(simulated.scan, voxel_mm=4.8, mask=seen.mask, settings=FitSettings(n_steps=30))


def test_results_show_themselves(head, simulated, seen, resolved):
    assert_shows_itself(simulated, "SimulatedScan(", "5 mm")
    assert_shows_itself(resolved, "SuperResolved(T1w", "4.8")
    measured = mrkit.measure(simulated.scan, tissues=seen)
    assert_shows_itself(measured, "Measured(", "95 %")
    for plain in (head.image, head.tissues, head.grid):
        assert len(repr(plain)) < 120
        assert "41 x 41 x 41" in repr(plain)


# Super-resolution


def test_output_covers_the_field_of_view_with_the_requested_voxel(simulated, resolved):
    scan, out = simulated.scan.grid, resolved.image.grid
    assert out.spacing_mm == pytest.approx((4.8, 4.8, 4.8))
    for other in (resolved.tissues, resolved.cubic):
        assert other.grid.matches(out)
    assert resolved.residual_z.grid.matches(scan)
    assert torch.equal(resolved.solution.x[0], resolved.image.data)
    assert_covers(out, scan)


def assert_covers(out: Grid, scan: Grid) -> None:
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in scan.shape])).reshape(3, -1).T
    where = to_voxel(out, to_world(scan, corners))
    assert where.min() > -1.01
    assert (where.max(0) < np.array(out.shape) + 0.01).all()
    # At most a voxel more than needed.
    assert all(a - b < max(out.spacing_mm) for a, b in zip(out.fov_mm, scan.fov_mm, strict=True))


def test_intensities_are_those_of_the_scan(head, simulated, resolved):
    truth = resample(simulated.truth, resolved.image.grid)
    mask = resample(Volume(head.mask.float(), head.grid), resolved.image.grid).data > 0.5
    white = resample(Volume(head.tissues.of("WM"), head.grid), resolved.image.grid).data > 0.95
    assert resolved.image.data[white].mean().item() == pytest.approx(truth.data[white].mean().item(), rel=0.03)
    assert resolved.noise_sd == pytest.approx(simulated.acquisition.noise_sd, rel=0.05)
    spacing = resolved.image.grid.spacing_mm
    images = (resolved.image.data, resolved.cubic.data)
    ours, cubic = (psnr(truth.data, image, mask) for image in images)
    assert ours > cubic + 1
    ours, cubic = (gradient_error(truth.data, image, mask, spacing) for image in images)
    assert ours < cubic


def test_scale_of_the_scan_is_kept(simulated, seen):
    # A power of two: nothing is rounded on the way.
    scaled = Volume(1024 * simulated.scan.data, simulated.scan.grid, simulated.scan.meta)
    one, other = (superresolve(s, voxel_mm=5.0, tissues=seen, settings=FEW) for s in (simulated.scan, scaled))
    assert torch.allclose(other.image.data, 1024 * one.image.data, rtol=1e-5)
    assert other.noise_sd == pytest.approx(1024 * one.noise_sd)
    assert torch.allclose(other.residual_z.data, one.residual_z.data, atol=1e-3)


def test_residual_is_white_noise_of_unit_sd_where_the_model_is_right(resolved, seen):
    for where in (seen.mask, ~seen.mask):
        z = resolved.residual_z.data[where]
        assert z.mean().item() == pytest.approx(0, abs=0.3)
        assert 0.85 < z.std().item() < 1.15


def test_residual_shows_what_the_model_does_not_know(simulated, seen):
    """Scan voxels brightened one by one cannot come from an object seen through the point spread."""
    spoiled = simulated.scan.data.clone()
    spoiled[60, 60, ::4] += 10 * simulated.acquisition.noise_sd
    done = superresolve(Volume(spoiled, simulated.scan.grid, simulated.scan.meta), voxel_mm=4.8, tissues=seen)
    assert done.residual_z.data[60, 60, ::4].mean().item() > 5


def test_tissues_sum_to_one_in_the_brain_and_resemble_the_truth(head, resolved):
    total = resolved.tissues.prob.sum(0)
    assert resolved.tissues.names == TISSUES
    assert bool(((total < 1e-4) | ((total - 1).abs() < 1e-4)).all())
    truth = torch.stack([resample(Volume(p, head.grid), resolved.image.grid).data for p in head.tissues.prob])
    truth = truth.clamp(0, 1)
    truth = TissueMap(truth / truth.sum(0).clamp_min(1), TISSUES, resolved.image.grid)
    scores = dice_by_tissue(truth, resolved.tissues)
    assert scores["WM"] > 0.75
    assert scores["GM"] > 0.6


def test_notes_name_segmenter_noise_and_point_spread(simulated, seen, resolved):
    assert any(note.startswith("tissues: HMRF-EM") for note in resolved.notes)
    assert any("noise sd" in note and "air" in note for note in resolved.notes)
    assert "point spread: from the scan's sidecar" in resolved.notes
    bare = superresolve(Volume(simulated.scan.data, simulated.scan.grid), voxel_mm=5.0, tissues=seen, settings=FEW)
    assert "tissues: given maps" in bare.notes
    assert any(note.startswith("point spread: assumed") for note in bare.notes)
    assert any("had not settled" in note for note in bare.notes), "three steps are too few"


def test_segmenter_that_is_given_is_used(simulated, seen):
    calls = []

    def mine(volume, mask):
        calls.append(volume.grid)
        prob = torch.stack([torch.where(mask, share, 0.0) for share in (0.2, 0.3, 0.5)])
        prob[:, volume.data > 0.5] = 0
        prob[2, volume.data > 0.5] = 1
        prob = prob * mask
        tissues = TissueMap(prob, TISSUES, volume.grid)
        ones = (1.0, 1.0, 1.0)
        return Segmentation(tissues, ones, ones, torch.ones(mask.shape), "mine", True, 1, (0.0,), "by a rule")

    done = superresolve(simulated.scan, voxel_mm=5.0, mask=seen.mask, segmenter=mine, settings=FEW)
    assert "tissues: mine, by a rule" in done.notes
    # The scan, then the Tikhonov image, then the image twice in the fit.
    assert [c.matches(simulated.scan.grid) for c in calls] == [True, False, False, False]


def test_seed_changes_the_result_and_repeats_it(simulated, seen):
    one, same, other = (
        superresolve(simulated.scan, voxel_mm=5.0, tissues=seen, seed=s, settings=FEW) for s in (0, 0, 1)
    )
    assert torch.equal(one.image.data, same.image.data)
    assert torch.equal(one.tissues.prob, same.tissues.prob)
    assert not torch.equal(one.image.data, other.image.data)


def test_scarce_tissue_is_said(simulated, seen):
    """GM in half a percent of the brain: as when one contrast class was lost."""
    prob = seen.prob.clone()
    core = prob[2] > 0.99
    moved = torch.zeros_like(core)
    moved[core] = torch.arange(int(core.sum())) < 0.005 * int(seen.mask.sum())
    prob[0] += prob[1]
    prob[1] = 0
    prob[:, moved] = torch.tensor([0.0, 1.0, 0.0])[:, None]
    done = superresolve(simulated.scan, voxel_mm=5.0, tissues=TissueMap(prob, TISSUES, seen.grid), settings=FEW)
    text = [note for note in done.notes if "do not trust the tissues" in note]
    assert len(text) == 1
    assert text[0].startswith("GM makes up 0.")
    fine = superresolve(simulated.scan, voxel_mm=5.0, tissues=seen, settings=FEW)
    assert not any("do not trust the tissues" in note for note in fine.notes)


# Places in the world

TURNED = {
    "RAS": grid((41, 41, 41), (5.0, 5.0, 5.0)),
    "off centre": grid((41, 43, 39), (5.0, 4.9, 5.2), (20, -35, 55)),
    "LIA": grid((41, 41, 41), (5.0, 5.0, 5.0), (6, 2, -9), flips=(0, 1), order=(0, 2, 1)),
    "oblique": grid((41, 41, 41), (5.0, 5.0, 5.0), (-4, 8, 3), (15, -10, 20)),
    "oblique LPS": grid((41, 41, 41), (5.0, 5.0, 5.0), (-4, 8, 3), (-8, 12, 10), flips=(0, 1)),
}


@pytest.mark.parametrize("where", TURNED.values(), ids=TURNED)
def test_landmark_keeps_its_place_in_the_world(where):
    """A lone bright ball in the air beside the head, at a known place on no voxel's centre."""
    head = digital_head(where, seed=4)
    centre = to_world(where, (np.array(where.shape) - 1) / 2)
    place = centre + np.array([67.3, 68.1, -5.9])
    ball = blob(where, place, 7.0).float()
    volume = Volume(head.image.data + ball, where)
    done = simulate_ulf(volume, tissues=head.tissues, wm_snr=100.0, seed=2)
    result = superresolve(done.scan, voxel_mm=4.0, tissues=tissues_of_scan(done, head.tissues), settings=FEW)
    assert_covers(result.image.grid, done.scan.grid)
    for image in (done.truth, done.scan, result.image, result.cubic):
        near = (positions_mm(image.grid) - torch.from_numpy(place)).norm(dim=-1) < 18
        ball = image.data * near
        # The top of the ball: below lie noise and the rim of the head.
        found = centroid_mm((ball - 0.3 * ball.max()).clamp_min(0), image.grid)
        assert np.abs(found - place).max() < 0.4, image.grid.spacing_mm
    # And the fit kept it: it is no background.
    assert result.image.data[near].max() > 0.5 * done.truth.data[head.tissues.of("WM") > 0.99].mean()


def test_orientation_of_the_scan_is_that_of_the_output():
    where = TURNED["LIA"]
    head = digital_head(where, seed=4)
    done = simulate_ulf(head.image, tissues=head.tissues)
    # Scans are laid axially; signs stay those of the source.
    assert done.scan.grid.orientation == "LAI"
    result = superresolve(done.scan, voxel_mm=5.0, tissues=tissues_of_scan(done, head.tissues), settings=FEW)
    assert result.image.grid.orientation == "LAI"


def test_head_that_fills_the_field_of_view_comes_back_in_it(simulated, seen):
    """Cut through the brain: the lattice is wider than the output, and nothing appears at the opposite side."""
    start, stop = 40, 80
    affine = simulated.scan.grid.affine.copy()
    affine[:3, 3] = to_world(simulated.scan.grid, np.array([start, 0, 0]))
    cut = Grid((stop - start, *simulated.scan.grid.shape[1:]), affine)
    scan = Volume(simulated.scan.data[start:stop].clone(), cut, simulated.scan.meta)
    tissues = TissueMap(seen.prob[:, start:stop].clone(), TISSUES, cut)
    ready = prepare(scan, voxel_mm=4.0, tissues=tissues)
    assert ready.lattice.shape == tuple(n + 4 for n in ready.output_grid.shape)
    done = superresolve(scan, voxel_mm=4.0, tissues=tissues, settings=FEW)
    assert_covers(done.image.grid, cut)
    assert np.abs(to_world(done.image.grid, np.zeros(3)) - to_world(ready.lattice, np.full(3, 2.0))).max() < 1e-9
    inside = resample(done.cubic, done.image.grid).data > 0.5
    assert (done.image.data - done.cubic.data)[inside].abs().mean() < 0.1 * done.cubic.data[inside].mean()


# What is refused


def test_unknown_preset(head):
    with pytest.raises(BadInputError, match="no preset 'swoop'; there are hyperfine-t1w"):
        simulate_ulf(head.image, preset="swoop")


@pytest.mark.parametrize("voxel_mm", [0.0, 0.19, 5.01, -1.0, math.nan, math.inf])
def test_voxel_out_of_range(simulated, voxel_mm):
    with pytest.raises(BadInputError, match=r"between 0\.2 mm and the scan's largest voxel"):
        superresolve(simulated.scan, voxel_mm=voxel_mm)


def test_mask_and_tissues_on_another_grid(head, simulated, seen):
    for verb, volume, mask, tissues in (
        (simulate_ulf, head.image, seen.mask, seen),
        (superresolve, simulated.scan, head.mask, head.tissues),
    ):
        with pytest.raises(GridMismatchError, match="mask must be boolean of shape"):
            verb(volume, mask=mask)
        with pytest.raises(GridMismatchError, match="mask must be boolean of shape"):
            verb(volume, mask=mask, tissues=seen if verb is superresolve else head.tissues)
        with pytest.raises(GridMismatchError, match="not on the same grid"):
            verb(volume, tissues=tissues)


def test_mask_that_is_not_boolean_or_empty(head):
    with pytest.raises(GridMismatchError, match="boolean"):
        simulate_ulf(head.image, mask=head.mask.float())
    with pytest.raises(BadInputError, match="0 voxels"):
        simulate_ulf(head.image, mask=torch.zeros_like(head.mask))


@pytest.mark.parametrize("names", [("A", "B", "C"), ("CSF", "GM", "white")])
def test_tissues_without_white_matter(head, names):
    with pytest.raises(BadInputError, match="one named 'WM', got"):
        simulate_ulf(head.image, tissues=TissueMap(head.tissues.prob, names, head.grid))


def images_that_show_nothing(where):
    ones = torch.ones(where.shape)
    return {"constant": 5 * ones, "zero": 0 * ones, "negative": -ones.cumsum(0), "complex": ones + 1j * ones.cumsum(0)}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("constant", "is constant"), ("zero", "is constant"), ("negative", "are below 0"), ("complex", "is complex")],
)
def test_images_that_show_nothing(head, simulated, seen, kind, expected):
    for given in ({}, {"tissues": head.tissues}, {"mask": head.mask}):
        with pytest.raises(BadInputError, match=expected):
            simulate_ulf(Volume(images_that_show_nothing(head.grid)[kind], head.grid), **given)
    for given in ({}, {"tissues": seen}, {"mask": seen.mask}):
        with pytest.raises(BadInputError, match=expected):
            superresolve(Volume(images_that_show_nothing(seen.grid)[kind], seen.grid), **given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_precisions_are_taken(simulated, seen, dtype):
    scan = Volume(simulated.scan.data.to(dtype), simulated.scan.grid)
    done = superresolve(scan, voxel_mm=5.0, tissues=seen, settings=FEW)
    assert {v.data.dtype for v in (done.image, done.cubic, done.residual_z)} == {torch.float32}


def test_scan_without_noise_is_fitted_and_said(head):
    done = superresolve(Volume(head.image.data, head.grid), voxel_mm=4.6, tissues=head.tissues, settings=FEW)
    assert any("thousandth of WM" in note for note in done.notes)
    assert bool(torch.isfinite(done.image.data).all())


def test_inputs_are_left_as_they_were(head, simulated, seen):
    before = [x.clone() for x in (head.image.data, head.tissues.prob, simulated.scan.data, seen.prob)]
    simulate_ulf(head.image, tissues=head.tissues)
    superresolve(simulated.scan, voxel_mm=5.0, tissues=seen, settings=FEW)
    after = (head.image.data, head.tissues.prob, simulated.scan.data, seen.prob)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# Real scans


@pytest.mark.slow
def test_beats_cubic_on_a_real_brain(shared_data):
    volume = load_volume(shared_data / "t1" / "stroke_3T_T1_brain.nii.gz")
    made = simulate_ulf(volume, wm_snr=50.0, seed=1)
    mask = resample(Volume(made.mask.float(), volume.grid), made.scan.grid).data > 0.5
    done = superresolve(made.scan, voxel_mm=1.0, mask=mask, seed=1)
    truth = resample(made.truth, done.image.grid, order=3)
    brain = resample(Volume(made.mask.float(), volume.grid), done.image.grid).data > 0.5
    spacing = done.image.grid.spacing_mm
    images = (done.image.data, done.cubic.data)
    ours, cubic = (psnr(truth.data, image, brain) for image in images)
    assert ours > cubic + 0.5
    ours, cubic = (edge_f1(truth.data, image, brain, 1.0) for image in images)
    assert ours > cubic
    ours, cubic = (gradient_error(truth.data, image, brain, spacing) for image in images)
    assert ours < cubic
    z = done.residual_z.data[mask]
    # The prior takes a few tenths of the noise off what is brighter than the background.
    assert z.mean().item() == pytest.approx(0, abs=0.35)
    # A fit takes part of the noise for object.
    assert 0.65 < z.std().item() < 1.1
    assert not any("do not trust" in note for note in done.notes)


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["T1w", "T2w", "FLAIR"])
def test_real_ulf_scan_with_its_skull(shared_data, weighting):
    pytest.importorskip("nilearn", reason="the brain template comes with nilearn")
    scan = load_volume(shared_data / "ulf" / f"lowgan_MS017_64mT_{weighting}.nii.gz")
    done = superresolve(scan, voxel_mm=1.6, settings=dataclasses.replace(FitSettings(), n_steps=20))
    assert_covers(done.image.grid, scan.grid)
    assert done.image.grid.orientation == scan.grid.orientation
    assert np.abs(done.image.grid.affine[:3, :3] / 1.6 - scan.grid.affine[:3, :3] / scan.grid.spacing_mm).max() < 1e-5
    for volume in (done.image, done.residual_z, done.cubic):
        assert bool(torch.isfinite(volume.data).all())
    brain = resample(Volume(done.tissues.mask.float(), done.tissues.grid), scan.grid).data > 0.5
    litres = done.tissues.mask.sum().item() * 1.6**3 / 1e6
    assert 0.9 < litres < 2.0
    assert done.residual_z.data[brain].mean().abs().item() < 1
    # As bright as the scan is.
    assert done.image.data[done.tissues.mask].mean().item() == pytest.approx(scan.data[brain].mean().item(), rel=0.05)
