import math

import pytest
import torch

from mrcore.errors import BadInputError
from mrcore.signals.steady_state import inversion_recovery, spin_echo
from recon.contrasts import (
    DEFAULT_CONTRASTS,
    FLAIR,
    T1W,
    T2W,
    Contrast,
    contrast_signal,
    weighted_image,
    weighted_signals,
)
from recon.dictionary.dictionary import log_grid

T1, T2 = torch.tensor([0.25, 0.85, 1.4, 4.2], dtype=torch.float64), torch.tensor([0.02, 0.05, 0.09, 1.9]).double()
TISSUES = torch.tensor([[0.85, 1.4, 4.0], [0.055, 0.085, 1.5]], dtype=torch.float64)


def test_values_by_hand():
    one = torch.ones((), dtype=torch.float64)
    assert float(contrast_signal(T2W, one, 0.082 * one)) == pytest.approx(math.exp(-1))
    assert float(contrast_signal(T1W, 0.22 * one, one)) == pytest.approx(1 - math.exp(-1))
    assert float(contrast_signal(FLAIR, 2.5 / math.log(2) * one, one)) == pytest.approx(0, abs=1e-12)


def test_inversion_keeps_its_sign_until_asked_for_a_magnitude():
    signed = contrast_signal(FLAIR, T1, T2)
    assert (signed[:3] > 0).all()
    assert signed[3] < 0
    pd = torch.polar(torch.full((4,), 2.0).double(), torch.arange(4).double())
    assert torch.allclose(weighted_image(FLAIR, T1, T2, pd), 2 * signed.abs())
    assert torch.allclose(weighted_image(FLAIR, T1, T2, pd, signed=True), 2 * signed)


def test_agrees_with_the_closed_forms_of_the_scanner():
    echo, recovery = Contrast("a", tr_s=0.7, te_s=0.03), Contrast("b", tr_s=3.1, te_s=0.04, ti_s=0.45)
    assert torch.allclose(contrast_signal(echo, T1, T2), spin_echo(1.0, T1, T2, 0.7, 0.03))
    expected = inversion_recovery(1.0, T1, T2, 3.1, 0.04, 0.45)
    assert torch.allclose(contrast_signal(recovery, T1, T2).abs(), expected)


def test_no_tissue_no_signal():
    zero = torch.zeros(3)
    assert (contrast_signal(FLAIR, zero, zero) == 0).all()


def test_signals_of_atoms_are_signed_in_the_order_of_the_grid():
    grid = log_grid(step=0.5)
    found = weighted_signals(DEFAULT_CONTRASTS, grid.t1_s, grid.t2_s)
    assert found.shape == (grid.n_atoms, len(DEFAULT_CONTRASTS))
    assert (found[:, :2] >= 0).all()
    assert torch.equal(found[:, 2], contrast_signal(FLAIR, grid.t1_s, grid.t2_s))
    assert (found[:, 2] < 0).any()
    with pytest.raises(BadInputError, match="at least one"):
        weighted_signals((), grid.t1_s, grid.t2_s)


def test_noise_in_the_default_images_moves_t1_of_white_matter_no_more_than_that_of_grey():
    """Without a contrast that nulls white matter, its T1 and PD are nearly degenerate."""

    def spread(contrasts, t1_s, t2_s):
        """Relative sd of T1 for noise of 1 % in each image, by the Cramer-Rao bound, PD unknown."""
        log = torch.tensor([t1_s, t2_s], dtype=torch.float64).log()
        at = torch.stack([contrast_signal(c, *log.exp()) for c in contrasts])
        brightest = torch.stack([contrast_signal(c, *TISSUES).abs().max() for c in contrasts])
        slopes = torch.autograd.functional.jacobian(
            lambda v: torch.stack([contrast_signal(c, *v.exp()) for c in contrasts]), log
        )
        columns = torch.cat([slopes, at[:, None]], 1) / brightest[:, None]
        return 0.01 * float(torch.linalg.inv(columns.T @ columns)[0, 0].sqrt())

    white, grey = (0.85, 0.055), (1.4, 0.085)
    assert spread(DEFAULT_CONTRASTS, *white) < 2 * spread(DEFAULT_CONTRASTS, *grey)
    assert spread(DEFAULT_CONTRASTS[:-1], *white) > 2 * spread(DEFAULT_CONTRASTS, *white)


@pytest.mark.parametrize(
    "times",
    [{"te_s": 82.0}, {"ti_s": 1300.0}, {"tr_s": 220.0}, {"tr_s": -1.0}, {"tr_s": 1, "te_s": 2}, {"ti_s": 0}],
)
def test_impossible_times_are_refused(times):
    with pytest.raises(BadInputError, match=r"in s|milliseconds"):
        Contrast("x", **times)
