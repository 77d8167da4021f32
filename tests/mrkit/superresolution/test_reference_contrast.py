"""A simulated scan mapped back to the contrast of the image it was made from."""

import pytest

from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.phantom import digital_head, head_grid
from mrkit.simulation.protocol import Changes, Gauge
from mrkit.simulation.simulate import SimulatedScan, simulate_ulf
from mrkit.superresolution.contrast import in_contrast_of, tissue_levels


@pytest.fixture(scope="module")
def simulated() -> tuple[Volume, TissueMap, SimulatedScan]:
    head = digital_head(head_grid(64), seed=4)
    made = simulate_ulf(head.image, changes=Changes(snr={"GM": 45.0}), tissues=head.tissues, seed=1)
    return head.image, head.tissues, made


def relative(levels: dict[str, float]) -> dict[str, float]:
    return {name: value / levels["WM"] for name, value in levels.items()}


def test_the_true_image_gets_its_own_contrast_back(simulated):
    volume, tissues, made = simulated
    before = relative(dict(tissue_levels(made.truth, tissues)))
    wanted = relative(dict(tissue_levels(volume, tissues)))
    assert abs(before["GM"] - wanted["GM"]) > 0.05  # or there would be nothing to map
    found = in_contrast_of(volume, made.scan, made.truth, tissues, reference_tissues=tissues)
    assert relative(dict(found.mapped.target)) == pytest.approx(wanted, rel=0.03)
    assert 0 < found.variance < 0.02
    assert "mapped by one rising curve" in found.notes[0]


def test_published_gains_that_take_a_tissue_away_cannot_be_undone(simulated):
    volume, tissues, made = simulated
    with pytest.raises(BadInputError, match="a gain of 0 cannot be undone"):
        in_contrast_of(volume, made.scan, made.truth, tissues, reference_tissues=tissues, gauge=Gauge.NONE)


def test_another_weighting_is_refused(simulated):
    volume, tissues, made = simulated
    t2w = Volume(volume.data, volume.grid, {**volume.meta, "SourceFile": "sub-01_T2w.nii.gz"})
    with pytest.raises(BadInputError, match="give a T1w reference"):
        in_contrast_of(t2w, made.scan, made.truth, tissues)
