import pytest
import torch

from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.phantom import digital_head, head_grid
from ulfsim.measurement.contrast import tissue_cores
from ulfsim.source.shares import _between, _tilted, signal_shares
from ulfsim.source.window import bounding_box, inner_tissues


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(48), seed=4)


def _shares(volume, tissues):
    """Shares on the whole grid."""
    window = bounding_box(tissues.prob)
    inner = inner_tissues(tissues, window)
    levels = [float(volume.data[window][core].mean()) for core in tissue_cores(inner)[0]]
    out = torch.zeros_like(tissues.prob)
    out[(slice(None), *window)] = signal_shares(volume, inner, window, levels)
    return out


def _levels(head):
    return torch.stack([head.image.data[p > 0.9999].mean() for p in head.tissues.prob])


def test_shares_of_mixed_voxels_by_hand(head):
    """Where the fractions explain the intensity, a share is p_t I_t / sum_s p_s I_s."""
    levels, prob = _levels(head), head.tissues.prob
    shares = _shares(head.image, head.tissues)
    mixed = (prob[1] > 0.2) & (prob[2] > 0.2)
    signal = prob[:, mixed] * levels[:, None]
    assert int(mixed.sum()) > 500
    assert torch.allclose(shares[:, mixed], signal / signal.sum(0), atol=0.03)
    # Half CSF, half WM has most of its signal from WM.
    assert float((shares[2] - prob[2])[mixed].mean()) > 0.02


def test_sums_per_voxel_stay(head):
    shares = _shares(head.image, head.tissues)
    assert torch.allclose(shares.sum(0), head.tissues.prob.sum(0), atol=1e-5)
    assert float(shares[:, ~head.mask].abs().max()) == 0


def test_pure_voxels_stay_pure(head):
    shares = _shares(head.image, head.tissues)
    for i, prob in enumerate(head.tissues.prob):
        assert float(shares[i][prob > 0.9999].min()) > 0.97


def test_labels_that_do_not_fit_the_intensity_give_way(head):
    """With hard labels of GM and WM the shares are still those of the true mixtures."""
    truth = _shares(head.image, head.tissues)
    mixed = head.tissues.prob[:2].amin(0).eq(0) & (head.tissues.prob[1] > 0.2) & (head.tissues.prob[2] > 0.2)
    hard = torch.zeros_like(head.tissues.prob).scatter(0, head.tissues.prob.argmax(0, keepdim=True), 1.0) * head.mask
    fitted = _shares(head.image, TissueMap(hard, TISSUES, head.grid))
    before, after = ((each - truth)[1][mixed].abs().mean() for each in (hard, fitted))
    assert float(before) > 0.25
    assert float(after) < 0.4 * float(before)


def test_a_bias_field_is_not_taken_for_tissue(head):
    ramp = torch.linspace(0.8, 1.25, head.grid.shape[1])[None, :, None]
    plain, biased = (_shares(Volume(head.image.data * b, head.grid), head.tissues) for b in (1.0, ramp))
    assert float((plain - biased).abs().sum(0)[head.mask].mean()) < 0.06


def test_scale_does_not_matter_and_darkness_is_no_error(head):
    plain, bright = (_shares(Volume(head.image.data * b, head.grid), head.tissues) for b in (1.0, 1000.0))
    assert torch.allclose(plain, bright, atol=1e-3)
    dark = _shares(Volume(torch.zeros(head.grid.shape), head.grid), head.tissues)
    assert torch.equal(dark, head.tissues.prob)


def _halved(fractions, levels, intensity):
    """The same tilt by halving the interval of l, in double precision."""
    logs = (fractions + 2e-3 * _between(levels, intensity)).log()
    low, high = torch.full_like(intensity, -60.0), torch.full_like(intensity, 60.0)
    for _ in range(50):
        middle = 0.5 * (low + high)
        too_dark = (levels * torch.softmax(logs + middle * levels, dim=0)).sum(0) < intensity
        low, high = torch.where(too_dark, middle, low), torch.where(too_dark, high, middle)
    return torch.softmax(logs + low * levels, dim=0)


@pytest.mark.parametrize("levels", [(0.26, 1.0), (0.2566, 0.7516, 1.0), (1e-3, 0.95, 1.0), (0.1, 0.3, 0.35, 0.8, 1.0)])
@pytest.mark.parametrize("sharpness", [0.3, 3.0, 30.0])
def test_newton_finds_what_halving_finds(levels, sharpness):
    """Any mixture against any intensity, from labels that are nearly certain to even mixtures."""
    generator = torch.Generator().manual_seed(5)
    levels = torch.tensor(levels, dtype=torch.float64)[:, None]
    fractions = (sharpness * torch.randn((len(levels), 20000), generator=generator, dtype=torch.float64)).softmax(0)
    fractions[:, :50] = torch.eye(len(levels), dtype=torch.float64)[0][:, None]
    intensity = 1.2 * torch.rand(20000, generator=generator, dtype=torch.float64)
    intensity[40:60] = levels[1]
    expected = _halved(fractions, levels, intensity)
    single = _tilted(fractions.float(), levels.float(), intensity.float()).double()
    assert float((_tilted(fractions, levels, intensity) - expected).abs().max()) < 1e-3
    assert float((single - expected).abs().max()) < 1e-3


def test_neither_the_window_nor_the_portions_matter(head, monkeypatch):
    whole = _shares(head.image, head.tissues)
    monkeypatch.setattr("ulfsim.source.shares._N_AT_ONCE", 1000)
    assert torch.allclose(_shares(head.image, head.tissues), whole, atol=1e-6)
    wide = tuple(slice(0, n) for n in head.grid.shape)
    levels = [float(head.image.data[core].mean()) for core in tissue_cores(head.tissues)[0]]
    assert torch.allclose(signal_shares(head.image, head.tissues, wide, levels), whole, atol=1e-5)


def test_threads_and_inference_mode_change_no_bit(head):
    n_threads = torch.get_num_threads()
    shares = []
    for n in (1, 2):
        torch.set_num_threads(n)
        with torch.inference_mode(n == 2):
            shares.append(_shares(head.image, head.tissues))
    torch.set_num_threads(n_threads)
    assert torch.equal(*shares)


def test_one_tissue_has_the_whole_signal(head):
    brain = TissueMap(head.tissues.prob.sum(0, keepdim=True).clamp_max(1), ("brain",), head.grid)
    assert torch.equal(_shares(head.image, brain), brain.prob)
