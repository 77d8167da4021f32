import math

import pytest
import torch

from mrcore.errors import BadInputError, GridMismatchError
from mrcore.grid import with_spacing
from mrcore.noise import add_noise, seeded
from mrcore.noise_estimate import BACKGROUND, RESIDUAL
from mrcore.phantom import digital_head, head_grid
from mrcore.volume import TISSUES, TissueMap, Volume
from ulfsim.measure import GIVEN, measure, pairs, tissue_cores

LEVEL = {"CSF": 1.0, "GM": 6.0, "WM": 8.0}
SD = 0.5


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(56), seed=2)


@pytest.fixture(scope="module")
def scan(head):
    """Piecewise constant tissues of known level, with Rician noise; CSF has an SNR of 2."""
    clean = sum(LEVEL[name] * (head.tissues.prob.argmax(0) == i) for i, name in enumerate(TISSUES)) * head.mask
    return Volume(add_noise(clean.float(), SD, seeded(0, "measure")), head.grid)


def test_means_are_free_of_the_rician_bias(head, scan):
    found = measure(scan, head.tissues)
    assert found.noise_method == BACKGROUND
    assert found.noise_sd == pytest.approx(SD, rel=0.01)
    for name, level in LEVEL.items():
        assert found.mean_of(name) == pytest.approx(level, rel=0.02)
    # Without the correction CSF would read 13 % too high.
    assert float(scan.data[tissue_cores(head.tissues)[0][0]].mean()) > 1.1 * LEVEL["CSF"]


def test_snr_cnr_and_michelson_by_hand(head, scan):
    found = measure(scan, head.tissues, noise_sd=0.25)
    assert found.noise_method == GIVEN
    assert found.snr == tuple(4 * m for m in found.mean)
    assert found.cnr("WM", "GM") == pytest.approx(4 * (found.mean[2] - found.mean[1]))
    assert found.cnr("GM", "WM") == -found.cnr("WM", "GM")
    assert found.michelson("WM", "GM") == pytest.approx((8 - 6) / (8 + 6), abs=0.02)


def test_pure_noise_has_no_signal(head):
    noise = Volume(add_noise(torch.zeros(head.grid.shape), 1.0, seeded(3, "pure")), head.grid)
    assert max(measure(noise, head.tissues).snr) < 0.3


def test_anatomy_within_a_tissue_does_not_count_as_noise(head, scan):
    # A spread of 20 % in WM would lower sqrt(E[M^2]) arguments, but not a mean.
    wave = 1 + 0.2 * torch.sin(torch.arange(head.grid.shape[0]) / 2.0)[:, None, None]
    found = measure(Volume(scan.data * wave, head.grid), head.tissues, noise_sd=SD)
    core = tissue_cores(head.tissues)[0][2]
    assert found.mean_of("WM") == pytest.approx(8 * float(wave.expand(head.grid.shape)[core].mean()), rel=0.01)


def test_noise_of_a_stripped_scan_comes_from_residuals_and_is_said(head, scan):
    found = measure(Volume(scan.data * head.mask, head.grid), head.tissues)
    assert found.noise_method == RESIDUAL
    assert found.noise_sd == pytest.approx(SD, rel=0.08)
    assert any("second differences" in note for note in found.notes)


def test_no_noise_gives_infinite_snr(head):
    clean = Volume(head.image.data, head.grid)
    assert measure(clean, head.tissues, noise_sd=0.0).snr == (math.inf,) * 3


def test_cores_shrink_where_they_can_and_say_where_not(head):
    cores, notes = tissue_cores(head.tissues)
    white = head.tissues.of("WM") > 0.9
    assert bool((cores[2] & ~white).sum() == 0)
    assert int(cores[2].sum()) < int(white.sum())
    for axis in range(3):
        assert bool((cores[2] <= white.roll(1, axis)).all())
    assert not any(note.startswith("WM") for note in notes)
    large = tissue_cores(head.tissues, n_enough=10**9)
    assert torch.equal(large[0][2], white)
    assert any(note.startswith("WM: core of only") for note in large[1])


def test_a_tissue_without_core_falls_back_to_its_best_voxels(head):
    cores, notes = tissue_cores(TissueMap(head.tissues.prob * 0.6, TISSUES, head.grid))
    assert [int(core.sum()) for core in cores] == [50, 50, 50]
    assert float(head.tissues.of("GM")[cores[1]].min()) > 0.99
    assert sum("no core" in note for note in notes) == 3


def test_a_missing_tissue_is_an_error(head):
    prob = head.tissues.prob.clone()
    prob[0] = 0
    with pytest.raises(BadInputError, match="no CSF at all"):
        tissue_cores(TissueMap(prob, TISSUES, head.grid))


def test_another_grid_is_refused(head):
    other = with_spacing(head.grid, (4.0, 4.0, 4.0))
    with pytest.raises(GridMismatchError, match="same grid"):
        measure(Volume(torch.zeros(other.shape), other), head.tissues)


def test_complex_images_and_unknown_tissues_are_refused(head, scan):
    with pytest.raises(BadInputError, match="magnitude"):
        measure(Volume(scan.data.to(torch.complex64), head.grid), head.tissues)
    with pytest.raises(BadInputError, match="'bone'"):
        measure(scan, head.tissues, noise_sd=1.0).mean_of("bone")


def test_pairs_put_the_brighter_tissue_first():
    assert pairs(TISSUES) == (("WM", "GM"), ("WM", "CSF"), ("GM", "CSF"))
