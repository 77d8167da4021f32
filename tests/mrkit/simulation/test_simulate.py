"""`simulate_ulf` from Python, on digital heads: protocols, tissues, references, artefacts, and what the notes say."""

import pytest
import torch

from mrcore.data.acquisition import from_json
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.metrics.overlap import dice_by_tissue
from mrcore.phantom import digital_head, head_grid
from mrcore.spatial.resampling import resample
from mrkit.simulation.simulate import simulate_ulf
from ulfsim.artefacts.artefacts import to_json as artefacts_to_json
from ulfsim.artefacts.draws import STRONG


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(41), seed=4)


@pytest.fixture(scope="module")
def simulated(head):
    return simulate_ulf(head.image, tissues=head.tissues, seed=1)


def test_simulation_has_the_voxels_of_the_preset_and_says_how_it_was_made(head, simulated):
    assert simulated.scan.grid.spacing_mm == pytest.approx((1.6, 1.6, 5.0))
    assert simulated.truth.grid.matches(head.grid)
    assert torch.equal(simulated.mask, head.mask)
    assert simulated.tissues is head.tissues
    assert from_json(simulated.scan.meta) == simulated.acquisition
    assert simulated.acquisition.noise_sd > 0
    assert "tissues: given maps" in simulated.notes
    assert any(note.startswith("protocol: Hyperfine Swoop T1w") for note in simulated.notes)
    assert len(set(simulated.notes)) == len(simulated.notes)


def test_presets_differ_in_voxel_and_contrast(head, simulated):
    other = simulate_ulf(head.image, preset="hyperfine-t2w", tissues=head.tissues, seed=1)
    assert other.scan.grid.spacing_mm == pytest.approx((1.5, 1.5, 5.0))

    def fluid_over_white(done):
        return (done.truth.data[head.tissues.of("CSF") > 0.99].mean() / done.truth.data[white].mean()).item()

    white = head.tissues.of("WM") > 0.99
    assert fluid_over_white(simulated) < 0.4
    assert fluid_over_white(other) > 1.5


def test_wm_snr_sets_the_noise(head):
    white = head.tissues.of("WM") > 0.9999
    for wm_snr in (20.0, 60.5):
        done = simulate_ulf(head.image, tissues=head.tissues, wm_snr=wm_snr)
        snr = done.truth.data[white].mean().item() / done.acquisition.noise_sd
        assert snr == pytest.approx(wm_snr, rel=0.1)


def test_seed_changes_the_noise_alone(head, simulated):
    same, other = (simulate_ulf(head.image, tissues=head.tissues, seed=s) for s in (1, 2))
    assert torch.equal(same.scan.data, simulated.scan.data)
    assert not torch.equal(other.scan.data, simulated.scan.data)
    assert torch.equal(other.truth.data, simulated.truth.data)


def test_tissues_are_found_where_none_are_given_and_the_notes_name_the_segmenter(head):
    done = simulate_ulf(head.image)
    assert any("skull-stripped" in note for note in done.notes)
    assert any(note.startswith("tissues: HMRF-EM") for note in done.notes)
    assert (done.mask & head.mask).sum() > 0.95 * head.mask.sum()
    scores = dice_by_tissue(head.tissues, done.tissues)
    assert scores["WM"] > 0.8


def test_given_mask_bounds_the_tissues(head):
    half = head.mask.clone()
    half[:20] = False
    for given in ({}, {"tissues": head.tissues}):
        done = simulate_ulf(head.image, mask=half, **given)
        assert not bool(done.mask[:20].any())
        assert done.mask[20:].sum() > 0.95 * half.sum()


