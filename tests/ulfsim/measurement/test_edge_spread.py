import math

import pytest
import torch
from operators import grid

from mrcore.data.acquisition import Acquisition, PulseSequence, gaussian_psf
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from ulfsim.measurement.edge_spread import edge_spread
from ulfsim.plan import plan_scan, tissues_through

VOXEL_MM = (1.6, 1.6, 5.0)


@pytest.fixture(scope="module")
def ball():
    """A ball of 60 mm on 1.5 mm voxels with partial volumes."""
    grid = head_grid(128)
    place = (torch.arange(128) - 63.5) * 1.5
    radius = torch.sqrt(place[:, None, None] ** 2 + place[:, None] ** 2 + place**2)
    return Volume((0.5 - (radius - 60) / 1.5).clamp(0, 1), grid)


def scanned(source, fwhm_voxels, voxel_mm=VOXEL_MM, sd=0.0):
    acquisition = Acquisition(0.064, voxel_mm, PulseSequence("T1w"), psf=gaussian_psf(voxel_mm, fwhm_voxels))
    plan = plan_scan(source.grid, acquisition)
    return Volume(add_noise(plan.operator(source.data), sd, seeded(0, "edges")), plan.scan_grid)


@pytest.mark.parametrize("fwhm_voxels", [1.2, 1.8])
def test_a_known_blur_is_found_on_every_axis_in_mm(ball, fwhm_voxels):
    found = edge_spread(scanned(ball, fwhm_voxels))
    for axis in range(3):
        # The source's own voxels of 1.5 mm are seen as well.
        expected = math.hypot(fwhm_voxels * VOXEL_MM[axis], 0.68 * 1.5)
        assert found.fwhm_mm[axis] == pytest.approx(expected, rel=0.10)
    assert min(found.n_edges) > 30
    assert found.notes == ()


def test_noise_hardly_moves_it(ball):
    clean, noisy = (edge_spread(scanned(ball, 1.5, sd=sd)).fwhm_mm for sd in (0.0, 0.05))
    assert noisy == pytest.approx(clean, rel=0.1)


def test_each_axis_has_its_own_blur(ball):
    voxel_mm = (2.0, 2.0, 2.0)
    psf = tuple(gaussian_psf(voxel_mm, f)[0] for f in (1.2, 1.6, 2.4))
    plan = plan_scan(ball.grid, Acquisition(0.064, voxel_mm, PulseSequence("T1w"), psf=psf))
    found = edge_spread(Volume(plan.operator(ball.data), plan.scan_grid))
    for measured, true in zip(found.fwhm_mm, (2.4, 3.2, 4.8), strict=True):
        assert measured == pytest.approx(math.hypot(true, 0.68 * 1.5), rel=0.10)


def test_a_blunter_scan_of_a_head_reads_blunter():
    head = digital_head(head_grid(96), seed=1)
    found = []
    for fwhm_voxels in (0.8, 1.4, 2.2):
        acquisition = Acquisition(
            0.064, (2.5, 2.5, 5.0), PulseSequence("T1w"), psf=gaussian_psf((2.5, 2.5, 5.0), fwhm_voxels)
        )
        plan = plan_scan(head.grid, acquisition)
        scan = Volume(add_noise(plan.operator(head.image.data), 0.02, seeded(0, "head")), plan.scan_grid)
        found.append(edge_spread(scan, tissues_through(plan, head.tissues).mask).fwhm_mm)
    for axis in range(3):
        assert found[0][axis] < found[1][axis] < found[2][axis]


def test_profiles_rise_from_0_to_1_and_pass_the_middle_at_0(ball):
    at_mm, height = edge_spread(scanned(ball, 1.5)).profiles[0]
    assert height[0] == pytest.approx(0, abs=0.05)
    assert height[-1] == pytest.approx(1, abs=0.05)
    assert height[at_mm.index(0.0)] == pytest.approx(0.5, abs=0.03)


def test_noise_alone_or_too_few_slices_have_no_edges():
    grid = head_grid(32)
    noise = edge_spread(Volume(torch.zeros(grid.shape), grid))
    assert all(math.isnan(f) for f in noise.fwhm_mm)
    assert len(noise.notes) == 3
    nowhere = edge_spread(Volume(torch.rand(grid.shape), grid), torch.zeros(grid.shape, dtype=torch.bool))
    assert nowhere.n_edges == (0, 0, 0)


def test_the_cut_of_a_skull_stripped_image_is_no_edge(ball):
    scan = scanned(ball, 1.5, sd=0.02)
    place = torch.arange(scan.grid.shape[0])
    # The mask was interpolated: a border of a voxel and a half, sharper than the scan's own.
    share = ((70 - place[:, None] - 0.3 * place) / 1.5).clamp(0, 1)[..., None]
    found, whole = edge_spread(Volume(scan.data * share, scan.grid)), edge_spread(scan)
    assert found.fwhm_mm == pytest.approx(whole.fwhm_mm, rel=0.1)


def test_a_mask_of_another_shape_is_refused(ball):
    with pytest.raises(BadInputError, match="mask"):
        edge_spread(ball, torch.ones(3, 3, 3, dtype=torch.bool))


def test_a_slanted_border_is_corrected_by_the_blur_of_the_axis_that_it_leans_to():
    """Planes in closed form: under a Gaussian blur of variances v a border of normal n has the variance n.v.n."""
    sd_voxels, size = (0.7, 1.0, 1.6), 30
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    at = torch.stack(torch.meshgrid(place, place, place, indexing="ij"))
    blocks, masks = [], []
    for axis, leaning in ((0, 2), (1, 0), (2, 0), (0, 1), (1, 2), (2, 1)):
        normal = torch.zeros(3, dtype=torch.float64)
        normal[axis], normal[leaning] = 1.0, 0.5
        sd = math.sqrt(float((normal.square() * torch.tensor(sd_voxels, dtype=torch.float64).square()).sum()))
        blocks.append(1 + torch.special.ndtr(torch.einsum("a,axyz->xyz", normal, at) / sd))
        inside = torch.zeros(size, size, size, dtype=torch.bool)
        inside[8:-8, 8:-8, 8:-8] = True
        masks.append(inside)
    for chosen in (slice(0, 3), slice(3, 6)):
        data, mask = torch.cat(blocks[chosen]), torch.cat(masks[chosen])
        found = edge_spread(Volume(data.float(), grid(data.shape, (2.0, 2.0, 2.0))), mask)
        for measured, sd in zip(found.fwhm_mm, sd_voxels, strict=True):
            assert measured == pytest.approx(2.0 * 2.3548 * sd, rel=0.03)
