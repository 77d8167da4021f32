"""What the values of an image are taken for: a ball of tissue in air, stored in all the ways that are seen."""

import numpy as np
import pytest

from mrcore.intensities import fill_outside, understand
from mrcore.notes import Severity

SHAPE = (40, 44, 36)
PLACE = np.stack(np.meshgrid(*[np.linspace(-1.4, 1.4, n) for n in SHAPE], indexing="ij"))
RADIUS = np.linalg.norm(PLACE, axis=0)
BRAIN = RADIUS < 1
RNG = np.random.default_rng(3)
# Tissue from 200 to 1000 with some texture; whole numbers, 0 outside.
TISSUE = np.rint(np.where(BRAIN, 600 + 300 * np.sin(9 * PLACE).sum(0) / 3 + 60 * RNG.normal(size=SHAPE), 0)).clip(0)
NOISE = [20 * RNG.normal(size=SHAPE) for _ in range(2)]
NOISY = np.hypot(TISSUE + NOISE[0], NOISE[1])


def wrapped(values, bits=16):
    """Whole numbers as signed integers of so many bits hold them."""
    half = 2 ** (bits - 1)
    return (values.astype(np.int64) + half) % (2 * half) - half


def z_scores(values, inside):
    return (values - values[inside].mean()) / values[inside].std()


def holes(values, bad):
    return fill_outside(np.where(bad, np.nan, values).astype(np.float32))


def found(values):
    return understand(np.ascontiguousarray(values, np.float32))


@pytest.mark.parametrize("values", [
    TISSUE, TISSUE / TISSUE.max(), TISSUE * 1e-6, NOISY, NOISY / NOISY.max(), np.rint(NOISY), np.rint(NOISY / 8)
], ids=["stripped", "0 to 1", "tiny", "noisy", "noisy, 0 to 1", "noisy integers", "few integers"])  # fmt: skip
def test_magnitudes_are_left_as_they_are(values):
    result = found(values)
    assert result.problems == ()
    assert np.array_equal(result.data, values.astype(np.float32))


@pytest.mark.parametrize(("values", "truth", "text"), [
    (TISSUE - 1, TISSUE, "the background is -1 everywhere, not 0"),
    (TISSUE + 1000, TISSUE, "the background is 1000 everywhere, not 0"),
    (TISSUE - 1024, TISSUE, "the background is -1024 everywhere, not 0"),
    (2 * TISSUE / TISSUE.max() - 1, 2 * TISSUE / TISSUE.max(), "the background is -1 everywhere"),
    (z_scores(TISSUE, TISSUE >= 0), TISSUE / TISSUE.std(), "everywhere, not 0"),
    (2 * NOISY / NOISY.max() - 1, 2 * NOISY / NOISY.max(), "the noise in the air begins at -"),
    (z_scores(NOISY, NOISY >= 0), NOISY / NOISY.std(), "the noise in the air begins at -"),
    (NOISY + 500, NOISY, "the noise in the air begins at 500"),
])  # fmt: skip
def test_a_zero_that_lies_elsewhere_is_put_at_zero_and_said(values, truth, text):
    result = found(values)
    assert [(p.severity, text in p.text) for p in result.problems] == [(Severity.CAUTION, True)]
    assert "subtracted from all voxels" in result.problems[0].text
    # The lowest of many voxels of noise is 0 but for a part of the noise.
    assert np.abs(result.data - truth).max() < 2e-3 * truth.max()


@pytest.mark.parametrize(("values", "text"), [
    (np.where(BRAIN, z_scores(TISSUE, BRAIN), 0), "this is no magnitude"),
    (TISSUE + NOISE[0], "this is no magnitude"),
    (TISSUE + NOISE[0] / 10, "this is no magnitude"),
    (RNG.uniform(-np.pi, np.pi, SHAPE), "this is no magnitude"),
    (np.where(BRAIN, 3 * np.sin(4 * PLACE[0]), 0), "this is no magnitude"),
    (wrapped(TISSUE * 45), "integers overflowed"),
    (wrapped(np.rint(NOISY) * 45), "integers overflowed"),
    (wrapped(TISSUE / 6, bits=8), "integers overflowed"),
    (1000 - TISSUE, "the background (1000) is brighter than the object"),
    (np.minimum(TISSUE, 600), "tissues cannot be told apart"),
    (np.where(RNG.random(SHAPE) < 0.2, 0.0, 0.6 + 0.4 * NOISY / NOISY.max())[BRAIN.any((1, 2))] + 9, "offset"),
    (np.full(SHAPE, 7.0), "the image is constant: every voxel is 7"),
    (BRAIN, "this is a mask (0 and 1)"),
    (np.where(BRAIN, 255, 0), "this is a mask (0 and 255)"),
    (np.where(BRAIN, 0.35, 0), "this is a mask (0 and 0.35)"),
    (np.digitize(RADIUS, [0.5, 0.8, 1.0]), "this is a label map (4 whole numbers from 0 to 3"),
    (np.kron(RNG.integers(0, 1500, (8, 11, 9)), np.ones((5, 4, 4))), "this is a label map ("),
    (np.clip((1.1 - RADIUS) / 0.3, 0, 1), "this is a mask or probability map"),
])  # fmt: skip
def test_what_can_be_no_magnitude_is_refused(values, text):
    problems = found(values).problems
    assert [p.severity for p in problems if text in p.text] == [Severity.REFUSE], problems


@pytest.mark.parametrize(("values", "severity", "text"), [
    (np.minimum(TISSUE, np.percentile(TISSUE[BRAIN], 97)), Severity.CAUTION, "intensities were cut off"),
    (np.where(RADIUS < 0.25, NOISY, 0), Severity.CAUTION, "there is little in this image"),
    (np.select([RADIUS < 0.5, RADIUS < 1], [0.9, 0.5], 0.1 * (RADIUS < 1.1)), Severity.NOTE, "this was computed"),
    (np.where(BRAIN, TISSUE, -5.0 * (RADIUS < 1.01)), Severity.CAUTION, "as interpolation makes them"),
])  # fmt: skip
def test_what_is_doubtful_is_said(values, severity, text):
    result = found(values)
    assert [(p.severity, text in p.text) for p in result.problems] == [(severity, True)]
    assert result.data.min() >= 0


def test_a_background_of_nan_or_infinity_is_zero_and_within_the_object_they_are_refused():
    data, problems = holes(TISSUE, ~BRAIN)
    assert np.array_equal(data, TISSUE * BRAIN)
    assert [p.severity for p in problems] == [Severity.CAUTION]
    assert "they are the background, and were set to 0" in problems[0].text
    assert holes(TISSUE, BRAIN & (RADIUS < 0.1))[1][0].severity is Severity.REFUSE
    infinite = fill_outside(np.where(BRAIN, TISSUE, -np.inf).astype(np.float32))
    assert np.array_equal(infinite[0], data)
    assert fill_outside(np.full((3, 3, 3), np.nan, np.float32))[1][0].severity is Severity.REFUSE


def test_slices_that_were_repeated_are_no_labels():
    assert not found(np.repeat(np.rint(TISSUE / 40), 5, axis=2)).is_map
