"""The verb `quantify` on two discs of known T1, T2 and PD, simulated frame by frame."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from notebook import assert_shows_itself

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.noise import complex_noise
from mrcore.random import seeded
from mrcore.signals.mrf_sequence import MrfSequence
from mrkit import quantify
from mrkit.quantification.methods import METHODS, LeastSquaresSettings, denoised_contrasts, least_squares
from mrkit.quantification.quantify import (
    QuantifySettings,
    _left_over,
    object_mask,
    prepare_raw,
    quantify_prepared,
    weighted_volume,
)
from recon.coils.loops import loop_coil_maps
from recon.contrasts import Contrast
from recon.dictionary.dictionary import build_dictionary, compress_dictionary, fisp_model, log_grid
from recon.encoding.subspace import compress, subspace_of
from recon.methods.maps import maps_of
from recon.methods.mri2qmap import Mri2QmapSettings
from recon.simulation import simulate_raw
from recon.trajectories.builders import radial, stack_of_spirals

GRID = Grid((32, 32, 1), np.array([[-4.0, 0, 0, 60], [0, 4.0, 0, -70], [0, 0, 6.0, 10], [0, 0, 0, 1]]))
SEQUENCE = MrfSequence(
    20 + 40 * torch.sin(torch.linspace(0, 9.5, 120)).abs(), torch.tensor(0.012), torch.tensor(0.002), ti_s=0.02
)
QUICK = QuantifySettings(t1_range_s=(0.3, 3.0), t2_range_s=(0.02, 0.4), step=0.1)
LEAST_SQUARES = least_squares()
SETTLED = least_squares(LeastSquaresSettings(30))


def discs():
    """T1 0.8 s and T2 60 ms, and in a smaller disc away from the centre 1.5 s and 110 ms with three quarters of PD."""
    x, y = torch.meshgrid(*[(torch.arange(32) - 16) / 16.0] * 2, indexing="ij")
    large, small = (x**2 + y**2).sqrt() < 0.75, ((x - 0.2) ** 2 + (y + 0.3) ** 2).sqrt() < 0.3
    t1_s, t2_s = torch.where(small, 1.5, 0.8)[..., None], torch.where(small, 0.11, 0.06)[..., None]
    pd = (large * torch.where(small, 0.75, 1.0))[..., None] * torch.polar(torch.ones(()), torch.tensor(0.6))
    return t1_s, t2_s, pd.to(torch.complex64), large[..., None], small[..., None]


@cache
def scan(snr=None, lines=4, seed=0):
    t1_s, t2_s, pd, *_ = discs()
    trajectory = radial(GRID, SEQUENCE.n_frames, lines_per_frame=lines)
    trajectory = replace(trajectory, k_cyc_per_mm=trajectory.k_cyc_per_mm.float())
    coils = loop_coil_maps(GRID, 4)
    noise = {"snr": snr, "n_noise": 500} if snr else {}
    return simulate_raw(t1_s, t2_s, pd, SEQUENCE, trajectory, coils, seed=seed, **noise)


@cache
def plain():
    return quantify(scan(), method=SETTLED, settings=QUICK)


def test_least_squares_weighs_samples_by_the_root_of_the_density_compensation():
    """Gridding weighs by the compensation itself, least squares by weights whose square that is."""
    ready = prepare_raw(scan(), QUICK)
    assert torch.allclose(ready.encoding.weights.square(), ready.density)
    assert float(ready.density.max() / ready.density.min()) > 2


def test_maps_show_themselves():
    assert_shows_itself(plain(), "Quantified(T1, T2, PD;", " ms")


def inside(of):
    """The disc less its border of two voxels."""
    kept = of[..., 0]
    for axis in (0, 1):
        for shift in (-2, -1, 1, 2):
            kept = kept & of[..., 0].roll(shift, axis)
    return kept[..., None]


def test_maps_are_right_where_they_belong_on_the_grid_of_the_data():
    t1_s, t2_s, _, large, small = discs()
    done = plain()
    assert done.t1_s.grid.matches(GRID)
    for core in (inside(small), inside(large & ~small)):
        assert float((done.t1_s.data / t1_s - 1)[core].abs().median()) < 0.02
        assert float((done.t2_s.data / t2_s - 1)[core].abs().median()) < 0.06
    ratio = done.pd.data.abs()[inside(small)].median() / done.pd.data.abs()[inside(large & ~small)].median()
    assert float(ratio) == pytest.approx(0.75, rel=0.1)
    assert done.b1 is None


def test_the_mask_is_the_object_and_nothing_is_beside_it():
    *_, large, small = discs()
    done = plain()
    assert bool(done.mask[large].all())
    assert float(done.mask.sum()) < 1.3 * float(large.sum())
    for volume in (done.t1_s, done.t2_s, done.t1_sd_s, done.t2_sd_s, done.pd_sd, done.residual, done.pd):
        assert float(volume.data[~done.mask].abs().max()) == 0
    given = quantify(scan(), method=LEAST_SQUARES, settings=QUICK, mask=small)
    assert float(given.t1_s.data[~small].abs().max()) == 0
    assert bool((given.t1_s.data[small] > 1).all())


def test_the_sd_are_what_repeated_noise_shows():
    raw = scan(snr=8.0)
    ready = prepare_raw(raw, QUICK)
    core = inside(discs()[3])
    first, *again = [
        quantify_prepared(
            replace(
                ready,
                raw=replace(
                    ready.raw,
                    samples=ready.raw.samples + complex_noise(ready.raw.samples.shape, 1.0, seeded(i, "again")),
                ),
            ),
            LEAST_SQUARES,
        )
        for i in range(5)
    ]
    for quantity in ("t1", "t2"):
        maps = torch.stack([getattr(r, f"{quantity}_s").data[core] for r in (first, *again)])
        text = float(getattr(first, f"{quantity}_sd_s").data[core].square().mean().sqrt())
        shown = float(maps.std(0).square().mean().sqrt())
        assert 0.5 < text / shown < 1.4, (quantity, text, shown)
    maps = torch.stack([r.pd.data.abs()[core] for r in (first, *again)])
    text, shown = (float(sd.square().mean().sqrt()) for sd in (first.pd_sd.data[core], maps.std(0)))
    assert 0.5 < text / shown < 1.4, ("pd", text, shown)


def test_more_noise_means_larger_sd_and_without_a_noise_scan_a_note():
    quiet, loud = (quantify(scan(snr=snr), method=LEAST_SQUARES, settings=QUICK) for snr in (40.0, 10.0))
    core = inside(discs()[3])
    ratio = loud.t1_sd_s.data[core].median() / quiet.t1_sd_s.data[core].median()
    assert float(ratio) == pytest.approx(4, rel=0.3)
    assert float(loud.residual.data[core].median()) > 2 * float(quiet.residual.data[core].median())
    assert not any("noise scan" in note for note in loud.notes)
    assert any("noise scan" in note for note in plain().notes)


def test_a_flip_angle_that_is_off_is_found():
    t1_s, t2_s, pd, large, _ = discs()
    raw = scan()
    off = simulate_raw(
        t1_s, t2_s, pd, SEQUENCE, raw.trajectory, loop_coil_maps(GRID, 4), b1=torch.full(GRID.shape, 0.9)
    )
    done = quantify(off, method=LEAST_SQUARES, settings=replace(QUICK, b1=(0.8, 0.9, 1.0, 1.1)))
    assert done.b1 is not None
    assert float(done.b1.data[inside(large)].median()) == pytest.approx(0.9)


def test_coils_compress_and_given_maps_are_used():
    few = quantify(scan(snr=40.0), method=LEAST_SQUARES, settings=replace(QUICK, n_coils=3))
    given = quantify(scan(), method=LEAST_SQUARES, settings=QUICK, coil_maps=2 * loop_coil_maps(GRID, 4))
    core = inside(discs()[3])
    assert float((few.t1_s.data / plain().t1_s.data - 1)[core].abs().median()) < 0.05
    # PD is per unit of the coil maps.
    assert float(given.pd.data.abs()[core].median()) == pytest.approx(0.5, rel=0.05)


def test_mri2qmap_is_the_usual_method_and_denoises():
    t1_s, *_, large, small = discs()
    raw = scan(snr=8.0, lines=2)
    ready = prepare_raw(raw, QUICK)
    usual = denoised_contrasts(Mri2QmapSettings(n_iter=4))
    errors = [
        float((quantify_prepared(ready, m).t1_s.data / t1_s - 1)[inside(large & ~small)].abs().mean())
        for m in (usual, LEAST_SQUARES)
    ]
    assert errors[0] < 0.8 * errors[1]
    assert next(iter(METHODS)) == "mri2qmap"


def test_computed_images_follow_the_maps():
    done = plain()
    image = weighted_volume(done, Contrast("any", tr_s=0.5, te_s=0.02))
    core = inside(discs()[3])
    expected = done.pd.data.abs() * (1 - torch.exp(-0.5 / done.t1_s.data)) * torch.exp(-0.02 / done.t2_s.data)
    torch.testing.assert_close(image.data[core], expected[core])
    assert float(image.data[~done.mask].abs().max()) == 0


def test_a_sequence_that_is_given_stands_for_that_of_the_data():
    raw = replace(scan(), sequence=None)
    with pytest.raises(BadInputError, match="sequence"):
        quantify(raw, settings=QUICK)
    short = MrfSequence(SEQUENCE.flip_deg[:60], SEQUENCE.tr_s[:60], SEQUENCE.te_s[:60], ti_s=0.02)
    with pytest.raises(BadInputError, match="60 frames, the data have 120"):
        quantify(raw, short, settings=QUICK)
    assert quantify(raw, SEQUENCE, method=SETTLED, settings=QUICK).t1_s.data.equal(plain().t1_s.data)


@pytest.mark.parametrize(
    ("given", "error", "part"),
    [
        ({"coil_maps": torch.ones((3, 32, 32, 1))}, BadInputError, "are coils missing"),
        ({"mask": torch.ones((32, 16, 1), dtype=torch.bool)}, GridMismatchError, "grid"),
        ({"settings": replace(QUICK, n_coils=9)}, BadInputError, "4 coils"),
        ({"settings": replace(QUICK, rank=121)}, BadInputError, "frames"),
        ({"mask": torch.zeros((32, 32, 1), dtype=torch.bool)}, BadInputError, "empty"),
    ],
)
def test_what_does_not_fit_is_refused(given, error, part):
    with pytest.raises(error, match=part):
        quantify(scan(), **({"settings": QUICK} | given))


def test_volumes_are_quantified_as_slices_are():
    grid = Grid((16, 16, 6), np.diag([5.0, 5.0, 6.0, 1.0]))
    places = torch.meshgrid(
        *[(torch.arange(n) - n // 2) * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True)], indexing="ij"
    )
    ball = sum(place**2 for place in places).sqrt() < 26
    t1_s, t2_s = torch.full(grid.shape, 1.1), torch.full(grid.shape, 0.08)
    trajectory = stack_of_spirals(grid, SEQUENCE.n_frames, n_interleaves=4, partition_step=3)
    coils = loop_coil_maps(grid, 4)
    raw = simulate_raw(t1_s, t2_s, ball.to(torch.complex64), SEQUENCE, trajectory, coils, snr=30.0, n_noise=200)
    done = quantify(raw, method=denoised_contrasts(Mri2QmapSettings(n_iter=2)), settings=QUICK)
    core = sum(place**2 for place in places).sqrt() < 16
    assert float((done.t1_s.data / 1.1 - 1)[core].abs().median()) < 0.05
    assert bool(done.mask[ball].all())
    assert 0 < float(done.t1_sd_s.data[core].median()) < 0.5


def test_the_mask_keeps_dark_holes_and_drops_specks():
    image = torch.zeros(20, 20, 2)
    image[4:16, 4:16] = 1.0
    image[8:10, 8:10] = 0.0
    image[0, 19, 0] = 1.0
    mask = object_mask(image)
    assert bool(mask[8:10, 8:10].all())
    assert not bool(mask[0, 19, 0])
    assert bool(object_mask(torch.zeros(4, 4, 1)).all())


def test_noise_that_a_match_leaves_over_is_that_of_the_coefficients():
    """T1, T2 and the two parts of PD take four numbers of each voxel; what is left of the noise is scaled up to it."""
    model = fisp_model(SEQUENCE)
    grid = log_grid((0.5, 1.4), (0.03, 0.12), 0.03)
    full = build_dictionary(grid, model, SEQUENCE.n_frames)
    dictionary = compress_dictionary(full, subspace_of(full.atoms, 5))
    t1_s, t2_s = torch.full((1,), 0.81), torch.full((1,), 0.063)
    atom = compress(dictionary.subspace, model(t1_s, t2_s, torch.ones(1)))[0]
    noise_sd = 0.05 * float(atom.norm())
    clean = (atom + 0j)[:, None, None, None].expand(5, 40, 40, 1)
    noise = complex_noise((5, 40, 40, 1), noise_sd, seeded(0, "left over"))
    everywhere = torch.ones(40, 40, 1, dtype=torch.bool)
    found = _left_over(clean + noise, maps_of(dictionary, clean + noise, everywhere))
    assert float(found.square().mean().sqrt()) == pytest.approx(noise_sd, rel=0.06)
