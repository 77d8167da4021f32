"""Pairs of scans that show the same head in the same place, and pairs that do not."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.notes import Caution
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from ulfsim.likeness import likeness, likeness_notes, require_alike, require_one_grid
from ulfsim.transfer_fit import ScanPair, fit_transfer

GRID = head_grid(48)
HIGH = digital_head(GRID, skull=True).image


def low(shift_mm=(0.0, 0.0, 0.0), data=None, sd=0.05):
    """A blurred, noisy image of the head, moved along its axes."""
    values = (HIGH.data if data is None else data).numpy()
    values = ndimage.shift(ndimage.gaussian_filter(values, 0.8), np.array(shift_mm) / GRID.spacing_mm[0], order=1)
    noise = sd * torch.randn((2, *GRID.shape), generator=seeded(0, "low"))
    return Volume(torch.hypot(torch.from_numpy(values) + noise[0], noise[1]), GRID)


def test_a_registered_pair_is_alike_whatever_its_scale_and_contrast():
    found = likeness(Volume(100 * HIGH.data, GRID), low())
    assert found.overlap > 0.95
    assert found.correlation > 0.9
    other = likeness(HIGH, low(data=HIGH.data**0.5))
    assert 0.8 < other.correlation < found.correlation
    require_alike("a", found)
    assert likeness_notes("a", found) == []


def test_the_correlation_falls_with_the_shift():
    values = [likeness(HIGH, low((0.0, shift, 0.0))).correlation for shift in (0.0, 3.0, 6.0, 12.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[-1] > 0.5


def test_numbers_by_hand():
    grid = Grid((4, 4, 4), np.diag([8.0, 8.0, 8.0, 1.0]))
    a, b = torch.zeros(4, 4, 4), torch.zeros(4, 4, 4)
    a[1:3, 1:3, 1:3] = torch.arange(1.0, 9.0).reshape(2, 2, 2) + 20
    b[2:4, 1:3, 1:3] = 25
    found = likeness(Volume(a, grid), Volume(b, grid))
    assert found.overlap == 0.5
    either = torch.stack([a[1:4, 1:3, 1:3].flatten(), b[1:4, 1:3, 1:3].flatten()])
    assert found.correlation == pytest.approx(float(torch.corrcoef(either)[0, 1]), abs=1e-6)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (low((70.0, 70.0, 70.0)), r"heads of pair 'a' do not overlap: \d+% of the smaller one .*at least 50% expected"),
        (low((0.0, 8.0, 0.0)), r"scans of pair 'a' do not correlate: 0\.[0-4]\d in blocks of 8 mm \(at least 0\.5"),
    ],
    ids=["apart", "moved"],
)
def test_pairs_that_are_none_are_refused_with_the_number(other, message):
    with pytest.raises(BadInputError, match=message):
        fit_transfer([ScanPair("a", HIGH, other)], smoothness=0.1)


def test_a_doubtful_pair_is_fitted_with_a_caution():
    found = likeness(HIGH, low((0.0, 5.0, 0.0)))
    assert 0.5 < found.correlation < 0.7
    require_alike("a", found)
    (note,) = likeness_notes("a", found)
    assert isinstance(note, Caution)
    assert f"correlate by {found.correlation:.2f}" in note


def test_two_grids_say_how_far_they_overlap():
    require_one_grid("a", GRID, GRID)
    for shift_mm, share in ((GRID.fov_mm[0] / 2, "50%"), (500.0, "0%")):
        affine = GRID.affine.copy()
        affine[0, 3] += shift_mm
        with pytest.raises(GridMismatchError, match=rf"pair 'a' are not on the same grid.*\({share} of the low-field"):
            require_one_grid("a", GRID, Grid(GRID.shape, affine))
