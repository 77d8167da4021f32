"""The acquisition model against k-space, closed forms and geometry."""

import math

import numpy as np
import pytest
import torch
from operators import blob, centroid_mm, grid, numbers, positions_mm, rotation
from scipy import signal

from mrcore.data.acquisition import DELTA_PSF, AxisPsf, fse_decay, gaussian_psf
from mrcore.data.grid import Grid, directions, grid_about, to_world
from mrcore.errors import BadInputError
from mrcore.forward import axis_matrix, covering_grid, imaging_operator, predict, transfer_function
from mrcore.operators.fourier import FourierOp
from mrcore.operators.indexing import CropOp, PermuteOp
from mrcore.operators.pointwise import DiagonalOp
from mrcore.operators.separable import SeparableOp

F64, C128 = torch.float64, torch.complex128
OBJECT = grid((48, 51, 60), (1.0, 1.0, 1.0), (1, -2, 3))
CENTRE = (3.3, -5.7, 4.9)
SCANS = {
    "even, integer": grid((20, 22, 10), (2, 2, 5), (1, -2, 3)),
    "odd, integer": grid((15, 15, 11), (3, 3, 5), (1, -2, 3)),
    "non-integer": grid((26, 27, 11), (1.6, 1.7, 5.0), (1.23, -2.5, 3.1)),
    "corner shifted by a fraction": grid((26, 27, 11), (1.6, 1.7, 5.0), (1.73, -3.1, 2.2)),
    "flipped": grid((26, 27, 11), (1.6, 1.7, 5.0), (1.2, -2.5, 3.1), flips=(0, 1)),
    "permuted": grid((11, 26, 27), (5.0, 1.6, 1.7), (1, -2, 3), order=(2, 0, 1)),
    "permuted and flipped (LIA)": grid((26, 10, 25), (1.6, 5, 1.7), (1, -2, 3), order=(0, 2, 1), flips=(0, 1)),
    "oblique": grid((22, 21, 9), (1.6, 1.7, 5.0), (1, -2, 3), degrees=(9, -14, 20)),
    "oblique, permuted, flipped": grid((9, 22, 21), (5.0, 1.6, 1.7), (1, -2, 3), (15, 5, -8), (1,), (2, 0, 1)),
}
WINDOWED = (AxisPsf(taper=0.5), AxisPsf(1.7, taper=1.0, decay_at_edge=1.2), AxisPsf(box_mm=5.0, decay_at_edge=0.5))
every_scan = pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS.keys())


@pytest.mark.parametrize(
    ("n_object", "n_scan"),
    [((12, 8, 10), (4, 4, 2)), ((15, 9, 7), (5, 3, 5)), ((12, 15, 9), (5, 6, 8)), ((13, 11, 16), (4, 7, 10))],
)
@pytest.mark.parametrize(
    "psf",
    [
        (AxisPsf(),) * 3,
        (AxisPsf(1.7), AxisPsf(0.9, 1.1), AxisPsf(box_mm=2.5)),
        (AxisPsf(taper=0.4), AxisPsf(0.9, 1.1, taper=1.0, decay_at_edge=0.7), AxisPsf(box_mm=2.5, decay_at_edge=2.0)),
    ],
)
def test_equals_fft_crop_weights_inverse_fft(n_object, n_scan, psf):
    """Same field of view; at even sizes the Nyquist frequency is shared by both ends of the band."""
    spacing = (1.0, 0.8, 1.3)
    voxel = tuple(n * d / m for n, d, m in zip(n_object, spacing, n_scan, strict=True))
    axes = directions(grid((2, 2, 2), (1, 1, 1), degrees=(10, 20, 30)))
    source, scan = (grid_about(np.array([1.0, 2, 3]), axes, d, n) for d, n in ((spacing, n_object), (voxel, n_scan)))
    x = numbers(*n_object)

    band = tuple(n + 1 - n % 2 for n in n_scan)
    k = FourierOp(n_object, C128)(x.to(C128))
    k = CropOp(n_object, band, F64)(k)
    for a in range(3):
        orders = np.arange(band[a]) - band[a] // 2
        weight = torch.from_numpy(transfer_function(orders / (n_scan[a] * voxel[a]), psf[a], voxel[a]))
        shape = [1, 1, 1]
        shape[a] = band[a]
        k = DiagonalOp(weight.reshape(shape).expand(k.shape).contiguous())(k)
        if n_scan[a] % 2 == 0:  # both ends of the band alias onto voxel 0
            k = k.movedim(a, 0)
            k = torch.cat([k[:1] + k[-1:], k[1:-1]]).movedim(0, a)
    expected = FourierOp(n_scan, C128).H(k) * math.sqrt(math.prod(n_scan) / math.prod(n_object))

    got = imaging_operator(source, scan, psf, F64)(x)
    assert float(expected.imag.abs().max()) < 1e-12
    torch.testing.assert_close(got, expected.real, rtol=1e-10, atol=1e-11)


