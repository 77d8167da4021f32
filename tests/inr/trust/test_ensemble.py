"""Ensembles, held-out voxels and residuals on problems whose answers are known."""

import math

import pytest
import torch
from operators import grid

from inr.scans.heldout import N_FOLDS, filled, held_out, smooth_start, split
from inr.scans.single import OneScan
from inr.scans.stacks import Stack, Stacks
from inr.trust.ensemble import ensemble, whiteness
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator
from mrcore.random import seeded

F64 = torch.float64
LATTICE, SCAN = grid((10, 10, 8), (2.0,) * 3), grid((10, 10, 4), (2.0, 2.0, 4.0))
SD = 0.01
PSF = gaussian_psf(SCAN.spacing_mm)


class Toy:
    """A linear-Gaussian problem: smooth images about 3, whose posterior is known and can be drawn from."""

    def __init__(self) -> None:
        self.operator = imaging_operator(LATTICE, SCAN, gaussian_psf(SCAN.spacing_mm), dtype=F64)
        n = math.prod(LATTICE.shape)
        eye = torch.eye(n, dtype=F64).reshape(n, *LATTICE.shape)
        self.matrix = self.operator(eye).reshape(n, -1).T
        axes = [torch.arange(m, dtype=F64) * 2.0 for m in LATTICE.shape]
        self.prior = torch.ones(1, 1, dtype=F64)
        for axis in axes:
            kernel = torch.exp(-((axis[:, None] - axis) ** 2) / (2 * 4.0**2)) + 1e-3 * torch.eye(len(axis), dtype=F64)
            self.prior = torch.kron(self.prior, kernel)
        self.prior *= 0.3**2
        self.root = torch.linalg.cholesky(self.prior)
        self.gains: dict[int, torch.Tensor] = {}

    def truth(self, seed: int) -> torch.Tensor:
        drawn = torch.randn(len(self.root), generator=seeded(seed, "truth"), dtype=F64)
        return 3 + (self.root @ drawn).reshape(LATTICE.shape)

    def scan(self, truth: torch.Tensor, seed: int) -> torch.Tensor:
        noise = torch.randn(SCAN.shape, generator=seeded(seed, "noise"), dtype=F64)
        return self.operator(truth) + SD * noise

    def draw(self, seen, width: float = 1.0) -> torch.Tensor:
        """Draw from the posterior given the voxels seen; `width` shrinks its spread about the mean."""
        kept = ~seen.held_out[0].reshape(-1)
        matrix = self.matrix[kept]
        key = int(seen.held_out[0].reshape(-1).nonzero()[0])
        if key not in self.gains:
            cross = self.prior @ matrix.T
            self.gains[key] = torch.linalg.solve(matrix @ cross + SD**2 * torch.eye(len(matrix), dtype=F64), cross.T).T
        generator = seeded(seen.seed, f"draw {key}")
        x = self.root @ torch.randn(len(self.root), generator=generator, dtype=F64)
        y = matrix @ x + SD * torch.randn(len(matrix), generator=generator, dtype=F64)
        # The data less the mean of 3, and a draw of prior and noise carried through the same gain.
        data = seen.data.scan.reshape(-1)[kept] - 3 * matrix.sum(1)
        mean = self.gains[key] @ data
        return 3 + (mean + width * (x - self.gains[key] @ y)).reshape(1, *LATTICE.shape)


@pytest.fixture(scope="module")
def toy():
    return Toy()


EVERYWHERE = torch.ones(SCAN.shape, dtype=torch.bool)


@pytest.mark.parametrize(("width", "n_truths"), [(1.0, 8), (0.3, 4)])
def test_calibrated_ensemble_covers_the_truth_as_often_as_it_says(toy, width, n_truths):
    """Draws from the posterior need no scale, draws shrunk to a third need 3.3; then both cover alike."""
    covered, scales, held = [], [], []
    for seed in range(n_truths):
        truth = toy.truth(seed)
        found = ensemble(
            OneScan(toy.scan(truth, seed), toy.operator, SD),
            SCAN.spacing_mm,
            [EVERYWHERE],
            lambda seen: toy.draw(seen, width),
            100 * seed,
            n_folds=10,
            n_seeds=4,
        )
        z = (found.mean[0] - truth) / found.sd[0]
        covered.append(torch.stack([(z.abs() < 1).double().mean(), (z.abs() < 1.96).double().mean()]))
        scales.append(found.held_out.sd_scale * width)
        held.append((found.held_out.coverage_68, found.held_out.coverage_95))
        assert found.n_members == 40
        assert found.held_out.n_voxels == 160
    # Errors of neighbours go together: the coverage of a truth has an sd of 0.11 and 0.05, that of its scale is 0.15.
    deviation = 2 / math.sqrt(n_truths)
    within, twice = torch.stack(covered).mean(0).tolist()
    assert within == pytest.approx(0.683, abs=0.11 * deviation)
    assert twice == pytest.approx(0.95, abs=0.05 * deviation)
    assert sum(scales) / n_truths == pytest.approx(1.0, abs=0.15 * deviation)
    # Spreads of four fits are uncertain themselves: tails are a little heavier than normal.
    assert sum(a for a, _ in held) / n_truths == pytest.approx(0.683, abs=0.05)
    assert sum(b for _, b in held) / n_truths == pytest.approx(0.95, abs=0.03)


