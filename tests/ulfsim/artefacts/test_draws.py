import json
import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch
from operators import grid

from mrcore.errors import BadInputError
from ulfsim.artefacts.artefacts import Artefacts, from_json, to_json
from ulfsim.artefacts.draws import MILD, STRONG, ArtefactRange, Chance, draw_artefacts
from ulfsim.artefacts.fields import peak_to_peak_ppm
from ulfsim.artefacts.kspace import ShotPose, lines_of_shot

SCAN = grid((112, 136, 40), (1.6, 1.6, 5.0))
PRESENT = [f.name for f in fields(Artefacts) if f.name != "encoding"]


def always(ranges: ArtefactRange) -> ArtefactRange:
    certain = {
        f.name: replace(v, probability=1.0) for f in fields(ranges) if isinstance(v := getattr(ranges, f.name), Chance)
    }
    return replace(ranges, concomitant=1.0, **certain)


def never(ranges: ArtefactRange) -> ArtefactRange:
    none = {
        f.name: replace(v, probability=0.0) for f in fields(ranges) if isinstance(v := getattr(ranges, f.name), Chance)
    }
    return replace(ranges, concomitant=0.0, **none)


def test_same_seed_gives_the_same_in_another_process():
    script = (
        "import json, numpy as np\n"
        "from mrcore.data.grid import Grid\n"
        "from ulfsim.artefacts.draws import STRONG, draw_artefacts\n"
        "from ulfsim.artefacts.artefacts import to_json\n"
        "scan = Grid((112, 136, 40), np.diag([1.6, 1.6, 5.0, 1.0]))\n"
        "print(json.dumps([to_json(draw_artefacts(STRONG, scan, seed, 'a')) for seed in range(5)]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    drawn = [draw_artefacts(STRONG, SCAN, seed, "a") for seed in range(5)]
    assert [from_json(values) for values in json.loads(done.stdout)] == drawn
    assert len({str(to_json(each)) for each in drawn}) == 5
    assert draw_artefacts(STRONG, SCAN, 0, "b") != drawn[0]


@pytest.mark.parametrize("ranges", [MILD, STRONG])
def test_all_or_nothing(ranges):
    assert list(draw_artefacts(always(ranges), SCAN, 3, "x").names) == PRESENT
    assert draw_artefacts(never(ranges), SCAN, 3, "x").names == ()


def test_artefacts_come_as_often_as_they_should():
    drawn = [draw_artefacts(STRONG, SCAN, seed, "often") for seed in range(150)]
    share = sum(a.zipper is not None for a in drawn) / 150
    assert abs(share - STRONG.zipper_sd.probability) < 0.13  # three standard deviations
    assert 0.35 < sum(a.encoding.readout_axis == 0 for a in drawn) / 150 < 0.65
    assert all(a.encoding.slice_axis == 2 for a in drawn)


@pytest.mark.parametrize("ranges", [MILD, STRONG])
def test_strengths_lie_in_their_ranges(ranges):
    for seed in range(20):
        a = draw_artefacts(always(ranges), SCAN, seed, "strength")
        assert ranges.bandwidth_hz[0] <= a.encoding.bandwidth_hz <= ranges.bandwidth_hz[1]
        assert ranges.bias_ratio.low <= a.bias.ratio <= ranges.bias_ratio.high
        assert ranges.b0_ppm.low * 0.999 <= peak_to_peak_ppm(a.b0) <= ranges.b0_ppm.high * 1.001
        assert ranges.n_shots[0] <= len(a.motion.poses) <= ranges.n_shots[1]
        assert ranges.ghost_deg.low <= a.ghost.phase_deg <= ranges.ghost_deg.high
        assert ranges.drift.low <= abs(a.drift.change) <= ranges.drift.high
        assert ranges.fov_fraction.low <= a.wrap.fov_fraction <= ranges.fov_fraction.high
        assert ranges.zipper_sd.low <= a.zipper.amplitude <= ranges.zipper_sd.high
        assert len(a.spikes.samples) <= ranges.n_spikes
        half_band_hz = a.encoding.bandwidth_hz * SCAN.shape[a.encoding.readout_axis] / 2
        assert max(abs(f) for f in a.zipper.frequencies_hz) <= half_band_hz


@pytest.mark.parametrize("shape", [(112, 136, 40), (111, 135, 40)])
def test_the_shot_of_the_centre_of_k_space_is_at_rest(shape):
    for seed in range(12):
        a = draw_artefacts(always(STRONG), grid(shape, (1.6, 1.6, 5.0)), seed, "rest")
        n = shape[a.encoding.phase_axis]
        for s, pose in enumerate(a.motion.poses):
            assert (pose == ShotPose()) == bool(lines_of_shot(a.motion, s, n)[n // 2])


def test_range_of_one_artefact_leaves_the_others():
    before = draw_artefacts(always(MILD), SCAN, 1, "same")
    after = draw_artefacts(replace(always(MILD), ghost_deg=Chance(0.0, 1.0, 2.0)), SCAN, 1, "same")
    assert replace(before, ghost=None) == after


def test_shifts_and_turns_have_their_spread():
    ranges = replace(always(STRONG), motion_mm=Chance(1.0, 2.0, 2.0), n_shots=(8, 8))
    poses = [p for s in range(60) for p in draw_artefacts(ranges, SCAN, s, "spread").motion.poses if p != ShotPose()]
    shift, turn = (torch.tensor([getattr(p, name) for p in poses]) for name in ("shift_mm", "rotation_deg"))
    assert float(shift.std()) == pytest.approx(2.0, rel=0.1)
    assert float(turn.std()) == pytest.approx(1.6, rel=0.1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Chance(1.5, 0, 1), "between 0 and 1"),
        (lambda: Chance(0.5, 2, 1), "low to high"),
        (lambda: replace(MILD, n_shots=(1, 2)), "at least 2"),
        (lambda: replace(MILD, bandwidth_hz=(0.0, 2.0)), "positive"),
        (lambda: replace(MILD, n_spikes=0), "at least 1"),
        (lambda: replace(MILD, concomitant=2.0), "between 0 and 1"),
    ],
)
def test_refuses_ranges_that_are_none(build, message):
    with pytest.raises(BadInputError, match=message):
        build()


def test_strengths_of_different_artefacts_have_nothing_to_do_with_one_another():
    ranges = always(STRONG)
    drawn = [draw_artefacts(ranges, SCAN, seed, "apart") for seed in range(60)]
    strengths = torch.tensor(
        [
            [
                a.bias.ratio,
                peak_to_peak_ppm(a.b0),
                a.ghost.phase_deg,
                abs(a.drift.change),
                a.wrap.fov_fraction,
                a.zipper.amplitude,
                a.spikes.samples[0].amplitude,
                a.encoding.bandwidth_hz,
            ]
            for a in drawn
        ]
    )
    between = torch.corrcoef(strengths.T) - torch.eye(8)
    assert float(between.abs().max()) < 0.52  # four standard deviations of 1 / sqrt(60); tied strengths have 1
    occurs = torch.tensor([[getattr(a, name) is not None for name in PRESENT] for a in _drawn_by_chance(60)]).double()
    varying = occurs[:, occurs.std(0) > 0]
    between = torch.corrcoef(varying.T) - torch.eye(varying.shape[1])
    assert float(between.abs().max()) < 0.52


def _drawn_by_chance(n):
    certain = {f.name: replace(getattr(STRONG, f.name), probability=0.5) for f in fields(STRONG) if f.name in _CHANCES}
    return [draw_artefacts(replace(STRONG, **certain), SCAN, seed, "chance") for seed in range(n)]


_CHANCES = [f.name for f in fields(STRONG) if isinstance(getattr(STRONG, f.name), Chance)]
