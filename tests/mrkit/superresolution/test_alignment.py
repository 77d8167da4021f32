"""Preparing several scans of one person: contrasts, first alignment, frame, start."""

import dataclasses

import numpy as np
import pytest
import torch
from operators import grid

from inr.scans.alignment import Pose, apart, posed
from mrcore.data.acquisition import PulseSequence, gaussian_psf
from mrcore.data.grid import to_world
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.forward import covering_grid, imaging_operator, predict
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrkit.superresolution.lattice import on_lattice
from mrkit.superresolution.prepare import prepare
from mrkit.superresolution.scans import align_scans

SPACING = (6.0, 6.0, 12.0)
MOVED = (Pose((2.0, -3.0, 4.0), (-5.0, 3.0, 6.0)), Pose((-3.0, 1.0, 2.0), (4.0, -6.0, 2.0)))
ORDER = ((0, 1, 2), (1, 2, 0), (0, 2, 1))
T2W = PulseSequence("T2w", tr_s=4.0, te_s=0.1)


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(32, 192.0), seed=2)


@pytest.fixture(scope="module")
def t2w():
    """The same head in another contrast, with CSF at about 2.5 times WM."""
    return digital_head(head_grid(32, 192.0), seed=2, sequence=T2W)


def scanned(image: Volume, weighting: str, order=(0, 1, 2), pose: Pose | None = None, gain: float = 1.0) -> Volume:
    """Return a skull-stripped scan whose header knows nothing of `pose`; intensities are times `gain`."""
    header = grid((32, 32, 16), SPACING, order=order)
    there = posed(header, pose or Pose())
    clean = predict(imaging_operator(image.grid, there, gaussian_psf(SPACING)), image.data)
    noisy = add_noise(clean, 0.02, seeded(1, f"{weighting}{order}")) * (clean > 0.1)
    return Volume(gain * noisy, header, {"SourceFile": f"sub-01_{weighting}.nii.gz", "SkullStripped": True})


def seen_by(head, scan: Volume) -> TissueMap:
    return on_lattice(head.tissues, scan.grid)


def test_scans_of_two_contrasts_are_laid_over_the_first(head, t2w):
    scans = (
        scanned(head.image, "T1w", gain=300.0),
        scanned(head.image, "FLAIR", (1, 2, 0), MOVED[0], gain=250.0),
        scanned(t2w.image, "T2w", (0, 2, 1), MOVED[1], gain=90.0),
    )
    # What is given counts more than a name.
    weightings = ("T1w", "T1w", "T2w")
    ready = prepare(scans, voxel_mm=6.0, tissues=seen_by(head, scans[0]), weightings=weightings)
    assert ready.contrasts == ("T1w", "T2w")
    assert [stack.contrast for stack in ready.data.stacks] == [0, 0, 1]
    assert ready.data.stacks[0].pose == Pose()
    for stack, true in zip(ready.data.stacks[1:], MOVED, strict=True):
        left = apart(stack.pose, true, stack.scan.grid)
        assert left.angle_deg < 2
        assert left.distance_mm < 1.5
    assert ready.scales == pytest.approx((300, 90 * t2w_grey(t2w)), rel=0.15)
    assert ready.output_grid.matches(covering_grid(scans[0].grid, 6.0))
    assert ready.start.shape == (2, *ready.lattice.shape)
    csf, white = (ready.start[1][head.tissues.of(name) > 0.95].mean() for name in ("CSF", "WM"))
    assert 1.2 < float(csf / white) < 2.5
    assert ready.resegment is None
    assert any(note.startswith("scan 2 (T1w): turned by") for note in ready.notes)


def t2w_grey(t2w) -> float:
    """Return the brighter of WM and GM: what scans are relative to."""
    return max(float(t2w.image.data[t2w.tissues.of(name) > 0.99].mean()) for name in ("GM", "WM"))


def test_the_first_scan_is_the_frame_and_t1w_is_what_is_segmented(head, t2w):
    scans = (scanned(t2w.image, "T2w"), scanned(head.image, "T1w", (1, 2, 0), MOVED[0]))
    ready = prepare(scans, voxel_mm=6.0)
    assert ready.contrasts == ("T1w", "T2w")
    assert [stack.contrast for stack in ready.data.stacks] == [1, 0]
    assert ready.data.stacks[0].pose == Pose()
    left = apart(ready.data.stacks[1].pose, MOVED[0], scans[1].grid)
    assert left.angle_deg < 2
    assert left.distance_mm < 1.5
    # Segmented where the first scan lies, not where the T1w does.
    same = (ready.tissues.mask & head.mask).sum() * 2 / (ready.tissues.mask.sum() + head.mask.sum())
    assert float(same) > 0.9
    assert ready.resegment is not None


def test_scans_that_cannot_be_used_together_are_refused(head):
    scan = scanned(head.image, "T1w")
    with pytest.raises(BadInputError, match="got 1 scans and 2 weightings"):
        prepare(scan, weightings=("T1w", "T2w"))
    with pytest.raises(BadInputError, match="output voxel must lie between"):
        prepare((scan, scan), voxel_mm=20.0)
    far = np.array(scan.grid.affine)
    far[:3, 3] += 5000.0
    elsewhere = Volume(torch.rand(scan.grid.shape), dataclasses.replace(scan.grid, affine=far))
    with pytest.raises(BadInputError, match="do not overlap"):
        prepare((scan, elsewhere), voxel_mm=6.0, tissues=seen_by(head, scan))


def test_three_scans_lie_in_the_frame_of_the_first_when_another_is_segmented(head, monkeypatch):
    """Where points of the head lie, by hand: turns by 90 degrees about different axes, which do not commute."""
    scans = [
        scanned(head.image, name, order) for name, order in (("T2w", ORDER[0]), ("T1w", ORDER[1]), ("T2w", ORDER[2]))
    ]
    about_s = np.array([[0.0, -1, 0, 7], [1, 0, 0, -2], [0, 0, 1, 4], [0, 0, 0, 1]])
    about_r = np.array([[1.0, 0, 0, -3], [0, 0, -1, 5], [0, 1, 0, 1], [0, 0, 0, 1]])
    onto_second = {0: about_s, 2: about_r}
    number = {id(scan): n for n, scan in enumerate(scans)}
    monkeypatch.setattr("mrkit.superresolution.scans._motion", lambda scan, *_: onto_second[number[id(scan)]])
    found = align_scans(scans, ("T2w", "T1w", "T2w"), 1, seen_by(head, scans[1]))
    corner = np.array([3.0, 5.0, 2.0])
    for scan, stack, onto in zip(scans, found.stacks, (about_s, np.eye(4), about_r), strict=True):
        x, y, z = onto[:3, :3] @ to_world(scan.grid, corner) + onto[:3, 3]  # in the frame of the second
        expected = (y + 2, -(x - 7), z - 4)  # the first's turn undone
        assert to_world(stack.grid, corner) == pytest.approx(expected, abs=1e-6)