@every_scan
def test_a_flat_object_keeps_its_value(scan):
    source = grid((90, 90, 90), (1, 1, 1), (1, -2, 3))
    flat = torch.full(source.shape, 7.3, dtype=F64)
    for psf in (DELTA_PSF, gaussian_psf((1.6, 1.7, 5.0)), (AxisPsf(box_mm=4.0, truncate=False),) * 3, WINDOWED):
        image = imaging_operator(source, scan, psf, F64)(flat)
        torch.testing.assert_close(image, torch.full(scan.shape, 7.3, dtype=F64), rtol=1e-9, atol=1e-9)


@every_scan
def test_the_centroid_of_a_blob_keeps_its_world_position(scan):
    psf = tuple(AxisPsf(v, truncate=False) for v in scan.spacing_mm)
    image = imaging_operator(OBJECT, scan, psf, F64)(blob(OBJECT, CENTRE, 2.5))
    # The slices alias a little; half an object voxel would be 0.5.
    np.testing.assert_allclose(centroid_mm(image, scan), CENTRE, atol=0.01)


@every_scan
def test_a_blurred_blob_is_the_closed_form(scan):
    """A Gaussian of sd a seen with a Gaussian PSF of sd b is one of variance a^2 + b^2 and of the same integral."""
    sd_mm, fwhm_mm = 3.0, 4.0
    psf_sd = fwhm_mm / math.sqrt(8 * math.log(2))
    image = imaging_operator(OBJECT, scan, (AxisPsf(fwhm_mm, truncate=False),) * 3, F64)(blob(OBJECT, CENTRE, sd_mm))
    total_sd = math.hypot(sd_mm, psf_sd)
    expected = blob(scan, CENTRE, total_sd) * (sd_mm / total_sd) ** 3
    is_oblique = np.abs(directions(scan)).max() < 0.999
    assert float((image - expected).abs().max()) < (0.002 if is_oblique else 2e-5) * float(expected.max())


def test_delta_psf_on_the_same_grid_is_the_identity():
    for n in (6, 7):
        same = grid((n, n + 1, n + 2), (1.1, 1.2, 1.3), (4, 5, 6), degrees=(10, 20, 30))
        x = numbers(*same.shape)
        torch.testing.assert_close(imaging_operator(same, same, DELTA_PSF, F64)(x), x, rtol=1e-12, atol=1e-12)


