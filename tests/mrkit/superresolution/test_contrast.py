"""One rising curve from the scan's contrast to another: levels, no false rims, warnings."""

import numpy as np
import pytest
import torch

from mrcore.data.acquisition import PulseSequence
from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrkit.superresolution.contrast import (
    OWN,
    levels_without_gains,
    map_contrast,
    own_contrast,
    tissue_levels,
)
from ulfsim.protocols.bloch import bloch_spread

GRID = Grid((60, 4, 4), np.eye(4))
OWN_LEVELS = (0.4, 0.8, 1.0)
GAINS = {"CSF": 0.8, "GM": 1.2, "WM": 1.0}


def borders() -> tuple[Volume, TissueMap]:
    """Layers of CSF, GM and WM whose borders are ramps of 8 voxels."""
    x = torch.arange(60.0)[:, None, None].expand(GRID.shape)
    white = ((x - 36) / 8).clamp(0, 1)
    fluid = ((24 - x) / 8).clamp(0, 1)
    prob = torch.stack([fluid, 1 - white - fluid, white])
    return Volume((prob * torch.tensor(OWN_LEVELS)[:, None, None, None]).sum(0), GRID), TissueMap(prob, TISSUES, GRID)


def test_own_contrast_changes_nothing_and_says_so():
    image, tissues = borders()
    kept = own_contrast(image, tissues)
    assert kept.image is image
    assert kept.gauge == OWN
    assert kept.wm_gm[1] == pytest.approx(0.2 / 1.8)
    assert "nothing was added" in kept.message
    assert not kept.warnings


def test_gains_are_undone_at_the_levels_of_the_tissues():
    image, tissues = borders()
    target = levels_without_gains(tissue_levels(image, tissues), GAINS)
    assert target == pytest.approx({"CSF": 0.5, "GM": 0.8 / 1.2, "WM": 1.0})
    mapped = map_contrast(image, tissues, target, "absolute SNR of every tissue")
    assert mapped.target == pytest.approx(target, rel=1e-3)
    assert mapped.wm_gm == pytest.approx((0.2 / 1.8, 0.2), rel=1e-3)
    assert "absolute SNR" in mapped.message


def test_borders_have_no_dips_where_gains_by_probability_make_them():
    image, tissues = borders()
    gains = torch.tensor([0.8, 1.6, 1.0])[:, None, None, None]
    by_probability = (image.data * (tissues.prob / gains).sum(0))[:, 0, 0]
    assert float(torch.diff(by_probability).min()) < -1e-3
    mapped = map_contrast(image, tissues, {"CSF": 0.3, "GM": 0.5, "WM": 1.0}, "test").image.data[:, 0, 0]
    assert float(torch.diff(mapped).min()) > -1e-6
    values = torch.linspace(-0.5, 3.0, 60)[:, None, None].expand(GRID.shape).clone()
    values[:, 1:] = image.data[:, 1:]
    curve = map_contrast(Volume(values, GRID), tissues, {"CSF": 0.3, "GM": 0.5, "WM": 1.0}, "test").image.data[:, 0, 0]
    assert float(torch.diff(curve).min()) > 0
    assert float(curve[-1]) == pytest.approx(3.0, rel=0.01)


def test_contrast_beyond_the_reference_or_the_bloch_equations_is_said():
    image, tissues = borders()
    target = {"CSF": 0.2, "GM": 0.4, "WM": 1.0}
    reference = {"CSF": 0.3, "GM": 0.7, "WM": 1.0}
    mapped = map_contrast(image, tissues, target, "test", reference=reference)
    assert any("GM" in w and "exceeds" in w for w in mapped.warnings)
    assert not map_contrast(image, tissues, reference, "test", reference=reference).warnings
    predicted = bloch_spread(PulseSequence("T2w", tr_s=4.0, te_s=0.1), 3.0)
    assert any("Bloch" in w for w in map_contrast(image, tissues, target, "test", predicted=predicted).warnings)


def test_targets_that_no_curve_reaches_are_refused():
    image, tissues = borders()
    with pytest.raises(BadInputError, match="no curve"):
        map_contrast(image, tissues, {"CSF": 2.0, "GM": 0.8, "WM": 0.6}, "test")
    with pytest.raises(BadInputError, match="positive level"):
        map_contrast(image, tissues, {"CSF": 0.2, "WM": 0.6}, "test")
    with pytest.raises(BadInputError, match="positive gain"):
        levels_without_gains({"CSF": 0.4}, {"CSF": 0.0})
    with pytest.raises(GridMismatchError):
        tissue_levels(Volume(image.data, Grid(GRID.shape, np.diag([2.0, 2.0, 2.0, 1.0]))), tissues)
