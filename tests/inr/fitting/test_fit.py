"""The fit of one subject: what it predicts, that it improves on interpolation, that it repeats itself."""

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from operators import grid, positions_mm

from inr.fields.base import slabs_of
from inr.fields.hashgrid import HashGrid
from inr.fields.multilevel import FieldSettings
from inr.fields.siren import Siren
from inr.fitting.fit import FitSettings, _batches, _Problem, fit
from inr.losses import absolute_misfit, data_term, dice_cross_entropy, rician_misfit, total_variation
from inr.scans.single import OneScan, with_bias
from inr.scans.stacks import Stack, Stacks
from inr.voxels import cubic, tikhonov
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator, predict
from mrcore.metrics.similarity import gradient_error, psnr
from mrcore.noise import add_noise
from mrcore.operators.linop import LinearOp
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded

# Large voxels say less per mm^3 than those of 1.6 x 1.6 x 5 mm: so must the prior.
QUICK = FitSettings(field=FieldSettings(spacings_mm=(24.0, 12.0, 6.0)), n_steps=20, tv_weight=0.08)


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A head of 5 mm voxels, its scan of 5 x 5 x 10 mm at WM SNR 40, and what a fit starts from."""

    truth: torch.Tensor
    scan: torch.Tensor
    operator: LinearOp
    lattice: Grid
    cubic: torch.Tensor
    start: torch.Tensor
    mask: torch.Tensor
    tissues: TissueMap


SD = 0.025


def make_case() -> Case:
    head = digital_head(head_grid(38, 190.0), seed=2)
    scan_grid = grid((38, 38, 19), (5.0, 5.0, 10.0))
    operator = imaging_operator(head.grid, scan_grid, gaussian_psf(scan_grid.spacing_mm))
    scan = add_noise(predict(operator, head.image.data), SD, seeded(1, "scan"))
    begin = cubic(Volume(scan, scan_grid), head.grid).data
    start = tikhonov(operator, scan, SD, begin, head.grid.spacing_mm).x.clamp_min(0)
    return Case(head.image.data, scan, operator, head.grid, begin, start, head.mask, head.tissues)


@pytest.fixture(scope="module")
def case():
    return make_case()


def run(case, settings=QUICK, seed=0, **other):
    given = {
        "data": OneScan(case.scan, case.operator, SD),
        "lattice": case.lattice,
        "start": case.start[None],
        "foreground": case.mask,
        "tissues": case.tissues,
    }
    return fit(**(given | other), seed=seed, settings=settings)


@pytest.fixture(scope="module")
def fitted(case):
    return run(case, dataclasses.replace(QUICK, n_steps=60))


def test_objective_falls_and_the_solution_says_how_it_ended(fitted):
    history = fitted.solution.history
    assert len(history) == fitted.solution.n_iter == 60
    assert history[-1] < 0.9 * history[0]
    assert history[-1] == pytest.approx(min(history), rel=0.01)
    assert fitted.solution.x is fitted.images
    assert "60 steps" in fitted.solution.message


def test_history_is_the_objective_per_scan_voxel(case):
    """Before the first step the field is close to zero: data, variation and tissues are those of the start."""
    first = run(case, dataclasses.replace(QUICK, n_steps=1)).solution.history[0] * case.scan.numel()
    start = case.start * case.mask
    data = data_term(case.operator, start, case.scan, SD).item()
    variation = total_variation(start, case.lattice.spacing_mm, QUICK.tv_smoothing).item()
    # The empty rim of the lattice, which only counts by its smoothing, is left out of the fit.
    tissue = case.tissues.prob[:, case.mask].clamp_min(1e-4)
    tissue = tissue / tissue.sum(0)
    tissue = dice_cross_entropy(tissue.clamp_min(0.02).log(), tissue).item()
    expected = data + QUICK.tv_weight * variation + QUICK.tissue_weight * case.scan.numel() * tissue
    assert first == pytest.approx(expected, rel=0.05)


def test_beats_cubic_on_intensity_and_gradients(case, fitted):
    spacing = case.lattice.spacing_mm
    ours, theirs = (psnr(case.truth, image, case.mask) for image in (fitted.image, case.cubic))
    assert ours > theirs + 1.5
    ours, theirs = (gradient_error(case.truth, image, case.mask, spacing) for image in (fitted.image, case.cubic))
    assert ours < 0.9 * theirs


def test_prediction_explains_the_scan_to_its_noise(case, fitted):
    residual = (case.scan - predict(case.operator, fitted.image))[case.scan > 0.3] / SD
    assert residual.mean().item() == pytest.approx(0, abs=0.15)
    assert 0.6 < residual.std().item() < 1.15


def test_image_is_the_start_plus_the_field_in_the_foreground(case, fitted):
    assert fitted.image[~case.mask].abs().max().item() == 0
    assert fitted.image.min().item() >= 0
    outputs = fitted.field(positions_mm(case.lattice)[case.mask])
    expected = (case.start[case.mask] + outputs[0]).clamp_min(0)
    assert torch.allclose(fitted.image[case.mask], expected, atol=1e-3)
    assert (fitted.image - case.start)[case.mask].abs().mean().item() > 0.005, "the field does something"


def test_tissues_sum_to_one_in_the_mask_and_are_zero_outside(case, fitted):
    assert fitted.prob.shape == (3, *case.lattice.shape)
    total = fitted.prob.sum(0)
    assert torch.allclose(total[case.mask], torch.ones(()), atol=1e-5)
    assert total[~case.mask].abs().max().item() == 0
    assert fitted.prob.min().item() >= 0


def test_tissues_stay_those_of_the_target(case, fitted):
    same = fitted.prob.argmax(0) == case.tissues.prob.argmax(0)
    assert same[case.mask].float().mean().item() > 0.95


def test_tissue_mask_bounds_the_tissues_and_the_foreground_the_image(case):
    half = case.tissues.prob.clone()
    half[:, :19] = 0
    done = run(case, tissues=TissueMap(half, TISSUES, case.lattice))
    assert done.prob[:, :19].abs().max().item() == 0
    assert done.image[:19].max().item() > 0.5
    narrow = case.mask.clone()
    narrow[19:] = False
    done = run(case, foreground=narrow)
    assert done.image[19:].abs().max().item() == 0
    assert done.prob[:, 19:].abs().max().item() == 0


def test_same_seed_same_bytes_other_seed_other_bytes(case):
    quick = dataclasses.replace(QUICK, n_steps=4)
    one, same, other = (run(case, quick, seed) for seed in (5, 5, 6))
    assert torch.equal(one.image, same.image)
    assert torch.equal(one.prob, same.prob)
    assert not torch.equal(one.image, other.image)
    # The seed decides where the descent begins, not where it ends.
    assert (one.image - other.image).abs().max().item() < 0.2


@pytest.mark.parametrize(
    ("design", "rate", "batch"),
    [(Siren(0.02, 24, 2), 5e-3, 0.25), (HashGrid(40.0, n_levels=3), 0.01, 1.0)],
    ids=["SIREN in batches", "hash grid"],
)
def test_any_field_fits_through_the_operator(case, design, rate, batch):
    settings = dataclasses.replace(QUICK, field=design, learning_rate=rate, batch=batch, n_steps=20)
    blurred = cubic(Volume(case.scan, grid((38, 38, 19), (5.0, 5.0, 10.0))), case.lattice).data
    done = run(case, settings, start=blurred[None])
    residual = [data_term(case.operator, x * case.mask, case.scan, SD).item() for x in (blurred, done.image)]
    assert residual[1] < 0.99 * residual[0]
    assert psnr(case.truth, done.image, case.mask) > psnr(case.truth, blurred, case.mask)


def test_batches_meet_every_voxel_once_a_round(case):
    slabs = slabs_of(case.mask)
    batches = _batches(slabs, 0.25, seeded(0, "test"))
    met = torch.zeros(slabs.n_points)
    sizes = []
    for _ in range(4):
        part, at = next(batches)
        assert part.n_points == len(at)
        met[at] += 1
        sizes.append(len(at))
    assert torch.equal(met, torch.ones_like(met))
    assert max(sizes) < 1.1 * min(sizes)
    _, again = next(batches)
    assert len(again) != sizes[0], "drawn anew in each round"
    part, at = next(_batches(slabs, 1.0, seeded(0, "test")))
    assert part is slabs
    assert at == slice(None)


def test_same_seed_in_another_process_same_bytes():
    code = (
        "import dataclasses, hashlib, torch\n"
        "import test_fit\n"
        "torch.set_num_threads(1)\n"
        "done = test_fit.run(test_fit.make_case(), dataclasses.replace(test_fit.QUICK, n_steps=4), 5)\n"
        "print(hashlib.sha256(done.image.numpy().tobytes() + done.prob.numpy().tobytes()).hexdigest())\n"
    )
    here = Path(__file__).resolve()
    path = os.pathsep.join([str(here.parent), str(here.parents[1]), str(here.parents[2])])
    there = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        done = run(make_case(), dataclasses.replace(QUICK, n_steps=4), 5)
    finally:
        torch.set_num_threads(threads)
    ours = hashlib.sha256(done.image.numpy().tobytes() + done.prob.numpy().tobytes()).hexdigest()
    assert there.stdout.strip() == ours


def test_target_is_found_again_up_to_the_stated_part(case):
    seen = []

    def resegment(image):
        seen.append(image.clone())
        return case.tissues.prob.flip(0)  # CSF and WM change places

    settings = dataclasses.replace(QUICK, n_steps=24, refresh_at=0.25)
    done = run(case, settings, resegment=resegment)
    assert settings.refreshes == (3, 6)
    assert len(seen) == 2
    assert seen[0].shape == case.lattice.shape
    assert not torch.equal(seen[0], seen[1]), "the image as it was then"
    core = case.mask & (case.tissues.of("WM") > 0.99)
    # Tissues are where the target is, however little of the detail the field could have learnt by then.
    assert float(done.prob[0, core].mean()) > 0.85
    assert float(done.prob[2, core].mean()) < 0.1
    assert float(run(case, settings).prob[2, core].mean()) > 0.9


CHANGES = {
    "field": FieldSettings(spacings_mm=(20.0, 10.0)),
    "n_steps": 7,
    "learning_rate": 0.01,
    "tv_weight": 3.0,
    "tv_smoothing": 0.1,
    "tissue_tv_weight": 0.05,
    "tissue_weight": 5.0,
    "refresh_at": 0.9,
    "batch": 0.5,
}


def test_there_is_a_change_for_every_setting():
    assert CHANGES.keys() == {f.name for f in dataclasses.fields(FitSettings)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_fit(case, name):
    base = dataclasses.replace(QUICK, n_steps=6)

    def result(settings):
        done = run(case, settings, resegment=lambda image: case.tissues.prob.flip(0))
        return torch.cat([done.image[None], done.prob])

    assert not torch.allclose(result(base), result(dataclasses.replace(base, **{name: CHANGES[name]})), atol=1e-5)


def test_noise_weighs_data_against_smoothness(case):
    """With ten times the noise the same scan says less: the image gets flatter."""
    spacing = case.lattice.spacing_mm
    tight, loose = (
        run(case, dataclasses.replace(QUICK, n_steps=20), data=OneScan(case.scan, case.operator, sd)).image
        for sd in (SD, 10 * SD)
    )
    assert total_variation(loose, spacing, 0.0) < 0.9 * total_variation(tight, spacing, 0.0)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_steps": 0},
        {"learning_rate": 0.0},
        {"tv_weight": -1.0},
        {"tissue_weight": -0.1},
        {"tissue_tv_weight": -0.1},
        {"tv_smoothing": 0.0},
        {"refresh_at": 1.5},
        {"refresh_at": -0.1},
        {"batch": 0.0},
        {"batch": 1.1},
    ],
    ids=str,
)
def test_settings_that_make_no_fit(bad):
    with pytest.raises(BadInputError, match="a fit needs"):
        FitSettings(**bad)


def test_variation_of_tissues_makes_them_smoother(case):
    spacing = case.lattice.spacing_mm
    prob = case.tissues.prob + 0.3 * torch.rand(case.tissues.prob.shape, generator=seeded(0, "speckle")) * case.mask
    rough = TissueMap(prob / prob.sum(0).clamp_min(1e-6), case.tissues.names, case.lattice)
    settings = dataclasses.replace(QUICK, n_steps=20, tissue_weight=0.02)
    free, held = (run(case, dataclasses.replace(settings, tissue_tv_weight=w), tissues=rough).prob for w in (0.0, 0.5))
    assert total_variation(held, spacing, 0.0) < 0.95 * total_variation(free, spacing, 0.0)


def test_absolute_errors_withstand_a_spike(case):
    """One voxel of ten times the brightest signal: squares follow it, absolute values do not."""
    broken = case.scan.clone()
    broken[19, 19, 9] = 10.0
    rician, absolute = (
        run(case, data=OneScan(broken, case.operator, SD, likelihood)).image
        for likelihood in (rician_misfit, absolute_misfit)
    )
    around = (slice(17, 22), slice(17, 22), slice(16, 21))
    errors = [float((image - case.truth)[around].abs().max()) for image in (rician, absolute)]
    assert errors[1] < 0.5 * errors[0]


def test_bias_is_found_with_the_image(case):
    """A field of +-20 % across the head: little of it is left in the image that knows of it."""
    ramp = torch.linspace(0.8, 1.2, case.lattice.shape[0])[:, None, None].expand(case.lattice.shape)
    shaded = add_noise(predict(case.operator, case.truth * ramp), SD, seeded(1, "shaded"))
    start = (case.start * ramp)[None]
    plain = OneScan(shaded, case.operator, SD)
    data, flat = with_bias(plain, start, case.tissues.prob, case.lattice.spacing_mm)
    core = case.mask & (case.tissues.of("WM") > 0.99)

    def slope(image):
        x, y = ramp[core] - ramp[core].mean(), image[core] - image[core].mean()
        return float((x * y).sum() / (x * x).sum())

    found, without = (run(case, data=d, start=s) for d, s in ((data, flat), (plain, start)))
    assert slope(without.image) > 0.8
    assert abs(slope(found.image)) < 0.25 * slope(without.image)
    assert found.data.bias is not data.bias, "it is estimated again in the fit"


def test_divergence_is_an_error_and_not_an_image(case):
    broken = case.scan.clone()
    broken[10, 10, 10] = float("inf")
    with pytest.raises(BadInputError, match="the fit diverged"):
        run(case, data=OneScan(broken, case.operator, SD))


def test_empty_foreground_is_an_error(case):
    with pytest.raises(BadInputError, match="foreground is empty"):
        run(case, foreground=torch.zeros_like(case.mask))


def test_a_contrast_that_is_given_twice_keeps_the_balance_of_data_and_variation(case):
    """Two equal images with two equal scans: data and variation both count twice, the objective a voxel stays."""
    scan_grid = grid((38, 38, 19), (5.0, 5.0, 10.0))
    stack = Stack(Volume(case.scan, scan_grid), SD, gaussian_psf(scan_grid.spacing_mm))
    no_tissues = SimpleNamespace(loss=lambda logits: logits.new_zeros(()))
    found = []
    for n in (1, 2):
        data = Stacks(tuple(dataclasses.replace(stack, contrast=c) for c in range(n)), case.lattice)
        start = (case.start * case.mask)[None].repeat(n, 1, 1, 1)
        problem = _Problem(case.lattice, start, case.mask, case.mask, case.tissues.prob[:, case.mask])
        outputs = torch.zeros(n + 3, int(case.mask.sum()))
        settings = dataclasses.replace(QUICK, tv_weight=2.0, tv_smoothing=1e-6)
        found.append(float(problem.objective(outputs, data, no_tissues, None, settings)) / data.n_values)
    assert found[1] == pytest.approx(found[0], rel=1e-3)
