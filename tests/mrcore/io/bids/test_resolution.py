"""Point spreads by sidecars as dcm2niix writes them for each vendor."""

import numpy as np
import pytest

from mrcore.data.acquisition import AxisPsf, gaussian_psf
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from mrcore.io.bids.resolution import GivenResolution, stated_psf
from mrcore.notes import cautions


def grid(*sizes, shape=(256, 256, 30)):
    return Grid(shape, np.diag([*sizes, 1.0]))


def widths(psf):
    return tuple(axis.gaussian_fwhm_mm for axis in psf)


SWOOP = {"Manufacturer": "Hyperfine", "MRAcquisitionType": "3D", "SliceThickness": 5, "SpacingBetweenSlices": 5}
SIEMENS_2D = {
    "Manufacturer": "Siemens",
    "MRAcquisitionType": "2D",
    "SliceThickness": 4,
    "SpacingBetweenSlices": 5.2,
    "BaseResolution": 256,
    "PercentPhaseFOV": 100,
    "PercentSampling": 80,
    "AcquisitionMatrixPE": 205,
    "ReconMatrixPE": 256,
    "PhaseEncodingDirection": "j-",
    "PixelBandwidth": 130,
}
SIEMENS_DOUBLED = {**SIEMENS_2D, "BaseResolution": 128, "AcquisitionMatrixPE": 128, "ReconMatrixPE": 256}
GE_ZIP = {
    "Manufacturer": "GE",
    "MRAcquisitionType": "3D",
    "SliceThickness": 2,
    "SpacingBetweenSlices": 1,
    "AcquisitionMatrixPE": 192,
    "ReconMatrixPE": 256,
    "InPlanePhaseEncodingDirectionDICOM": "ROW",
    "PercentPhaseFOV": 75,
}
PHILIPS = {
    "Manufacturer": "Philips",
    "MRAcquisitionType": "2D",
    "SliceThickness": 5,
    "SpacingBetweenSlices": 6,
    "AcquisitionMatrixPE": 204,
    "ReconMatrixPE": 512,
    "PercentSampling": 78.4,
    "FrequencyEncodingSteps": 320,
    "PhaseEncodingAxis": "i",
}


def test_contiguous_slices_of_a_3d_scan_are_one_voxel_and_nothing_is_noted_twice():
    psf, notes = stated_psf(SWOOP, grid(1.6, 1.6, 5.0))
    assert psf == gaussian_psf(grid(1.6, 1.6, 5.0).spacing_mm)
    assert notes == ()
    assert stated_psf({}, grid(1.6, 1.6, 5.0)) == (psf, notes)


def test_a_gap_gives_a_profile_as_wide_as_the_slice():
    psf, notes = stated_psf(SIEMENS_2D, grid(0.9, 0.9, 5.2))
    assert psf[2] == AxisPsf(gaussian_fwhm_mm=4.0, truncate=False)
    # 256 lines reconstructed from 205.
    assert psf[0] == AxisPsf(gaussian_fwhm_mm=0.9)
    assert psf[1].gaussian_fwhm_mm == psf[1].band_mm == pytest.approx(0.9 * 256 / 205)
    assert notes[0].startswith("point spread: slices of 4 mm every 5.2 mm, gaps of 1.2 mm (SliceThickness")
    assert "0.9 x 1.12 mm in plane, interpolated to 0.9 x 0.9 mm" in notes[1]
    assert not cautions(notes)


def test_slices_that_touch_have_no_band_limit_across_where_they_were_excited_one_by_one():
    psf, notes = stated_psf({"MRAcquisitionType": "2D", "SliceThickness": 5.0}, grid(1.0, 1.0, 5.0))
    assert psf[2] == AxisPsf(gaussian_fwhm_mm=5.0, truncate=False)
    assert "2-D acquisition" in notes[0]


def test_a_matrix_doubled_by_interpolation_is_told_from_the_base_resolution():
    psf, _ = stated_psf(SIEMENS_DOUBLED, grid(0.9, 0.9, 5.2))
    assert widths(psf) == pytest.approx((1.8, 1.8, 4.0))
    assert [axis.band_mm for axis in psf] == pytest.approx([1.8, 1.8, 0.0])
    # The image was cropped: the doubling is still told by the flag.
    cropped = grid(0.9, 0.9, 5.2, shape=(200, 180, 30))
    assert widths(stated_psf({**SIEMENS_DOUBLED, "Interpolation2D": 1}, cropped)[0])[0] == pytest.approx(1.8)
    assert widths(stated_psf(SIEMENS_DOUBLED, cropped)[0])[0] == pytest.approx(0.9)


