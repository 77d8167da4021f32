import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrcore.segmentation.hmrf import Classes, bias_field, neighbour_sum, update_classes
from mrcore.segmentation.tissues import FLAIR_ORDER, T1W_ORDER, T2W_ORDER, HmrfSettings, segment

HEAD = digital_head(head_grid(64))
MASK = HEAD.mask


def drawn(levels: dict[str, float], noise_sd: float, bias: float = 0.0, *, hard: bool = False) -> Volume:
    """Image of the phantom with given tissue levels, Rician noise and a smooth bias of +-`bias` in the log.

    `hard` leaves no voxel of two tissues.
    """
    prob = torch.nn.functional.one_hot(HEAD.tissues.prob.argmax(0), 3).movedim(-1, 0) * MASK
    clean = sum(level * (prob[TISSUES.index(n)] if hard else HEAD.tissues.of(n)) for n, level in levels.items())
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in HEAD.grid.shape], indexing="ij")
    field = (bias * (0.8 * x - 0.7 * y * z + 0.5 * z**2)).exp()
    return Volume(add_noise(clean * field, noise_sd, seeded(3, "segment")), HEAD.grid)


def dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def scores(found: torch.Tensor) -> list[float]:
    label, truth = found.argmax(0), HEAD.tissues.prob.argmax(0)
    return [dice((label == k) & MASK, (truth == k) & MASK) for k in range(3)]


CONTRASTS = {
    T1W_ORDER: {"CSF": 0.3, "GM": 0.65, "WM": 1.0},
    T2W_ORDER: {"CSF": 2.0, "GM": 1.0, "WM": 0.7},
    FLAIR_ORDER: {"CSF": 0.2, "GM": 1.0, "WM": 0.75},
}


@pytest.mark.parametrize("order", CONTRASTS)
def test_tissues_of_a_noisy_biased_phantom_in_each_contrast(order):
    levels = CONTRASTS[order]
    volume = drawn(levels, 0.05 * levels["WM"], bias=0.2, hard=True)
    found = segment(volume, MASK, HmrfSettings(tissue_order=order))
    assert found.tissues.names == TISSUES
    assert min(scores(found.tissues.prob)) > 0.9
    assert found.converged
    assert found.mean == pytest.approx([levels[name] for name in TISSUES], rel=0.12)


def test_tissues_of_a_phantom_full_of_partial_volumes():
    found = segment(drawn(CONTRASTS[T1W_ORDER], 0.03, bias=0.2), MASK)
    csf, gm, wm = scores(found.tissues.prob)
    assert csf > 0.85
    assert gm > 0.92
    assert wm > 0.95


def test_bias_is_found_and_keeps_the_level():
    levels = CONTRASTS[T1W_ORDER]
    volume = drawn(levels, 0.02, bias=0.3)
    found = segment(volume, MASK)
    flat = segment(volume, MASK, HmrfSettings(bias_order=0))
    clean = sum(level * HEAD.tissues.of(name) for name, level in levels.items())
    core = HEAD.tissues.of("WM") > 0.99
    spread = {
        "raw": float((volume.data / clean)[core].std()),
        "corrected": float((volume.data / found.bias / clean)[core].std()),
    }
    assert spread["corrected"] < 0.5 * spread["raw"]
    assert float(found.bias[MASK].log().mean()) == pytest.approx(0, abs=1e-4)
    assert float((found.bias[~MASK] - 1).abs().max()) == 0
    assert bool((flat.bias == 1).all())
    assert scores(found.tissues.prob)[1] > scores(flat.tissues.prob)[1]


def test_fractions_approximate_partial_volumes():
    found = segment(drawn(CONTRASTS[T1W_ORDER], 0.01), MASK).tissues.prob
    truth = HEAD.tissues.prob
    error = (found - truth).abs()[:, MASK].mean()
    hard = torch.nn.functional.one_hot(found.argmax(0), 3).movedim(-1, 0) * MASK
    assert float(error) < 0.06
    assert float(error) < 0.7 * float((hard - truth).abs()[:, MASK].mean())
    inside = found.sum(0)[MASK]
    assert torch.allclose(inside, torch.ones_like(inside), atol=1e-4)
    assert float(found[:, ~MASK].abs().max()) == 0


def test_bright_outliers_do_not_move_the_classes():
    volume = drawn(CONTRASTS[T1W_ORDER], 0.03)
    spoiled = volume.data.clone()
    index = torch.nonzero(MASK)[::100]
    spoiled[index[:, 0], index[:, 1], index[:, 2]] = 6.0
    found, clean = segment(Volume(spoiled, HEAD.grid), MASK), segment(volume, MASK)
    assert found.mean == pytest.approx(clean.mean, rel=0.03)
    assert min(scores(found.tissues.prob)) > 0.85


def test_dark_rim_of_a_t2w_brain_is_no_tissue():
    volume = drawn(CONTRASTS[T2W_ORDER], 0.02)
    spoiled = volume.data.clone()
    index = torch.nonzero(MASK)[::15]
    spoiled[index[:, 0], index[:, 1], index[:, 2]] = 0.05
    settings = HmrfSettings(tissue_order=T2W_ORDER)
    found, clean = segment(Volume(spoiled, HEAD.grid), MASK, settings), segment(volume, MASK, settings)
    assert found.mean == pytest.approx(clean.mean, rel=0.03)


