"""What scans leave unknown in a voxel of the lattice."""

import pytest
import torch

from inr.scans.single import OneScan, noise_on_lattice
from mrcore.operators.separable import SeparableOp

EYE = torch.eye(4)
PAIRS = torch.kron(torch.eye(2), torch.full((1, 2), 0.5))
EVERYWHERE = torch.ones(4, 4, 4, dtype=torch.bool)


def test_noise_on_the_lattice_is_the_scans_where_voxels_agree():
    data = OneScan(torch.ones(4, 4, 4), SeparableOp((EYE, EYE, EYE)), 0.1)
    assert noise_on_lattice(data, EVERYWHERE) == pytest.approx((0.1,))


def test_a_scan_voxel_of_two_lattice_voxels_tells_half_as_much_of_each():
    data = OneScan(torch.ones(4, 4, 2), SeparableOp((EYE, EYE, PAIRS)), 0.1)
    assert noise_on_lattice(data, EVERYWHERE) == pytest.approx((0.1 * 2**0.5,))


def test_background_does_not_count():
    half = EVERYWHERE.clone()
    half[2:] = False
    data = OneScan(torch.ones(4, 4, 4), SeparableOp((EYE, EYE, EYE)), 0.2)
    assert noise_on_lattice(data, half) == pytest.approx((0.2,))
