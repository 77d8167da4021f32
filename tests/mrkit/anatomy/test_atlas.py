"""Tissues of the template as a prior: laid over a brain that was moved, of another contrast, and used by the HMRF."""

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.metrics.overlap import dice_by_tissue
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrcore.spatial.registration import rotation
from mrcore.spatial.resampling import resample
from mrkit.anatomy.atlas import AtlasPrior, atlas_prior, atlas_segmenter
from mrkit.anatomy.template import load_template

HEAD = digital_head(head_grid(32))
FINER = head_grid(64)


def prior(reliable: bool) -> AtlasPrior:
    finer = torch.stack([resample(Volume(p, HEAD.grid), FINER, order=1).data for p in HEAD.tissues.prob]).clamp(0, 1)
    return AtlasPrior(TissueMap(finer, TISSUES, FINER), 0.9, reliable, "prior of a phantom")


def test_segmenter_takes_a_prior_of_another_grid_and_leaves_one_that_does_not_fit():
    labels = HEAD.tissues.prob.argmax(0)
    noisy = add_noise(torch.tensor([0.3, 0.65, 1.0])[labels] * HEAD.mask, 0.25, seeded(5, "atlas"))
    runs = [
        atlas_segmenter(prior(fits), prior_weight=1.0)(Volume(noisy, HEAD.grid), HEAD.mask) for fits in (True, False)
    ]
    used, left = (sum(dice_by_tissue(HEAD.tissues, run.tissues).values()) / 3 for run in runs)
    assert used > left + 0.03
    assert all("prior of a phantom" in run.message for run in runs)


@pytest.mark.slow
def test_template_lies_over_a_moved_brain_of_another_contrast():
    pytest.importorskip("nilearn", reason="the template comes with nilearn")
    template = load_template()
    motion = rotation((0.15, -0.1, 0.1))
    motion[:3, 3] = (7.0, -9.0, 5.0)
    levels = torch.tensor([2.0, 1.0, 0.7])[:, None, None, None]
    grid = Grid((64, 76, 40), np.array([[3.0, 0, 0, -95], [0, 3.0, 0, -130], [0, 0, 5.0, -85], [0, 0, 0, 1]]))
    moved = Grid(template.t1.grid.shape, motion @ template.t1.grid.affine)
    prob = torch.stack([resample(Volume(p, moved), grid, order=1).data for p in template.tissues.prob]).clamp(0, 1)
    brain = prob.sum(0) > 0.5
    found = atlas_prior(Volume((prob * levels).sum(0), grid), brain)
    assert found.reliable
    assert "similarity" in found.message
    assert torch.allclose(found.tissues.prob.sum(0)[brain], torch.ones(()), atol=1e-4)
    scores = dice_by_tissue(TissueMap(prob * brain, TISSUES, grid), found.tissues)
    assert min(scores["GM"], scores["WM"]) > 0.75
