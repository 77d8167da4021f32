import dataclasses
import json
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest

from mrcore.data.grid import with_spacing
from mrcore.errors import BadInputError
from mrcore.phantom import head_grid
from ulfsim.artefacts.artefacts import NO_ARTEFACTS
from ulfsim.artefacts.draws import MILD
from ulfsim.protocols.presets import PRESETS, Preset, bloch_snr
from ulfsim.protocols.ranges import BROAD, SWOOP_LIKE, artefacts_of, draw, from_json, to_json
from ulfsim.protocols.targets import target_snr

N = 400


@pytest.fixture(scope="module")
def draws():
    return [draw(BROAD, seed=3, key=f"pair {i}") for i in range(N)]


def _close_to_uniform(values, interval):
    """Mean and sd of a uniform distribution, to four standard errors, and nothing outside."""
    low, high = interval
    values = np.asarray(values)
    assert values.min() >= low
    assert values.max() <= high
    width = high - low
    assert values.mean() == pytest.approx((low + high) / 2, abs=4 * width / math.sqrt(12 * values.size))
    assert values.std() == pytest.approx(width / math.sqrt(12), rel=4 * 0.45 / math.sqrt(values.size))


def test_every_number_is_uniform_in_its_range(draws):
    acquisitions = [d.acquisition for d in draws]
    _close_to_uniform([a.field_t for a in acquisitions], BROAD.field_t)
    _close_to_uniform([a.voxel_mm[0] for a in acquisitions], BROAD.in_plane_mm)
    _close_to_uniform([a.psf[1].decay_at_edge for a in acquisitions], BROAD.decay_at_edge)
    for axis in range(3):
        blur = [a.psf[axis].gaussian_fwhm_mm / a.voxel_mm[axis] for a in acquisitions]
        colour = [a.noise_fwhm_mm[axis] / a.voxel_mm[axis] for a in acquisitions]
        _close_to_uniform(blur, BROAD.psf_voxels)
        _close_to_uniform(colour, BROAD.noise_fwhm_voxels)
        _close_to_uniform([a.psf[axis].taper for a in acquisitions], BROAD.taper)
        _close_to_uniform([a.tilt_deg[axis] for a in acquisitions], BROAD.tilt_deg)
    assert all(a.voxel_mm[0] == a.voxel_mm[1] <= a.voxel_mm[2] <= BROAD.slice_mm[1] for a in acquisitions)


def test_choices_are_equally_likely(draws):
    for choices, found in (
        (BROAD.slice_axes, [d.acquisition.slice_axis for d in draws]),
        (BROAD.n_channels, [d.acquisition.n_channels for d in draws]),
        (tuple(PRESETS), [d.protocol for d in draws]),
    ):
        expected = N / len(choices)
        assert all(abs(found.count(choice) - expected) < 4 * math.sqrt(expected) for choice in choices)
    assert all(d.acquisition.sequence == PRESETS[d.protocol].acquisition.sequence for d in draws)


def published_at(drawn, name):
    """The SNR of a tissue relative to WM that the protocol states, taken to the drawn field by the Bloch signals."""
    preset = PRESETS[drawn.protocol]
    fields = (drawn.acquisition.field_t, preset.acquisition.field_t)
    new, old = (bloch_snr(preset.acquisition.sequence, field, 1.0)[name] for field in fields)
    return preset.snr[name] / preset.snr["WM"] * new / old


def test_snr_is_log_uniform_and_contrast_log_normal(draws):
    _close_to_uniform([math.log(d.snr["WM"]) for d in draws], tuple(map(math.log, BROAD.wm_snr)))
    for name in ("GM", "CSF"):
        relative = [d.snr[name] / d.snr["WM"] for d in draws]
        logs = np.log(relative) - np.log([published_at(d, name) for d in draws])
        assert logs.mean() == pytest.approx(0, abs=4 * 0.5 / math.sqrt(N))
        assert logs.std() == pytest.approx(0.5, rel=4 / math.sqrt(2 * N))


def test_numbers_are_independent(draws):
    table = [
        [a.voxel_mm[0], a.psf[0].taper, a.psf[1].taper, a.tilt_deg[0], math.log(d.snr["WM"]), a.field_t]
        for d, a in ((d, d.acquisition) for d in draws)
    ]
    off_diagonal = np.corrcoef(np.array(table).T) - np.eye(6)
    assert np.abs(off_diagonal).max() < 4.5 / math.sqrt(N)


def test_a_target_distribution_takes_the_place_of_snr_ranges():
    target = target_snr({"CSF": 20.0, "GM": 50.0, "WM": 60.0}, spread=0.1)
    ranges = dataclasses.replace(SWOOP_LIKE, target=target)
    drawn = draw(ranges, 1, "a")
    assert drawn.snr == target.draw(1, "a")