def test_like_takes_voxel_and_snr_of_a_real_scan(head):
    """The reference is stripped: its air is zero."""
    reference = simulate_ulf(head.image, tissues=head.tissues, wm_snr=30.0).scan
    mask = resample(Volume(head.mask.float(), head.grid), reference.grid).data > 0.5
    stripped = Volume(reference.data * mask, reference.grid, {"EchoTime": 0.0071})
    done = simulate_ulf(head.image, tissues=head.tissues, like=stripped, preset="is not looked at")
    assert done.scan.grid.spacing_mm == pytest.approx(reference.grid.spacing_mm)
    assert done.acquisition.sequence.te_s == 0.0071
    white = head.tissues.of("WM") > 0.9999
    assert done.truth.data[white].mean().item() / done.acquisition.noise_sd == pytest.approx(30.0, rel=0.25)
    assert any("measured in the reference scan" in note for note in done.notes)


def test_several_real_scans_give_a_distribution(head):
    """Two scans stand for a scanner: their voxels are kept, and SNRs differ from seed to seed."""
    made = [simulate_ulf(head.image, tissues=head.tissues, wm_snr=snr, seed=7) for snr in (30.0, 60.0)]
    given = {"like": [m.scan for m in made], "like_tissues": [m.scan_tissues for m in made]}
    done = [simulate_ulf(head.image, tissues=head.tissues, seed=seed, **given) for seed in (1, 2)]
    snr = [d.preset.snr["WM"] for d in done]
    assert snr[0] != snr[1]
    assert all(15 < value < 120 for value in snr), snr
    assert done[0].acquisition.voxel_mm == pytest.approx((1.6, 1.6, 5.0))
    with pytest.raises(BadInputError, match="2 reference scans need as many tissue maps, got 1"):
        simulate_ulf(head.image, tissues=head.tissues, like=given["like"], like_tissues=given["like_tissues"][:1])


def _bandwidths_hz(values) -> set[float]:
    """All bandwidths in JSON values of artefacts."""
    if isinstance(values, dict):
        own = {values["bandwidth_hz"]} if "bandwidth_hz" in values else set()
        return own.union(*map(_bandwidths_hz, values.values()))
    return set().union(*map(_bandwidths_hz, values)) if isinstance(values, list | tuple) else set()


def test_bandwidth_of_drawn_artefacts_may_be_given(head):
    given = {"artefacts": STRONG, "tissues": head.tissues, "seed": 1}
    drawn = simulate_ulf(head.image, pixel_bandwidth_hz=130.0, **given)
    assert _bandwidths_hz(artefacts_to_json(drawn.simulation.artefacts)) == {130.0}
    with pytest.raises(BadInputError, match="give a range of artefacts"):
        simulate_ulf(head.image, tissues=head.tissues, pixel_bandwidth_hz=130.0)


@pytest.mark.slow
def test_bandwidth_of_drawn_artefacts_is_that_of_the_real_scan(head):
    made = simulate_ulf(head.image, tissues=head.tissues, wm_snr=60.0)
    like = Volume(made.scan.data, made.scan.grid, {"PixelBandwidth": 97})
    given = {"artefacts": STRONG, "tissues": head.tissues, "seed": 1}
    done = simulate_ulf(head.image, like=like, like_tissues=[made.scan_tissues], **given)
    assert _bandwidths_hz(artefacts_to_json(done.simulation.artefacts)) == {97.0}
    assert any("readout of 97 Hz per voxel" in note for note in done.notes)


def test_artefacts_are_drawn_from_ranges_and_applied_as_they_are(head, simulated):
    drawn = simulate_ulf(head.image, tissues=head.tissues, artefacts=STRONG, seed=1)
    found = drawn.simulation.artefacts
    assert found.names
    again = simulate_ulf(head.image, tissues=head.tissues, artefacts=found, seed=1)
    assert again.scan.data.equal(drawn.scan.data)
    assert drawn.truth.data.equal(simulated.truth.data), "artefacts disturb the scan, not what it shows"
    assert not drawn.scan.data.equal(simulated.scan.data)


def test_t2w_of_a_t1w_scan_is_said_to_be_approximate(head, simulated):
    other = simulate_ulf(head.image, preset="hyperfine-t2w", tissues=head.tissues)
    assert any("approximate" in note for note in other.notes)
    assert not any("reversed" in note for note in other.notes)
    assert not any("approximate" in note for note in simulated.notes)
