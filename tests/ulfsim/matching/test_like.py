import dataclasses

import numpy as np
import pytest
import torch

from mrcore.data.acquisition import Acquisition, PulseSequence, gaussian_psf
from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, Volume
from mrcore.errors import BadInputError
from ulfsim.matching.like import mean_like, preset_like
from ulfsim.measurement.contrast import ContrastStats
from ulfsim.protocols.presets import Preset


def _real_scan():
    affine = np.array([[0, 5.0, 0, 0], [0, 0, -1.7, 0], [1.6, 0, 0, 0], [0, 0, 0, 1.0]])  # axes S, R, P; sagittal
    meta = {"MagneticFieldStrength": 0.0645, "RepetitionTime": 1.1, "EchoTime": 0.0061, "InversionTime": 0.45}
    return Volume(torch.zeros(8, 4, 6), Grid((8, 4, 6), affine), {**meta, "SourceFile": "ulf.nii.gz"})


def test_a_real_scan_becomes_a_preset():
    stats = ContrastStats(TISSUES, (20.0, 50.0, 60.0), (1.0, 1.0, 1.0), (90, 90, 90), 2.0, "background")
    preset = preset_like(_real_scan(), stats, "T1w")
    assert dict(preset.snr) == {"CSF": 10.0, "GM": 25.0, "WM": 30.0}
    acquisition = preset.acquisition
    assert acquisition.slice_axis == "R"
    assert acquisition.voxel_mm == pytest.approx((1.7, 1.6, 5.0))  # A, S, then the slice axis R
    assert [axis.gaussian_fwhm_mm for axis in acquisition.psf] == pytest.approx([1.7, 1.6, 5.0])
    assert acquisition.field_t == 0.0645
    assert acquisition.sequence == PulseSequence("T1w", tr_s=1.1, te_s=0.0061, ti_s=0.45)
    assert "ulf.nii.gz" in preset.source


def test_gaps_between_slices_of_the_real_scan_are_in_its_preset():
    stats = ContrastStats(TISSUES, (20.0, 50.0, 60.0), (1.0, 1.0, 1.0), (90, 90, 90), 2.0, "background")
    scan = _real_scan()
    meta = {**scan.meta, "SliceThickness": 4.0, "SpacingBetweenSlices": 5.0, "EchoTime": 6.1}
    preset = preset_like(Volume(scan.data, scan.grid, meta), stats, "T1w")
    assert [axis.gaussian_fwhm_mm for axis in preset.acquisition.psf] == pytest.approx([1.7, 1.6, 4.0])
    assert [axis.truncate for axis in preset.acquisition.psf] == [True, True, False]
    # An echo time of milliseconds stays unknown, it does not become 6.1 s.
    assert preset.acquisition.sequence == PulseSequence("T1w", tr_s=1.1, ti_s=0.45)


@pytest.mark.parametrize("noise_sd", [0.0, 2.0])
def test_a_real_scan_without_usable_snr_is_refused(noise_sd):
    stats = ContrastStats(TISSUES, (0.0, 50.0, 60.0), (1.0, 1.0, 1.0), (90, 90, 90), noise_sd, "background")
    with pytest.raises(BadInputError, match=r"SNR of .*CSF"):
        preset_like(_real_scan(), stats, "T1w")


def test_a_scan_without_a_sidecar_keeps_its_weighting():
    stats = ContrastStats(TISSUES, (20.0, 50.0, 60.0), (1.0, 1.0, 1.0), (90, 90, 90), 2.0, "residual")
    scan = _real_scan()
    preset = preset_like(Volume(scan.data, scan.grid), stats, "FLAIR")
    assert preset.acquisition.sequence == PulseSequence("FLAIR")
    assert preset.acquisition.field_t == 0.064
    assert "does not state all of it" in preset.source


def _preset(white, voxel_mm=(1.6, 1.6, 5.0), fwhm=1.0, **changes):
    acquisition = Acquisition(0.064, voxel_mm, PulseSequence("T1w", tr_s=1.5), psf=gaussian_psf(voxel_mm, fwhm))
    acquisition = dataclasses.replace(acquisition, **changes)
    return Preset("like", acquisition, {"CSF": 0.3 * white, "GM": 0.8 * white, "WM": white}, f"scan with WM {white:g}")


def test_the_mean_of_scans_has_their_median_snr_and_their_spread():
    scans = [_preset(40.0, noise_fwhm_mm=(0.0, 0.0, 2.0)), _preset(90.0, (1.62, 1.6, 5.0), 2.0)]
    preset, target = mean_like(scans)
    assert preset.snr["WM"] == pytest.approx(60.0)
    assert preset.acquisition.voxel_mm == pytest.approx((1.61, 1.6, 5.0))
    assert [axis.gaussian_fwhm_mm for axis in preset.acquisition.psf] == pytest.approx([2.42, 2.4, 7.5])
    assert preset.acquisition.noise_fwhm_mm == (0.0, 0.0, 1.0)
    assert preset.acquisition.sequence.tr_s == 1.5
    assert target.n_scans == 2
    assert target.spread["WM"] == pytest.approx(np.std(np.log([40.0, 90.0]), ddof=1))
    assert target.sources == ("scan with WM 40", "scan with WM 90")


def test_one_scan_is_its_own_mean():
    preset, target = mean_like([_preset(40.0)])
    assert dict(preset.snr) == pytest.approx(dict(_preset(40.0).snr))
    assert preset.acquisition == _preset(40.0).acquisition
    assert dict(target.draw(0, "x")) == pytest.approx(dict(preset.snr))


def test_scans_of_different_kinds_are_not_averaged():
    with pytest.raises(BadInputError, match="different voxels"):
        mean_like([_preset(40.0), _preset(40.0, (1.8, 1.6, 5.0))])
    with pytest.raises(BadInputError, match="different weightings"):
        mean_like([_preset(40.0), _preset(40.0, sequence=PulseSequence("T2w"))])
    with pytest.raises(BadInputError, match="different slice axes"):
        mean_like([_preset(40.0), _preset(40.0, slice_axis="R")])
    with pytest.raises(BadInputError, match="at least one"):
        mean_like([])
