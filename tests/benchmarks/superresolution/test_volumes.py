"""Volumes of structures in the benchmarks: the error of a border that is moved by a known distance."""

import numpy as np
import pytest
import torch
from superresolution import volumes

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume

GRID = Grid((44, 44, 44), np.diag([0.5, 1.0, 1.0, 1.0]))


def ball(radius_mm: float) -> torch.Tensor:
    """Return the fractions of voxels (half a mm wide in x) that a ball fills, its border one mm wide."""
    x, y, z = torch.meshgrid(*[s * (torch.arange(44.0) - 21.5) for s in GRID.spacing_mm], indexing="ij")
    return (radius_mm + 0.5 - (x**2 + y**2 + z**2).sqrt()).clamp(0, 1)


def tissues(radius_mm: float) -> TissueMap:
    grey = ball(radius_mm)
    return TissueMap(torch.stack([torch.zeros_like(grey), grey, 1 - grey]), TISSUES, GRID)


def test_a_border_that_is_moved_by_half_a_millimetre_is_seen_as_such():
    labels = Volume(10.0 * (ball(7.0) > 0.5), GRID)
    found = {"same": tissues(7.0), "larger": tissues(7.5)}
    rows = {r["method"]: r for r in volumes.volume_rows(labels, tissues(7.0), found, {"brain": "ball"})}
    assert {r["structure"] for r in rows.values()} == {"thalamus"}
    assert rows["same"]["error %"] == 0
    assert rows["same"]["truth ml"] == pytest.approx(4 / 3 * np.pi * 0.7**3, rel=0.02)
    assert rows["larger"]["border shift mm"] == pytest.approx(0.5 * (1 + 0.5 / 7), rel=0.12)
    assert rows["larger"]["error %"] == pytest.approx(100 * ((7.5 / 7) ** 3 - 1), rel=0.05)
    assert rows["larger"]["brain"] == "ball"
