"""A spatial prior in the segmentation: what it decides, what it must not change, what is refused."""

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.metrics.overlap import dice_by_tissue
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrcore.segmentation.hmrf import expected_classes
from mrcore.segmentation.tissues import FLAIR_ORDER, HmrfSettings, segment

HEAD = digital_head(head_grid(32))
LABELS = HEAD.tissues.prob.argmax(0)


def noisy(noise_sd: float, levels=(0.3, 0.65, 1.0)) -> Volume:
    clean = torch.tensor(levels)[LABELS] * HEAD.mask
    return Volume(add_noise(clean, noise_sd, seeded(5, "prior")), HEAD.grid)


def dice(found: torch.Tensor) -> float:
    scores = dice_by_tissue(HEAD.tissues, TissueMap(found, TISSUES, HEAD.grid)).values()
    return sum(scores) / 3


def test_prior_decides_where_noise_leaves_it_open_and_more_so_with_its_weight():
    volume = noisy(0.25)
    scores = [dice(segment(volume, HEAD.mask).tissues.prob)]
    scores += [dice(segment(volume, HEAD.mask, None, HEAD.tissues, w).tissues.prob) for w in (0.5, 2.0)]
    assert scores[0] + 0.03 < scores[1] < scores[2]


def test_prior_of_another_order_is_laid_out_by_name():
    levels = (0.2, 1.0, 0.75)
    turned = TissueMap(HEAD.tissues.prob[[2, 0, 1]], ("WM", "CSF", "GM"), HEAD.grid)
    settings = HmrfSettings(tissue_order=FLAIR_ORDER)
    a, b = (segment(noisy(0.15, levels), HEAD.mask, settings, p).tissues.prob for p in (HEAD.tissues, turned))
    assert torch.equal(a, b)
    assert dice(a) > 0.8


def test_clear_intensities_overrule_a_prior_that_is_wrong():
    flat = torch.full_like(HEAD.tissues.prob, 0.1) * HEAD.mask
    flat[0] = 0.8 * HEAD.mask
    # Everything is expected to be fluid, 8 times as likely as the rest.
    found = segment(noisy(0.03), HEAD.mask, None, TissueMap(flat, TISSUES, HEAD.grid))
    assert dice(found.tissues.prob) > 0.85


def test_classes_come_from_where_they_are_expected():
    values = torch.tensor([0.1, 0.2, 0.3, 1.0, 1.1, 1.2, 2.0, 2.1, 2.2])
    log_prior = torch.full((3, 9), 1e-4).log()
    for k in range(3):
        log_prior[k, 3 * k : 3 * k + 3] = 0.0
    classes = expected_classes(values, log_prior, HmrfSettings())
    assert classes.mean.tolist() == pytest.approx([0.2, 1.1, 2.1], abs=1e-3)
    assert classes.sd.tolist() == pytest.approx([0.7 * np.sqrt(2 / 3) * 0.1] * 3, rel=1e-2)


def test_unusable_priors_are_refused():
    volume = noisy(0.05)
    other = TissueMap(
        HEAD.tissues.prob, TISSUES, Grid(HEAD.grid.shape, HEAD.grid.affine @ np.diag([2.0, 2.0, 2.0, 1.0]))
    )
    with pytest.raises(GridMismatchError, match="tissue prior"):
        segment(volume, HEAD.mask, None, other)
    with pytest.raises(BadInputError, match="CSF, GM, WM"):
        segment(volume, HEAD.mask, None, TissueMap(HEAD.tissues.prob, ("a", "b", "c"), HEAD.grid))
    with pytest.raises(BadInputError, match="positive weight"):
        segment(volume, HEAD.mask, None, HEAD.tissues, 0.0)