def test_overlapping_slices_of_a_3d_scan_were_interpolated():
    psf, notes = stated_psf(GE_ZIP, grid(1.0, 1.0, 1.0, shape=(256, 256, 120)))
    assert psf[2] == AxisPsf(gaussian_fwhm_mm=2.0, band_mm=2.0)
    assert "overlaps of 1 mm" in notes[0]
    # 192 lines over 75 % of a square field of view are not interpolated.
    assert psf[:2] == gaussian_psf((1.0, 1.0, 1.0))[:2]
    whole, notes = stated_psf({**GE_ZIP, "PercentPhaseFOV": 100}, grid(1.0, 1.0, 1.0, shape=(256, 256, 120)))
    assert whole[0].gaussian_fwhm_mm == pytest.approx(256 / 192)
    assert "does not say how finely the readout" in cautions(notes)[0]


def test_acquired_lines_and_samples_of_philips():
    psf, _ = stated_psf(PHILIPS, grid(0.45, 0.45, 6.0, shape=(512, 512, 24)))
    assert widths(psf) == pytest.approx((0.45 * 512 / 204, 0.45 * 512 / 320, 5.0))


def test_the_axis_of_the_slices_is_that_of_their_spacing():
    turned = {**SWOOP, "SliceThickness": 4}
    assert widths(stated_psf(turned, grid(5.0, 1.6, 1.6))[0]) == pytest.approx((4.0, 1.6, 1.6))
    # Some files hold the gap, not the distance of the centres.
    gap = {"SliceThickness": 5, "SpacingBetweenSlices": 1}
    assert widths(stated_psf(gap, grid(2.0, 2.0, 6.0))[0]) == pytest.approx((2.0, 2.0, 5.0))
    assert widths(stated_psf({"SliceThickness": 4}, grid(5.0, 1.6, 1.6))[0]) == pytest.approx((4.0, 1.6, 1.6))
    negative = {"SliceThickness": 4, "SpacingBetweenSlices": -5}
    assert widths(stated_psf(negative, grid(1.6, 1.6, 5.0))[0]) == pytest.approx((1.6, 1.6, 4.0))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({**SIEMENS_DOUBLED}, "SpacingBetweenSlices 5.2 mm is the voxel of no axis (1 x 1 x 1 mm), resampled since"),
        ({"SliceThickness": 5}, "it does not go with voxels of 1 x 1 x 1 mm: SliceThickness 5 mm is not used"),
        ({"SliceThickness": "5 mm"}, "SliceThickness must be a number without unit, got '5 mm'"),
        ({"SliceThickness": [1, 2]}, "SliceThickness lists several values"),
    ],
)
def test_a_sidecar_that_is_not_of_this_grid_is_not_used_and_that_is_said(values, text):
    psf, notes = stated_psf(values, grid(1.0, 1.0, 1.0))
    assert psf == gaussian_psf((1.0, 1.0, 1.0))
    assert text in cautions(notes)[0]


def test_what_the_user_says_comes_first():
    given = GivenResolution(3.0, (1.2, 1.5))
    psf, notes = stated_psf(SIEMENS_DOUBLED, grid(0.9, 0.9, 5.2), given)
    assert widths(psf) == pytest.approx((1.2, 1.5, 3.0))
    assert all("as given" in note for note in notes)
    with pytest.raises(BadInputError, match=r"slices of 0\.5 mm do not go with a distance of 5\.2 mm"):
        stated_psf({}, grid(0.9, 0.9, 5.2), GivenResolution(0.5))
    with pytest.raises(BadInputError, match=r"between 0\.05 and 50"):
        GivenResolution(-1.0)


@pytest.mark.parametrize("unknown", [0, None, "", "n/a", "NaN"])
def test_unknown_values_are_no_values(unknown):
    values = dict.fromkeys(SIEMENS_2D, unknown)
    assert stated_psf(values, grid(0.9, 0.9, 5.2)) == stated_psf({}, grid(0.9, 0.9, 5.2))
