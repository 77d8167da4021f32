from dataclasses import replace

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import TissueMap
from ulfsim.measurement.contrast import ContrastStats
from ulfsim.measurement.mixing import with_mixing

NAMES = ("CSF", "GM", "WM")


def _stats(means):
    return ContrastStats(
        NAMES, means, (0.0,) * 3, (100,) * 3, 1.0, "given", mean_error=(0.0,) * 3, n_blocks=(50.0,) * 3
    )


def _slabs(own):
    """Three slabs of 12 voxels, whose tissue holds the share `own` of them."""
    prob = torch.zeros(3, 36, 20, 20)
    for tissue, share in enumerate(own):
        prob[tissue, 12 * tissue : 12 * tissue + 12] = share
        prob[(tissue + 1) % 3, 12 * tissue : 12 * tissue + 12] = 1 - share
    return TissueMap(prob, NAMES, Grid((36, 20, 20), np.eye(4)))


@pytest.fixture
def tissues():
    """White matter has a core, the others none."""
    return _slabs((0.8, 0.8, 1.0))


def test_intervals_reach_as_far_as_mixtures_of_neighbours(tissues):
    found = with_mixing(_stats((10.0, 30.0, 50.0)), tissues)
    # 30 = 0.7 x + 0.3 * 10 and 30 = 0.7 x + 0.3 * 50; CSF mixes with air; WM has a core that holds nine tenths.
    assert found.mean_interval("GM") == pytest.approx(((30 - 15) / 0.7, (30 - 3) / 0.7))
    assert found.mean_interval("CSF") == pytest.approx(((10 - 9) / 0.7, 10 / 0.7))
    assert found.mean_interval("WM") == pytest.approx((50 - 20 / 9, (50 - 3) / 0.9))
    assert found.cnr_interval("WM", "GM")[0] == pytest.approx(50 - 20 / 9 - 27 / 0.7)
    assert found.mean == (10.0, 30.0, 50.0)
    assert found.noise_range == (1.0, 1.0)
    assert "as little as 70%" in found.notes[-1]


def test_a_tissue_with_a_core_is_known_better():
    sharp = with_mixing(_stats((10.0, 30.0, 50.0)), _slabs((0.8, 1.0, 1.0)))
    low, high = sharp.mean_interval("GM")
    assert high - low < 0.3 * (27 / 0.7 - 15 / 0.7)


def test_a_bracketed_noise_widens_them_further(tissues):
    noisy = replace(_stats((10.0, 30.0, 50.0)), noise_sd=2.0)
    both = with_mixing(replace(_stats((10.0, 30.0, 50.0)), ends=(_stats((10.0, 30.0, 50.0)), noisy)), tissues)
    assert both.snr_interval("GM")[0] == pytest.approx((30 - 15) / 0.7 / 2)
    assert both.snr_interval("GM")[1] == pytest.approx((30 - 3) / 0.7)


def test_no_interval_of_a_signal_reaches_below_nought(tissues):
    weak = replace(_stats((1.0, 30.0, 50.0)), mean_error=(2.0, 0.1, 0.1), noise_error=0.1)
    for found in (weak, with_mixing(weak, tissues)):
        assert found.mean_interval("CSF")[0] == 0.0
        assert found.snr_interval("CSF")[0] == 0.0
        assert found.cnr_interval("CSF", "GM")[0] < 0
