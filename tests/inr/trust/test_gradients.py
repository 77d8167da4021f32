"""Gradients of what a scan shows, and what they say of what it does not."""

import math

import pytest
import torch
from operators import grid

from inr.trust.gradients import gradient_sd, in_plane, mean_square, sharpening
from mrcore.data.acquisition import gaussian_psf
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator
from mrcore.random import seeded

LATTICE = grid((32, 32, 30), (1.0, 1.0, 1.0))
SCAN = grid((20, 20, 6), (1.6, 1.6, 5.0))
OPERATOR = imaging_operator(LATTICE, SCAN, gaussian_psf(SCAN.spacing_mm))
ALL, SEEN = (torch.ones(g.shape, dtype=torch.bool) for g in (LATTICE, SCAN))


def test_gradients_are_per_mm_and_summed_over_axes():
    x, y, _ = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in SCAN.shape), indexing="ij")
    image = 0.3 * 1.6 * x + 0.4 * 1.6 * y
    assert mean_square(image, SEEN, SCAN.spacing_mm, (0, 1, 2)) == pytest.approx(0.09 + 0.16, rel=1e-4)
    assert in_plane(SCAN.spacing_mm) == (0, 1)
    alone = torch.zeros_like(SEEN)
    alone[3, 3, 3] = True
    with pytest.raises(BadInputError, match="neighbouring"):
        mean_square(image, alone, SCAN.spacing_mm, (0,))


def test_blur_hides_more_gradient_the_larger_the_voxels():
    """A lattice that is scanned as it is shows what the field has; thick slices show a part of it."""
    same = imaging_operator(LATTICE, LATTICE, gaussian_psf((1e-3, 1e-3, 1e-3)))
    assert sharpening(same, LATTICE.spacing_mm, LATTICE.spacing_mm) == pytest.approx(1.0, rel=0.03)
    of_slices = sharpening(OPERATOR, LATTICE.spacing_mm, SCAN.spacing_mm)
    assert 2 < of_slices < 10


def test_noise_of_the_scan_is_not_taken_for_edges():
    object_ = torch.cumsum(torch.randn(LATTICE.shape, generator=seeded(1, "steps")), 0) * 0.02
    clean = OPERATOR(object_)
    noisy = clean + 0.02 * torch.randn(SCAN.shape, generator=seeded(2, "noise"))

    def level(scan, noise_sd):
        found = gradient_sd(object_, ALL, LATTICE.spacing_mm, OPERATOR, scan, SEEN, SCAN.spacing_mm, noise_sd)
        return math.sqrt(float(found.square().mean()))

    assert level(noisy, 0.02) == pytest.approx(level(clean, 1e-6), rel=0.1)
    assert level(noisy, 1e-6) > 1.1 * level(clean, 1e-6)
    with pytest.raises(BadInputError, match="no edges above its noise"):
        level(noisy, 1.0)


def test_the_prior_is_wide_where_the_image_has_edges():
    image = torch.ones(LATTICE.shape)
    image[:16] = 0.5
    scan = OPERATOR(image) + 1e-3 * torch.randn(SCAN.shape, generator=seeded(3, "noise"))
    found = gradient_sd(image, ALL, LATTICE.spacing_mm, OPERATOR, scan, SEEN, SCAN.spacing_mm, 1e-3)
    assert found[16].mean() > 3 * found[31].mean()
    assert found.min() > 0
