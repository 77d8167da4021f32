"""Scans of known contrast are measured without their maker's tissues: do the intervals hold what was asked for?"""

import pytest

from mrcore.io.volumes import load_volume
from mrcore.phantom import digital_head, head_grid
from mrkit import measure, simulate_ulf

NAMES = ("CSF", "GM", "WM")
BRAINS = (
    "stroke_3T_T1_brain.nii.gz",
    "colin27_ch2_brain.nii.gz",
    "openms_p26_T1_brain_mni1mm.nii.gz",
    "visualqc_id001_brainmask.mgz",
    "niimath_T1_brain_0p8mm.nii.gz",
)


def covered(volume, wm_snr, seed, **more):
    """Return for each SNR and CNR whether its interval holds what was asked for."""
    done = simulate_ulf(volume, preset="hyperfine-t1w", wm_snr=wm_snr, seed=seed, **more)
    asked, found = done.preset.snr, measure(done.scan).contrast
    pairs = (("WM", "GM"), ("WM", "CSF"), ("GM", "CSF"))
    asked_of = [(asked[name], found.snr_interval(name)) for name in NAMES]
    asked_of += [(asked[a] - asked[b], found.cnr_interval(a, b)) for a, b in pairs]
    return [low <= value <= high for value, (low, high) in asked_of]


def test_intervals_hold_the_contrast_of_a_digital_head():
    head = digital_head(head_grid(96), texture=0.02)
    inside = [hit for wm_snr in (50.8, 20.0) for hit in covered(head.image, wm_snr, 1, tissues=head.tissues)]
    assert sum(inside) >= 0.9 * len(inside)


@pytest.mark.slow
def test_intervals_hold_the_contrast_of_five_brains(shared_data):
    inside = [
        hit
        for name in BRAINS
        for volume in (load_volume(shared_data / "t1" / name),)
        for wm_snr in (50.8, 20.0)
        for seed in (1, 2)
        for hit in covered(volume, wm_snr, seed)
    ]
    assert len(inside) == 120
    assert sum(inside) >= 0.9 * len(inside)
