"""What is said of a result: sd that covers the truth, members that are kept, residuals, another image as a start."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from operators import grid
from prepared import one_scan

from inr.fitting.fit import FitSettings
from inr.losses import absolute_misfit, rician_misfit
from inr.scans.heldout import hide
from inr.trust.ensemble import HeldOut, ensemble
from inr.voxels import tikhonov
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator, predict
from mrcore.noise import add_noise
from mrcore.random import seeded
from mrcore.spatial.registration import RegisterSettings
from mrkit.files.kept import Kept
from mrkit.files.provenance import Record
from mrkit.report.pictures import sections
from mrkit.report.report import Report, build_page
from mrkit.superresolution.contrast import target_variance
from mrkit.superresolution.fitting import FitPlan, Guess, _linear, align_guess, refit, started_from
from mrkit.superresolution.prepare import Prepared
from mrkit.superresolution.trust import Trust, _on_output, _total_sd, kept_members, residual_whiteness, trust
from mrkit.superresolution.trust_page import trust_figures, whiteness_plot, whiteness_table

LATTICE, SCAN = grid((32, 32, 30), (2.0,) * 3), grid((32, 32, 12), (2.0, 2.0, 5.0))
NOISE_SD, SCALE = 0.03, 200.0


def truth() -> torch.Tensor:
    """A ball with sharp pieces inside, WM = 1."""
    at = torch.stack(torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in LATTICE.shape), indexing="ij"))
    radius = at.square().sum(0).sqrt()
    pieces = torch.where(torch.sin(at[0] * 0.9) * torch.sin(at[1] * 0.8 + 1) * torch.sin(at[2] * 0.7 + 2) > 0, 1.0, 0.6)
    return pieces * (radius < 13)


def rms(values: torch.Tensor) -> float:
    return math.sqrt(float(values.square().mean()))


@pytest.fixture(scope="module")
def ready() -> Prepared:
    object_ = truth()
    operator = imaging_operator(LATTICE, SCAN, gaussian_psf(SCAN.spacing_mm))
    scan = add_noise(predict(operator, object_), NOISE_SD, seeded(3, "test_trust"))
    prob = torch.stack([torch.zeros_like(object_), (object_ == 0.6).float(), (object_ == 1.0).float()])
    tissues = TissueMap(prob, TISSUES, LATTICE)
    return one_scan(Volume(scan, SCAN), SCALE, NOISE_SD, LATTICE, operator, object_, object_ > 0, tissues)


def smooth_fit(seen) -> torch.Tensor:
    """A Tikhonov image of what a member may see, with a little of its seed."""
    start = 0.02 * torch.randn(LATTICE.shape, generator=seeded(seen.seed, "start"))
    data = seen.data
    return tikhonov(data.operator, data.scan, NOISE_SD, start, LATTICE.spacing_mm, max_iter=8).x.clamp_min(0)[None]


@pytest.fixture(scope="module")
def found(ready) -> tuple[Trust, torch.Tensor]:
    data, blank = ready.data, torch.zeros(LATTICE.shape)
    image = tikhonov(data.operator, data.scan, NOISE_SD, blank, LATTICE.spacing_mm).x.clamp_min(0)
    return trust(ready, image[None], smooth_fit, 2, 0), image


def test_sd_covers_the_error_of_what_the_scan_does_not_show(found, ready):
    """The prior alone is far too sure of these sharp pieces; held-out voxels widen it to the error, within a third."""
    text, image = found
    brain = ready.tissues.mask
    error = (image - truth())[brain]
    z = error / (text.sds[0].data[brain] / SCALE)
    assert 0.67 < rms(z) < 1.33
    assert float((z.abs() < 1).double().mean()) > 0.6
    assert float((z.abs() < 2).double().mean()) > 0.9
    assert text.null_scales[0] > 3
    assert rms(z) * text.null_scales[0] > 3, "what it would be without"


def unseen_exactly(ready, image) -> torch.Tensor:
    """What no scan voxel sees, from the singular vectors of each axis: (X, Y, Z), WM = 1."""
    found = [torch.linalg.eigh((m.T @ m).double()) for m in ready.data.operator.matrices]
    power = torch.einsum("a,b,c->abc", *(values.clamp_min(0) for values, _ in found))
    parts = image.double()
    for _, vectors in found:  # an axis is taken from the front and put at the end
        parts = torch.tensordot(parts, vectors, ([0], [0]))
    parts = parts * NOISE_SD**2 / (power + NOISE_SD**2)
    for _, vectors in found:
        parts = torch.tensordot(parts, vectors, ([0], [1]))
    return parts.float()


def test_the_null_part_is_what_the_operator_leaves_out(ready):
    """It is what the singular vectors of the operator say, without any iteration."""
    text, image = trust(ready, truth()[None], smooth_fit, 2, 0), truth()
    part = text.null_parts[0].data / SCALE
    exact = unseen_exactly(ready, image) * ready.foreground
    assert rms(part - exact) < 0.05 * rms(exact)
    assert rms(exact) > 0.1 * rms(image), "sharp pieces have much that blurred slices of 5 mm do not show"
    seen, whole = (float(ready.data.operator(x).square().mean().sqrt()) for x in (part, image))
    assert seen < 0.1 * whole
    assert text.null_parts[0].grid.matches(LATTICE)


def test_figures_of_trust_are_those_of_the_ensemble(found):
    text, _ = found
    assert text.n_members == 2
    assert 0 < text.seed_variance < 0.1
    assert isinstance(text.held_out, HeldOut)
    assert f"{text.held_out.n_voxels} held-out scan voxels" in text.notes[0]


def test_members_that_are_kept_are_not_fitted_again(tmp_path):
    calls = []

    def fit():
        calls.append(1)
        return torch.arange(24.0).reshape(2, 3, 4)

    one = Kept(tmp_path / ".kept", "these files and options")
    first, again = one.image("a", fit), one.image("a", fit)
    assert torch.equal(first, again)
    assert len(calls) == 1
    one.image("b", fit)
    Kept(tmp_path / ".kept", "other options").image("a", fit)
    assert len(calls) == 3
    next(iter(sorted((tmp_path / ".kept").iterdir()))).write_bytes(b"cut off")
    for name in ("a", "b"):
        one.image(name, fit)
        Kept(tmp_path / ".kept", "other options").image("a", fit)
    assert len(calls) == 4, "what is damaged is fitted again"
    one.remove()
    assert not (tmp_path / ".kept").exists()


def test_members_differ_by_fold_and_seed(ready):
    names = []
    again = kept_members(smooth_fit, lambda name, _: names.append(name) or torch.zeros(1))
    for fold, seed in ((0, 0), (0, 1), (5, 0)):
        again(hide(ready.data, SCAN.spacing_mm, fold, seed))
    assert len(set(names)) == 3
    assert kept_members(smooth_fit, None) is smooth_fit


def test_residuals_of_the_truth_are_white(ready):
    z = (ready.data.scan - ready.data.operator(truth())) / NOISE_SD
    mask = Volume(ready.tissues.mask.float(), LATTICE)
    white = residual_whiteness(Volume(z, SCAN), mask)
    assert white is not None
    assert white.sd == pytest.approx(1, abs=0.1)
    assert white.worst < 4
    assert residual_whiteness(Volume(z, SCAN), Volume(0 * mask.data, LATTICE)) is None
    smooth = residual_whiteness(Volume(z.roll(1, 0) + z, SCAN), mask)
    assert [len(line.x) for line in whiteness_plot(smooth).lines[:3]] == [4, 4, 4]
    assert whiteness_table(smooth).rows[1].values[2] == pytest.approx(0.5, abs=0.1)


def test_maps_of_trust_are_shown_in_the_brain(found, ready):
    text, _ = found
    planes = sections(LATTICE, ready.tissues.mask)
    figures = trust_figures(text, ("T1w",), planes, ready.tissues.mask)
    assert [figure.title for figure in figures] == ["Uncertainty", "Not seen by the scan"]
    assert "Uncertainty" in build_page(Report("t", "s", Record(), figures=tuple(figures), planes=("a", "b", "c")))


def test_a_start_from_the_same_person_knows_more_than_the_scan(ready, found, monkeypatch):
    """Detail that no slice shows comes from the other image, whatever its scale and place."""
    affine = LATTICE.affine.copy()
    affine[:3, 3] += (3.0, -2.0, 0.0)
    quick = RegisterSettings(dof=6, levels_mm=(6.0,), n_steps=30, n_starts=1)
    monkeypatch.setattr("mrkit.superresolution.fitting.RIGID", quick)
    _, smooth = found
    plain = replace(ready, start=smooth[None])
    guess, note = align_guess(plain, Volume(50 * truth(), Grid(LATTICE.shape, affine)))
    started = started_from(guess, plain.data, plain.start, LATTICE)[0]
    error, without = (rms((image - truth())[ready.tissues.mask]) for image in (started, smooth))
    assert error < 0.8 * without
    assert "explains" in note


def test_members_start_from_the_other_image_as_the_fit_does(ready, found):
    """Detail that no slice shows is there, and what is hidden from a member is not."""
    _, smooth = found
    brain = ready.tissues.mask
    one_step = FitSettings(n_steps=1, learning_rate=1e-6)
    seen = hide(ready.data, SCAN.spacing_mm, 0, 0)
    guesses = (Guess(truth()), None)
    with_guess, without = (refit(ready, FitPlan(one_step, guess=guess))(seen)[0] for guess in guesses)
    assert rms((without - smooth)[brain]) < 0.1
    assert rms((with_guess - truth())[brain]) < 0.5 * rms((without - truth())[brain])
    changed = replace(ready.data, scan=ready.data.scan + 5 * seen.held_out[0])
    spoiled = hide(changed, SCAN.spacing_mm, 0, 0)
    assert torch.allclose(refit(ready, FitPlan(one_step, guess=Guess(truth())))(spoiled)[0], with_guess, atol=1e-5)


def test_members_have_the_likelihood_of_the_fit(ready):
    """Spikes move the image of a member less under that of absolute errors."""
    spikes = torch.zeros(SCAN.shape)
    spikes[12:20:3, 12:20:3, 4:8] = 20 * NOISE_SD
    spoiled = hide(replace(ready.data, scan=ready.data.scan + spikes), SCAN.spacing_mm, 0, 0)
    plain = replace(ready, start=0.8 * ready.foreground[None])
    plans = (FitPlan(FitSettings(n_steps=12), likelihood=each) for each in (rician_misfit, absolute_misfit))
    near = ready.data.operator.H(spikes) > 0.1 * ready.data.operator.H(spikes).max()
    moved = [rms((refit(plain, plan)(spoiled)[0] - truth())[near & ready.tissues.mask]) for plan in plans]
    assert moved[1] < 0.8 * moved[0]


def test_an_image_of_another_contrast_is_no_start():
    seen = torch.linspace(0, 1, 50)
    line = _linear(3 * seen + 1, seen)
    assert (line.gain, line.offset, line.share) == pytest.approx((1 / 3, -1 / 3, 1.0))
    assert _linear(1 - seen, seen).share == 0


def test_variance_over_targets_is_that_of_the_levels(ready):
    """Where all of a tissue has its level, the variance is the square of the relative sd times the level's."""
    image = Volume(SCALE * truth(), LATTICE)
    prob = torch.stack([(truth() == 0.6).float(), (truth() == 1.0).float()])
    tissues = TissueMap(prob, ("GM", "WM"), LATTICE)
    found = target_variance(image, tissues, {"GM": 50.0, "WM": 100.0}, 0, relative_sd=0.02, n_draws=60)
    shares = [float(p[tissues.mask].mean()) for p in prob]
    assert found == pytest.approx(0.02**2 * (0.25 * shares[0] + shares[1]), rel=0.4)
    with pytest.raises(BadInputError, match="2 draws"):
        target_variance(image, tissues, {"GM": 50.0, "WM": 100.0}, 0, n_draws=1)


def test_an_image_differs_from_the_others_by_its_own_spread_and_by_that_of_their_mean(ready, found):
    """What spread adds to the variance, against draws: one fit against the mean of two others."""
    _, image = found
    masks = [torch.ones(SCAN.shape, dtype=torch.bool)]
    members = ensemble(ready.data, SCAN.spacing_mm, masks, smooth_fit, 0, n_folds=1, n_seeds=2)
    spread, sd = 0.2, {}
    for value in (0.0, spread):
        alike = replace(members, spread=torch.full_like(members.spread, value))
        sd[value] = _total_sd(ready, image, 0, alike, masks, 0)[0]
    added = float((sd[spread].square() - sd[0.0].square()).mean())
    draws = spread * torch.randn(3, 200_000, generator=seeded(0, "draws"))
    assert added == pytest.approx(float((draws[0] - draws[1:].mean(0)).var()), rel=0.02)


def test_maps_have_the_intensities_of_the_scans_of_their_contrast(ready):
    two = SimpleNamespace(scales=(200.0, 30.0), lattice=ready.lattice, output_grid=ready.output_grid)
    found = [float(_on_output(two, torch.ones(LATTICE.shape), contrast).data.max()) for contrast in (0, 1)]
    assert found == [200.0, 30.0]
