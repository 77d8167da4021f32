"""The tissue term of a fit, and where a stripped brain ends."""

import pytest
import torch
from operators import grid
from torch.nn.functional import one_hot

from inr.fitting.tissues import share_of_start, support, tissue_term
from inr.losses import dice_cross_entropy
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.forward import covering_grid, imaging_operator, predict
from mrcore.phantom import digital_head, head_grid
from mrcore.segmentation.brainmask import stripped_mask
from mrkit.superresolution.prepare import prepare

GRID = grid((6, 5, 4), (1.0, 1.0, 1.0))
BRAIN = torch.zeros(GRID.shape, dtype=torch.bool)
BRAIN[1:5, 1:4, 1:3] = True
START = torch.rand(GRID.shape, generator=torch.Generator().manual_seed(0))


def maps(index: int) -> TissueMap:
    prob = one_hot(torch.full(GRID.shape, index), 3).movedim(-1, 0) * BRAIN
    return TissueMap(prob.float(), TISSUES, GRID)


def test_target_moves_from_the_anchor_to_what_is_found_and_faster_each_time():
    seen = []

    def segmented(image: torch.Tensor) -> torch.Tensor:
        seen.append(image)
        return maps(2).prob

    term = tissue_term(maps(0), BRAIN, START, segmented)
    assert term.target.shape == (3, int(BRAIN.sum()))
    now = torch.stack([START + 1.0, START - 7.0])
    once = term.refreshed(now)
    twice = once.refreshed(now)
    assert once.target[:, 0].tolist() == pytest.approx([0.25, 0.0, 0.75], abs=1e-3)
    assert twice.target[:, 0].tolist() == pytest.approx([0.0625, 0.0, 0.9375], abs=1e-3)
    assert twice.target.sum(0).tolist() == pytest.approx([1.0] * 24)
    # The mean of start and first image: the second contrast is not segmented.
    assert all(torch.allclose(image, START + 0.5) for image in seen)
    assert term.target is term.anchor


def test_a_noisy_start_counts_for_less():
    assert share_of_start(0.06) == share_of_start(0.07) == 0.5
    assert share_of_start(0.28) == pytest.approx(0.125)


def test_what_is_segmented_holds_the_given_share_of_the_start():
    seen = []

    def segmented(image: torch.Tensor) -> torch.Tensor:
        seen.append(image)
        return maps(2).prob

    tissue_term(maps(0), BRAIN, START, segmented, 0.1).refreshed((START + 1.0)[None])
    assert torch.allclose(seen[0], START + 0.9)


def test_without_a_segmenter_the_anchor_stays():
    term = tissue_term(maps(1), BRAIN, START)
    assert term.refreshed(START[None]) is term


def test_loss_is_that_of_the_target_in_the_order_of_the_brain():
    prob = torch.rand((3, *GRID.shape), generator=torch.Generator().manual_seed(1)) * BRAIN
    prob = torch.where(BRAIN, prob / prob.sum(0).clamp_min(1e-6), 0.0)
    term = tissue_term(TissueMap(prob, TISSUES, GRID), BRAIN, START)
    logits = prob.flatten(1)[:, BRAIN.flatten().nonzero()[:, 0]].log()
    assert float(term.loss(logits)) == pytest.approx(float(dice_cross_entropy(logits, term.target)), rel=1e-6)
    assert float(term.loss(logits)) < float(term.loss(logits.flip(1)))


def test_wrong_shapes_are_refused():
    with pytest.raises(BadInputError, match="boolean brain"):
        tissue_term(maps(0), BRAIN.float(), START)
    with pytest.raises(BadInputError, match="boolean brain"):
        tissue_term(maps(0), BRAIN, START[1:])
    with pytest.raises(BadInputError, match="grid of its tissues"):
        support(START[1:], maps(0))


def test_border_of_a_stripped_brain_is_found_through_thick_slices():
    head = digital_head(head_grid(64, 160.0))
    clean = Volume(head.image.data * head.mask, head.grid)
    scan_grid = covering_grid(head.grid, 10.0)
    fine = imaging_operator(head.grid, scan_grid, gaussian_psf(scan_grid.spacing_mm))
    scan = Volume(predict(fine, clean.data), scan_grid, {"SkullStripped": True})
    # A given mask is taken as it is; the scan has no noise, and residuals of so few voxels are all anatomy.
    ready = prepare(scan, voxel_mm=5.0, mask=stripped_mask(scan), noise_sd=0.002)
    onto = head.mask.float()
    truth = predict(imaging_operator(head.grid, ready.lattice, gaussian_psf((5.0, 5.0, 5.0))), onto) > 0.5
    found = support(ready.start[0], ready.tissues)
    excess = [float(m.sum()) / float(truth.sum()) - 1 for m in (ready.tissues.mask, found)]
    assert excess[0] > 0.1
    assert abs(excess[1]) < 0.5 * excess[0]