def test_held_out_errors_are_those_of_the_posterior(toy):
    """The error of an unseen voxel is the posterior's and the noise's; cubic, which knows less, does worse."""
    truth = toy.truth(0)
    scan = toy.scan(truth, 0)
    data = OneScan(scan, toy.operator, SD)
    found = ensemble(data, SCAN.spacing_mm, [EVERYWHERE], toy.draw, 0, n_folds=5, n_seeds=4).held_out
    assert 0.9 < found.rms < found.rms_cubic
    worse = ensemble(
        data,
        SCAN.spacing_mm,
        [EVERYWHERE],
        lambda seen: toy.draw(seen) + 0.3,
        0,
        n_folds=5,
        n_seeds=4,
    )
    assert worse.held_out.rms > 5
    assert worse.held_out.sd_scale > 3 * found.sd_scale
    # What is wrong in all fits alike; draws from the posterior have nothing of it.
    assert worse.held_out.excess == pytest.approx((0.3 / SD) ** 2, rel=0.25)
    assert found.excess < 0.05 * worse.held_out.excess


def test_scans_with_more_noise_count_less(toy):
    """Two scans of one object, one with ten times the noise: errors are taken in the noise of each."""
    truth = toy.truth(0)
    quiet, loud = (
        Stack(Volume(toy.operator(truth) + sd * torch.randn(SCAN.shape, generator=seeded(1, f"{sd}")), SCAN), sd, PSF)
        for sd in (SD, 10 * SD)
    )
    data = Stacks((quiet, loud), LATTICE)
    sd = 0.1 * SD

    def near(seen):
        return truth[None] + sd * torch.randn((1, *LATTICE.shape), generator=seeded(seen.seed, "near"), dtype=F64)

    found = ensemble(data, SCAN.spacing_mm, [EVERYWHERE, EVERYWHERE], near, 0, n_folds=5, n_seeds=4)
    assert found.held_out.rms == pytest.approx(1.0, abs=0.1), "the truth is known: what is left is the noise of each"
    assert found.by_contrast == (found.held_out,)
    assert found.mean.shape == (1, *LATTICE.shape)


def test_folds_are_disjoint_and_their_voxels_far_apart():
    shape = (11, 13, 9)
    count = torch.stack([held_out(shape, fold).int() for fold in range(N_FOLDS)]).sum(0)
    assert torch.equal(count, torch.ones_like(count))
    hidden = held_out(shape, 3)
    assert hidden.float().mean().item() == pytest.approx(0.04, abs=0.01)
    for axis in range(3):
        for lag in range(1, 5):
            n = shape[axis] - lag
            assert not (hidden.narrow(axis, 0, n) & hidden.narrow(axis, lag, n)).any()
    with pytest.raises(BadInputError, match="folds are 0 to 24"):
        held_out(shape, N_FOLDS)


def test_hidden_voxels_are_filled_from_their_neighbours_alone():
    x, y, _ = torch.meshgrid(*(torch.arange(n, dtype=F64) for n in SCAN.shape), indexing="ij")
    image = x**3 - 2 * x * y + y**2
    hidden = held_out(SCAN.shape, 4)
    broken = torch.where(hidden, 1e6, image)
    found = filled(broken, hidden, SCAN.spacing_mm)
    inner = torch.zeros_like(hidden)
    inner[2:-2, 2:-2] = True
    assert (hidden & inner).any()
    assert torch.allclose(found[hidden & inner], image[hidden & inner]), "cubics are interpolated exactly"
    assert torch.equal(found[~hidden], image[~hidden])
    assert found.abs().max() < 1e5


def test_a_split_says_nothing_of_hidden_voxels(toy):
    scan = toy.scan(toy.truth(0), 0)
    seen = split(toy.operator, scan, SCAN.spacing_mm, 2, seed=5)
    other = split(toy.operator, torch.where(seen.held_out, 99.0, scan), SCAN.spacing_mm, 2, seed=5)
    assert torch.equal(seen.scan, other.scan)
    assert torch.equal(seen.filled, other.filled)
    assert seen.operator(toy.truth(0))[seen.held_out].abs().max() == 0
    assert torch.equal(seen.scan[~seen.held_out], scan[~seen.held_out])
    assert seen.seed == 5