def test_dc_is_at_half_of_n():
    """A flat image has all its k-space at n // 2, and a wave along one axis beside it on that axis."""
    for shape in ((4, 5, 6), (7, 6, 5)):
        k = FourierOp(shape, C128)(torch.ones(shape, dtype=C128))
        middle = tuple(n // 2 for n in shape)
        assert float(k[middle].real) == pytest.approx(math.sqrt(math.prod(shape)))
        assert float(k.abs().sum()) == pytest.approx(math.sqrt(math.prod(shape)))
        phase = 2 * math.pi * (torch.arange(shape[1]) - shape[1] // 2) / shape[1]
        wave = torch.polar(torch.ones_like(phase), phase).to(C128)[:, None].expand(shape)
        k = FourierOp(shape, C128)(wave.clone())
        assert k[middle[0], middle[1] + 1, middle[2]].real == pytest.approx(math.sqrt(math.prod(shape)), rel=1e-6)


def test_every_coil_is_transformed_by_itself():
    images = numbers(3, 4, 5, 6, dtype=C128)
    together = FourierOp((3, 4, 5, 6), C128, n_axes=3)(images)
    one_by_one = torch.stack([FourierOp((4, 5, 6), C128)(image) for image in images])
    torch.testing.assert_close(together, one_by_one)


def test_k_space_keeps_its_phase_through_a_crop():
    """A point at the Fourier origin has flat k-space; cropped, it stays a real point at the origin."""
    for big, small in (((8, 9, 12), (4, 3, 6)), ((9, 8, 7), (5, 5, 4))):
        point = torch.zeros(big, dtype=C128)
        point[tuple(n // 2 for n in big)] = 1
        image = FourierOp(small, C128).H(CropOp(big, small, F64)(FourierOp(big, C128)(point)))
        assert torch.argmax(image.abs()) == np.ravel_multi_index([n // 2 for n in small], small)
        assert float(image.imag.abs().max()) < 1e-12


@pytest.mark.parametrize("fwhm_mm", [3.0, 4.7])
def test_gaussian_has_the_stated_width(fwhm_mm):
    at = np.linspace(100, 110, 2001)
    profile = axis_matrix(200, at, 0.5, AxisPsf(fwhm_mm, truncate=False), 1.0)[:, 100].numpy()
    half = np.interp(-profile[0] / 2, -profile, at) - 100
    assert 2 * half * 0.5 == pytest.approx(fwhm_mm, rel=1e-3)


@pytest.mark.parametrize("box_mm", [3.0, 6.5])
def test_box_has_the_stated_width(box_mm):
    at = np.linspace(200, 240, 4001)
    profile = axis_matrix(400, at, 0.25, AxisPsf(box_mm=box_mm, truncate=False), 1.0)[:, 200].numpy()
    edge_mm = (at[np.argmax(profile < 0.5 * 0.25 / box_mm)] - 200) * 0.25
    assert 2 * edge_mm == pytest.approx(box_mm, abs=0.02)
    inside = profile[at < 200 + 2 * (box_mm - 1)]
    assert inside.mean() == pytest.approx(0.25 / box_mm, rel=0.02)
    assert abs(profile[at > 200 + 2 * (box_mm + 4)]).max() < 0.05 * inside.mean()


def test_truncation_removes_the_high_band_and_keeps_the_low():
    n, voxel_mm = 60, 2.5  # edge of the band: 0.2 cycles/mm, order 12 of 60
    at = np.arange(24) * 2.5
    for order, kept in ((0, 1), (5, 1), (11, 1), (12, 0.5), (13, 0), (29, 0)):
        wave = torch.cos(2 * math.pi * order / n * torch.arange(n, dtype=F64))
        expected = kept * np.cos(2 * math.pi * order / n * at)
        got = axis_matrix(n, at, 1.0, AxisPsf(), voxel_mm) @ wave
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)
        if order > 12:
            assert (axis_matrix(n, at, 1.0, AxisPsf(truncate=False), voxel_mm) @ wave).abs().max() > 0.5


def test_taper_by_hand():
    """Voxels of 2.5 mm: the band ends at 0.2 cycles/mm; half of it tapered: 1 to 0.1, 1/2 at 0.15, 0 at 0.2."""
    k = np.array([0, 0.05, 0.1, 0.125, 0.15, 0.2, 0.21])
    half = [1, 1, 1, (2 + math.sqrt(2)) / 4, 0.5, 0, 0]
    np.testing.assert_allclose(transfer_function(k, AxisPsf(taper=0.5), 2.5), half, atol=1e-15)
    np.testing.assert_allclose(transfer_function(-k, AxisPsf(taper=0.5), 2.5), half, atol=1e-15)
    hann = [np.cos(np.pi * each / 0.4) ** 2 for each in k[:-1]]
    np.testing.assert_allclose(transfer_function(k[:-1], AxisPsf(taper=1.0), 2.5), hann, atol=1e-15)


def test_decay_by_hand():
    """80 ms from the centre to the edge and a T2 of 100 ms: exp(-0.8) at the edge, its root halfway there."""
    k = np.array([0, 0.1, -0.1, 0.1999])
    psf = AxisPsf(decay_at_edge=fse_decay(0.08, 0.1))
    expected = [1, math.exp(-0.4), math.exp(-0.4), math.exp(-0.8 * 0.9995)]
    np.testing.assert_allclose(transfer_function(k, psf, 2.5), expected, rtol=1e-12)


def test_a_band_that_ends_before_the_voxels_is_zero_filling():
    """25 samples of 2.4 mm, interpolated to 50 by zeros in k-space."""
    image = numbers(60, seed=3)
    coarse = axis_matrix(60, np.arange(25) * 2.4, 1.0, AxisPsf(3.0), 2.4) @ image
    fine = axis_matrix(60, np.arange(50) * 1.2, 1.0, AxisPsf(3.0, band_mm=2.4), 1.2) @ image
    np.testing.assert_allclose(fine, signal.resample(coarse.numpy(), 50), atol=1e-12)
    # A band beyond the voxel's own changes nothing.
    wide = axis_matrix(60, np.arange(25) * 2.4, 1.0, AxisPsf(3.0, band_mm=1.0), 2.4) @ image
    np.testing.assert_array_equal(wide, coarse)


def test_a_taper_lowers_the_ringing_of_an_edge():
    n, voxel_mm = 240, 4.0
    edge = torch.zeros(n, dtype=F64)
    edge[60:180] = 1
    images = [axis_matrix(n, np.arange(n), 1.0, AxisPsf(taper=t), voxel_mm) @ edge for t in (0, 0.5, 1)]
    near = [float(image.max()) - 1 for image in images]
    assert near[0] == pytest.approx(0.089, abs=0.01)  # Gibbs: 8.9 % of the step
    assert near[2] < 0.01
    # A window of half the band keeps the first lobe, but calms those that follow.
    far = [float((image[80:160] - 1).abs().max()) for image in images]
    assert far[1] < 0.2 * far[0]


def test_voxel_sizes_rounded_as_in_headers_have_the_same_band():
    at = np.arange(24) * 2.5
    exact, rounded = (axis_matrix(60, at, 1.0, AxisPsf(), v) for v in (2.5, 2.5 * (1 - 1e-7)))
    torch.testing.assert_close(exact, rounded, rtol=0, atol=1e-12)


def test_every_part_of_a_psf_changes_the_scan():
    x, scan = blob(OBJECT, CENTRE, 1.2), SCANS["non-integer"]
    base = imaging_operator(OBJECT, scan, (AxisPsf(),) * 3, F64)(x)
    parts = (AxisPsf(2.5), AxisPsf(box_mm=3.0), AxisPsf(truncate=False), AxisPsf(taper=0.5), AxisPsf(decay_at_edge=1.0))
    for part in parts:
        for a in range(3):
            psf = tuple(part if i == a else AxisPsf() for i in range(3))
            assert float((imaging_operator(OBJECT, scan, psf, F64)(x) - base).abs().max()) > 1e-3 * float(base.max())


@pytest.mark.parametrize("name", ["permuted", "permuted and flipped (LIA)"])
def test_the_psf_runs_along_the_axes_of_the_scan(name):
    """Blur along the last scan axis only: the blob widens along that world axis and no other."""
    scan = SCANS[name]
    x = blob(OBJECT, CENTRE, 3.0)
    for a in range(3):
        psf = tuple(AxisPsf(6.0 if i == a else 0.0, truncate=False) for i in range(3))
        image = imaging_operator(OBJECT, scan, psf, F64)(x)
        spread = (image[..., None] * (positions_mm(scan) - torch.tensor(CENTRE)).square()).sum((0, 1, 2)) / image.sum()
        world = int(np.abs(scan.affine[:3, a]).argmax())
        expected = [9.0 + (6.0**2 / (8 * math.log(2)) if i == world else 0) for i in range(3)]
        np.testing.assert_allclose(spread.numpy(), expected, rtol=0.02)


def reordered(x: torch.Tensor, where: Grid, order: tuple[int, int, int], flips: tuple[int, ...]):
    """The same object in another voxel order."""
    affine = where.affine[:, [*order, 3]].copy()
    x = x.permute(order).flip(flips)
    for a in flips:
        affine[:3, 3] += affine[:3, a] * (x.shape[a] - 1)
        affine[:3, a] *= -1
    return x.contiguous(), Grid(tuple(x.shape), affine)


@every_scan
@pytest.mark.parametrize(("order", "flips"), [((0, 2, 1), (0, 1)), ((2, 0, 1), ()), ((1, 2, 0), (0, 2))])
def test_the_voxel_order_of_the_object_changes_nothing(scan, order, flips):
    x = numbers(*OBJECT.shape)
    other, where = reordered(x, OBJECT, order, flips)
    assert where.orientation != OBJECT.orientation
    psf = gaussian_psf((1.6, 1.7, 5.0))
    expected = imaging_operator(OBJECT, scan, psf, F64)(x)
    torch.testing.assert_close(imaging_operator(where, scan, psf, F64)(other), expected, rtol=1e-9, atol=1e-10)


def test_shared_axes_need_no_interpolation():
    assert isinstance(imaging_operator(OBJECT, SCANS["flipped"], DELTA_PSF), SeparableOp)
    permuted = imaging_operator(OBJECT, SCANS["permuted"], DELTA_PSF)
    assert [type(op) for op in (permuted.outer, permuted.inner)] == [PermuteOp, SeparableOp]


def test_rounding_of_headers_does_not_make_a_scan_oblique():
    scan = SCANS["non-integer"]
    wobble = np.eye(4)
    wobble[:3, :3] += 3e-6 * np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    rounded = Grid(scan.shape, (wobble @ scan.affine).astype(np.float32))
    assert isinstance(imaging_operator(OBJECT, rounded, DELTA_PSF), SeparableOp)


def test_an_oblique_single_slice_is_oblique():
    tilted = grid((1, 1, 1), (5, 5, 5), (1, -2, 3), degrees=(20, 0, 0))
    assert not isinstance(imaging_operator(OBJECT, tilted, DELTA_PSF), SeparableOp)


def test_turning_object_and_scan_together_changes_nothing():
    x, turn, psf = numbers(*OBJECT.shape), rotation((5, 25, -40)), gaussian_psf((1.6, 1.7, 5.0))
    for scan in (SCANS["non-integer"], SCANS["oblique"]):
        turned = [Grid(g.shape, turn @ g.affine) for g in (OBJECT, scan)]
        expected = imaging_operator(OBJECT, scan, psf, F64)(x)
        torch.testing.assert_close(imaging_operator(*turned, psf, F64)(x), expected, rtol=1e-8, atol=1e-9)


def test_error_when_the_scan_leaves_the_lattice():
    beyond = Grid((24, 22, 10), grid((24, 22, 10), (2, 2, 5), (5, -2, 3)).affine)
    with pytest.raises(BadInputError, match=r"leaves the object lattice by 3\.0 mm on axis 0 of the object; pad"):
        imaging_operator(OBJECT, beyond, DELTA_PSF)
    # Half a scan voxel beyond the edge is allowed.
    imaging_operator(OBJECT, grid((24, 22, 10), (2, 2, 5), (2.9, -2, 3)), DELTA_PSF)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (5, 10, 20)])
def test_error_when_scan_and_object_are_apart(degrees):
    with pytest.raises(BadInputError, match=r"leaves the object lattice|do not overlap"):
        imaging_operator(OBJECT, grid((8, 8, 8), (2, 2, 5), (300, 0, 0), degrees=degrees), DELTA_PSF)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (0, 0, 10)])
def test_what_lies_at_one_edge_of_the_scan_does_not_appear_at_the_other(degrees):
    source, scan = grid((60, 60, 60), (1, 1, 1)), grid((12, 12, 6), (2, 2, 5), degrees=degrees)
    edge = tuple(to_world(scan, np.array([0, 5.5, 2.5])))
    psf = tuple(AxisPsf(v, truncate=False) for v in scan.spacing_mm)
    image = imaging_operator(source, scan, psf, F64)(blob(source, edge, 1.5))
    assert float(image[-2:].abs().max()) < 1e-4 * float(image[:2].max())


def test_predict_is_the_magnitude():
    op = imaging_operator(OBJECT, SCANS["even, integer"], DELTA_PSF, F64)
    x = -blob(OBJECT, CENTRE, 3.0)
    assert torch.equal(predict(op, x), op(x).abs())
    assert float(predict(op, x).min()) >= 0


def test_works_in_the_precision_that_is_asked_for():
    for scan in SCANS.values():
        op = imaging_operator(OBJECT, scan, DELTA_PSF)
        assert op(torch.ones(OBJECT.shape)).dtype == op.dtype == torch.float32


@pytest.mark.parametrize("margin_mm", [0.0, 4.2])
@pytest.mark.parametrize("voxel_mm", [1.0, 0.85])
@every_scan
def test_covering_grid_covers_the_field_of_view(scan, voxel_mm, margin_mm):
    cover = covering_grid(scan, voxel_mm, margin_mm)
    assert cover.spacing_mm == pytest.approx((voxel_mm,) * 3)
    np.testing.assert_allclose(directions(cover), directions(scan), atol=1e-12)
    for n, fov in zip(cover.fov_mm, scan.fov_mm, strict=True):
        assert fov + 2 * margin_mm - 1e-4 <= n < fov + 2 * margin_mm + voxel_mm
    centres = [to_world(g, (np.array(g.shape) - 1) / 2) for g in (scan, cover)]
    np.testing.assert_allclose(*centres, atol=1e-9)
    imaging_operator(cover, scan, DELTA_PSF)
