"""One model for simulation and fit: what one makes, the other predicts bit for bit."""

import pytest
import torch
from operators import grid

from inr.losses import data_term
from mrcore.data.acquisition import Acquisition, AxisPsf, PulseSequence
from mrcore.forward import imaging_operator, predict
from mrcore.phantom import digital_head, head_grid
from mrkit.superresolution.prepare import prepare
from ulfsim.plan import plan_scan, tissues_through
from ulfsim.simulation import simulate
from ulfsim.source.source import source_of

GAINS = {"CSF": 0.9, "GM": 1.0, "WM": 1.0}
ODD = grid((39, 41, 37), (4.5, 4.0, 4.0), (3, -5, 8), (10, -15, 20))
PSF = (AxisPsf(5.0), AxisPsf(3.0, 2.0), AxisPsf(0.0, 12.0, False))


def noise_free(head, voxel_mm, psf, slice_axis="S"):
    acquisition = Acquisition(0.064, voxel_mm, PulseSequence("T1w"), psf=psf, slice_axis=slice_axis)
    return simulate(source_of(head.image, head.tissues), acquisition, GAINS, seed=0)


def test_simulate_equals_predict_bit_for_bit_through_a_prepared_fit():
    """Object voxels of 3 mm, scan of 3 x 3 x 9 mm, one field of view: the lattice of the fit is the object's."""
    head = digital_head(grid((63, 63, 63), (3.0, 3.0, 3.0), (8, -4, 12)), seed=3)
    made = noise_free(head, (3.0, 3.0, 9.0), PSF)
    seen = tissues_through(plan_scan(head.grid, made.acquisition), head.tissues)
    ready = prepare(made.scan, voxel_mm=3.0, tissues=seen)
    assert ready.lattice.matches(head.grid, 1e-9)
    assert "point spread: from the scan's sidecar" in ready.notes
    assert torch.equal(predict(ready.data.operator, made.truth.data), made.scan.data)


@pytest.mark.parametrize(
    ("where", "voxel_mm", "slice_axis"),
    [
        (head_grid(32), (6.4, 7.0, 13.0), "S"),
        (ODD, (6.4, 7.0, 13.0), "S"),
        (ODD, (6.4, 7.0, 13.0), "R"),
        (grid((36, 40, 34), (5.0, 5.0, 5.0), (1, 2, 3), flips=(0, 2), order=(0, 2, 1)), (5.5, 6.0, 11.0), "A"),
        (grid((32, 32, 32), (6.0, 6.0, 6.0), (0, 4, -3), flips=(0, 1), order=(0, 2, 1)), (6.5, 7.0, 13.0), "S"),
    ],
    ids=["RAS", "oblique", "oblique sagittal", "flipped coronal", "LIA"],
)
def test_simulate_equals_predict_bit_for_bit_on_any_grids(where, voxel_mm, slice_axis):
    made = noise_free(digital_head(where, seed=3), voxel_mm, PSF, slice_axis)
    operator = imaging_operator(where, made.scan.grid, made.acquisition.psf)
    assert torch.equal(predict(operator, made.truth.data), made.scan.data)


def test_history_of_a_perfect_fit_is_that_of_its_prediction():
    """The data term of the fit at the truth, noise-free, is the least any image can have."""
    made = noise_free(digital_head(head_grid(32), seed=3), (6.4, 7.0, 13.0), PSF)
    at_truth = data_term(made.operator, made.truth.data, made.scan.data, 0.02)
    for factor in (0.97, 1.03):
        assert data_term(made.operator, factor * made.truth.data, made.scan.data, 0.02) > at_truth