def test_a_start_knows_nothing_of_hidden_voxels(toy):
    scan = toy.scan(toy.truth(0), 0)
    hidden = held_out(SCAN.shape, 0)
    one, other, whole = (
        smooth_start(split(toy.operator, scan + change * hidden, SCAN.spacing_mm, fold, 0), SCAN, LATTICE, SD)
        for change, fold in ((0.0, 0), (5.0, 0), (5.0, 1))
    )
    assert torch.allclose(one, other, atol=1e-6)
    assert not torch.allclose(one, whole, atol=0.1)


def test_variances_are_those_of_a_sample(toy):
    """Two fits that differ by d have the variance d^2 / 2: the mean that they are about is their own."""
    apart = {0: -0.1, 1: 0.1}

    def fit_once(seen):
        return torch.full((1, *LATTICE.shape), 3.0, dtype=F64) + apart[seen.seed]

    data = OneScan(toy.scan(toy.truth(1), 1), toy.operator, SD)
    found = ensemble(data, SCAN.spacing_mm, [torch.ones(SCAN.shape, dtype=torch.bool)], fit_once, 0, n_folds=1)
    assert torch.allclose(found.seed_variance, torch.full_like(found.mean, 0.02))
    assert torch.allclose(found.spread**2, torch.full_like(found.mean, 0.02))


def test_ensembles_that_cannot_be(toy):
    scan = toy.scan(toy.truth(0), 0)

    def of(fit_once=toy.draw, mask=EVERYWHERE, n_folds=2, n_seeds=2):
        data = OneScan(scan, toy.operator, SD)
        return ensemble(data, SCAN.spacing_mm, [mask], fit_once, 0, n_folds, n_seeds)

    with pytest.raises(BadInputError, match="2 seeds or more"):
        of(n_seeds=1)
    with pytest.raises(BadInputError, match="1 to 25 folds"):
        of(n_folds=26)
    with pytest.raises(BadInputError, match="no held-out voxel"):
        of(mask=~EVERYWHERE)
    with pytest.raises(BadInputError, match="no spread"):
        of(fit_once=lambda _: torch.full((1, *LATTICE.shape), 3.0, dtype=F64))


def test_white_residuals_are_white():
    z = torch.randn(20, 24, 22, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(z.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    found = whiteness(z, mask)
    assert found.n_voxels == int(mask.sum())
    assert found.mean == pytest.approx(0, abs=4 / math.sqrt(found.n_voxels))
    assert found.sd == pytest.approx(1, abs=0.03)
    assert found.worst < 4
    pairs = int((mask[1:] & mask[:-1]).sum())
    assert found.standard_error[0][0] == pytest.approx(1 / math.sqrt(pairs))


def test_moving_averages_have_their_correlation_on_their_axis():
    z = torch.randn(20, 25, 22, generator=torch.Generator().manual_seed(0))
    averaged = (z[:, 1:] + z[:, :-1]) / math.sqrt(2)
    everywhere = torch.ones(averaged.shape, dtype=torch.bool)
    found = whiteness(2 * averaged + 0.5, everywhere)
    assert found.autocorrelation[1][0] == pytest.approx(0.5, abs=0.04)
    assert abs(found.autocorrelation[1][1]) < 0.04
    assert abs(found.autocorrelation[0][0]) < 0.04
    assert (found.mean, found.sd) == (pytest.approx(0.5, abs=0.1), pytest.approx(2, abs=0.1))
    assert found.worst > 20


def test_lags_without_pairs_count_for_nothing():
    z = torch.randn(20, 20, 2, generator=torch.Generator().manual_seed(0))
    found = whiteness(z, torch.ones(z.shape, dtype=torch.bool), n_lags=2)
    assert found.autocorrelation[2][1] == 0
    assert math.isinf(found.standard_error[2][1])
    assert found.worst < 4


def test_residuals_that_cannot_be_measured():
    everywhere = torch.ones(10, 10, 10, dtype=torch.bool)
    with pytest.raises(BadInputError, match="100 voxels"):
        whiteness(torch.randn(3, 3, 3), torch.ones(3, 3, 3, dtype=torch.bool))
    with pytest.raises(BadInputError, match="all the same"):
        whiteness(torch.ones(10, 10, 10), everywhere)


def test_what_all_fits_get_wrong_alike_is_what_their_spread_does_not_explain(toy):
    """The truth is one more draw like the fits, which are all 0.04 too bright: only this is left."""
    sd = 0.1

    def drawn(seed):
        return 3 + sd * torch.randn((1, *LATTICE.shape), generator=seeded(seed, "draws"), dtype=F64)

    data = OneScan(toy.scan(drawn(10**6)[0], 3), toy.operator, SD)
    found = ensemble(
        data, SCAN.spacing_mm, [EVERYWHERE], lambda seen: drawn(seen.seed) + 0.04, 0, n_folds=20, n_seeds=2
    ).held_out
    of_spread = float(toy.operator(drawn(5)[0] - drawn(6)[0]).square().mean()) / 2 / SD**2
    assert of_spread > 8, "large enough to be seen if it were counted wrongly"
    assert found.excess == pytest.approx((0.04 / SD) ** 2, abs=0.4 * of_spread)