def test_changing_one_range_leaves_the_other_numbers():
    wider = dataclasses.replace(SWOOP_LIKE, psf_voxels=(0.1, 3.0), n_channels=(1, 2, 3))
    first, second = (draw(ranges, 5, "pair 0") for ranges in (SWOOP_LIKE, wider))
    assert first.snr == second.snr
    for name in ("voxel_mm", "tilt_deg", "noise_fwhm_mm", "slice_axis", "sequence"):
        assert getattr(first.acquisition, name) == getattr(second.acquisition, name)
    assert first.acquisition.psf[0].gaussian_fwhm_mm != second.acquisition.psf[0].gaussian_fwhm_mm


def test_seed_and_key_decide_in_any_process():
    code = (
        "from ulfsim.protocols.ranges import BROAD, draw\n"
        "drawn = draw(BROAD, seed=3, key='pair 0')\n"
        "print(repr(drawn.acquisition), dict(drawn.snr))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = draw(BROAD, seed=3, key="pair 0")
    assert there.stdout.strip() == f"{here.acquisition!r} {dict(here.snr)}"
    for other in (draw(BROAD, 4, "pair 0"), draw(BROAD, 3, "pair 1")):
        assert other.acquisition != here.acquisition


def test_artefacts_follow_the_draw_and_the_grid():
    drawn = draw(dataclasses.replace(SWOOP_LIKE, artefacts=MILD), 1, "a")
    grid = with_spacing(head_grid(32), (6.0, 6.0, 12.0))
    assert artefacts_of(drawn, grid) == artefacts_of(drawn, grid)
    assert artefacts_of(drawn, grid).concomitant is not None
    plain = draw(dataclasses.replace(SWOOP_LIKE, artefacts=None), 1, "a")
    assert artefacts_of(plain, grid) == NO_ARTEFACTS
    assert plain.acquisition == drawn.acquisition


@pytest.mark.parametrize("ranges", [SWOOP_LIKE, BROAD], ids=["swoop", "broad"])
def test_json_and_pickle_are_exact(ranges):
    target = target_snr({"CSF": 20.0, "GM": 50.0, "WM": 60.0}, spread=0.1, common_spread=0.3)
    for each in (ranges, dataclasses.replace(ranges, target=target, artefacts=None)):
        assert from_json(json.loads(json.dumps(to_json(each)))) == each
        assert pickle.loads(pickle.dumps(each)) == each


def test_presets_lie_in_their_range():
    for preset in PRESETS.values():
        in_plane, _, slices = preset.acquisition.voxel_mm
        assert SWOOP_LIKE.in_plane_mm[0] <= in_plane <= SWOOP_LIKE.in_plane_mm[1]
        assert SWOOP_LIKE.slice_mm[0] <= slices <= SWOOP_LIKE.slice_mm[1]
        assert SWOOP_LIKE.wm_snr[0] <= preset.snr["WM"] <= SWOOP_LIKE.wm_snr[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_plane_mm": (3.0, 2.0)}, "in_plane_mm"),
        ({"wm_snr": (0.0, 5.0)}, "wm_snr"),
        ({"taper": (0.0, 1.5)}, "taper"),
        ({"field_t": (0.064, math.nan)}, "field_t"),
        ({"slice_axes": ("X",)}, "slice_axes"),
        ({"slice_axes": ()}, "nothing"),
        ({"n_channels": (0,)}, "n_channels"),
        ({"protocols": ()}, "protocols"),
        ({"snr_spread": -0.1}, "snr_spread"),
        ({"protocols": (Preset("x", PRESETS["hyperfine-t1w"].acquisition, {"GM": 5.0}, ""),)}, "WM"),
    ],
)
def test_ranges_out_of_order_are_refused(change, message):
    with pytest.raises(BadInputError, match=message):
        dataclasses.replace(SWOOP_LIKE, **change)


def test_json_that_is_not_whole_is_refused():
    values = to_json(SWOOP_LIKE)
    del values["taper"]
    with pytest.raises(BadInputError, match="not complete"):
        from_json(values)
    with pytest.raises(BadInputError, match="not complete"):
        from_json({**to_json(SWOOP_LIKE), "unknown": 1})


def test_another_field_changes_the_contrast():
    preset = PRESETS["hyperfine-t2w"]
    at = {
        field: draw(
            dataclasses.replace(SWOOP_LIKE, protocols=(preset,), field_t=(field, field), snr_spread=0.0), 3, "a"
        ).snr
        for field in (0.064, 0.4)
    }
    assert at[0.064]["GM"] / at[0.064]["WM"] == pytest.approx(preset.snr["GM"] / preset.snr["WM"])
    # T1 of GM grows faster with the field than that of WM: at TR 2 s it has less signal at 0.4 T.
    expected = bloch_snr(preset.acquisition.sequence, 0.4, 1.0)
    assert at[0.4]["GM"] / at[0.4]["WM"] == pytest.approx(expected["GM"], rel=1e-6)
    assert at[0.4]["GM"] / at[0.4]["WM"] < 0.98 * at[0.064]["GM"] / at[0.064]["WM"]
    assert at[0.4]["WM"] == pytest.approx(at[0.064]["WM"])