def test_anisotropic_noisy_scan():
    grid = Grid((64, 80, 28), np.diag([2.4, 2.4, 5.5, 1.0]) @ _shift(-32, -40, -14))
    head = digital_head(grid)
    volume = Volume(add_noise(head.image.data, 0.06, seeded(1, "ulf")), grid)
    found = segment(volume, head.mask)
    label, truth = found.tissues.prob.argmax(0), head.tissues.prob.argmax(0)
    assert dice((label == 2) & head.mask, (truth == 2) & head.mask) > 0.88
    assert dice((label == 1) & head.mask, (truth == 1) & head.mask) > 0.75


def _shift(*voxels: float) -> np.ndarray:
    out = np.eye(4)
    out[:3, 3] = voxels
    return out


def test_intensity_scale_and_orientation_change_nothing():
    volume = drawn(CONTRASTS[T1W_ORDER], 0.03, bias=0.1)
    found = segment(volume, MASK)
    scaled = segment(Volume(1000 * volume.data, volume.grid), MASK)
    assert scaled.mean == pytest.approx([1000 * m for m in found.mean], rel=1e-3)
    assert torch.allclose(scaled.tissues.prob, found.tissues.prob, atol=5e-3)
    flipped = segment(Volume(volume.data.flip(0).contiguous(), volume.grid), MASK.flip(0).contiguous())
    # The sample of every second voxel starts at another one.
    assert float((flipped.tissues.prob.flip(1) - found.tissues.prob).abs().mean()) < 0.01


def test_two_runs_agree_bit_for_bit():
    volume = drawn(CONTRASTS[T1W_ORDER], 0.03)
    assert torch.equal(segment(volume, MASK).tissues.prob, segment(volume, MASK).tissues.prob)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta", 1.0),
        ("bias_order", 1),
        ("bias_stiffness", 30.0),
        ("weight_smoothing", 30.0),
        ("sd_pooling", 1.0),
        ("mixture_weight", 0.0),
        ("max_iter", 2),
        ("tolerance", 0.3),
    ],
)
def test_each_setting_changes_the_result(name, value):
    volume = drawn(CONTRASTS[T1W_ORDER], 0.06, bias=0.25)
    base, other = segment(volume, MASK), segment(volume, MASK, HmrfSettings(**{name: value}))
    assert not torch.equal(base.tissues.prob, other.tissues.prob)


def test_field_smooths_noise():
    volume = drawn(CONTRASTS[T1W_ORDER], 0.14)
    with_field = scores(segment(volume, MASK).tissues.prob)
    without = scores(segment(volume, MASK, HmrfSettings(beta=0.0)).tissues.prob)
    assert with_field[2] > without[2] + 0.01


def test_neighbours_count_by_their_distance():
    prob = torch.zeros((1, 5, 5, 5))
    prob[0, 2, 2, 2] = 1
    found = neighbour_sum(prob, (1.6, 1.6, 5.0))[0]
    assert found[1, 2, 2] == found[3, 2, 2] == found[2, 1, 2] == 1
    assert float(found[2, 2, 1]) == pytest.approx(0.32)
    assert float(found.sum()) == pytest.approx(4.64)


def test_bias_polynomial_has_hand_values():
    coefficients = torch.zeros(9, dtype=torch.float64)
    coefficients[0] = 0.5  # the terms start with z, P1
    field = bias_field(coefficients, torch.Size((3, 3, 3)), 2)
    assert field[0, 1].tolist() == pytest.approx([np.exp(-0.5), 1.0, np.exp(0.5)])
    assert bool((field == field[:1, :1]).all())


def test_a_constant_image_and_a_small_mask_are_refused():
    with pytest.raises(BadInputError, match="constant"):
        segment(Volume(torch.ones(HEAD.grid.shape), HEAD.grid), MASK)
    with pytest.raises(BadInputError, match="at least 1000"):
        segment(HEAD.image, MASK & False)
    with pytest.raises(GridMismatchError, match="boolean of shape"):
        segment(HEAD.image, MASK[1:])
    with pytest.raises(BadInputError, match="complex"):
        segment(Volume(HEAD.image.data.to(torch.complex64), HEAD.grid), MASK)


@pytest.mark.parametrize("noise_sd", [0.0, 0.02])
def test_an_image_without_three_tissues_is_refused(noise_sd):
    values = torch.full((20, 20, 20), 1.0)
    values[:10] = 2.0
    values += noise_sd * torch.randn((20, 20, 20), generator=seeded(0, "two"))
    volume = Volume(values, Grid((20, 20, 20), np.eye(4)))
    with pytest.raises(BadInputError, match="does not show three tissues"):
        segment(volume, torch.ones((20, 20, 20), dtype=torch.bool))


def test_a_class_without_voxels_is_refused():
    values = torch.linspace(1, 2, 4096)
    classes = Classes(torch.tensor([0.0, 1.5, 9.0]), torch.full((3,), 0.1), torch.full((3,), 1 / 3))
    posterior = torch.zeros(3, 4096)
    posterior[1] = 1
    with pytest.raises(BadInputError, match="class became empty"):
        update_classes(values, posterior, classes, HmrfSettings())


@pytest.mark.parametrize(
    "wrong", [{"tissue_order": ("CSF", "GM", "FAT")}, {"beta": -1.0}, {"mixture_weight": 1.0}, {"sd_pooling": 2.0}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(BadInputError):
        HmrfSettings(**wrong)
