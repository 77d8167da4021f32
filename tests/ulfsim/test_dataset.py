"""Pairs that depend on seed and number alone, and are what they claim to be."""

import dataclasses
import hashlib
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mrcore.data.acquisition import from_json
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator, predict
from mrcore.io.tissues import save_tissues
from mrcore.io.volumes import save_volume
from mrcore.phantom import digital_head, head_grid
from ulfsim.artefacts.draws import MILD
from ulfsim.dataset import Pair, SimulatedPairs, SourceFiles
from ulfsim.protocols.presets import PRESETS
from ulfsim.protocols.ranges import SWOOP_LIKE
from ulfsim.source.source import source_of

RANGES = dataclasses.replace(
    SWOOP_LIKE, in_plane_mm=(6.0, 8.0), slice_mm=(9.0, 14.0), tilt_deg=(-5.0, 5.0), artefacts=None
)


def small_head(seed):
    head = digital_head(head_grid(32), seed=seed)
    return source_of(head.image, head.tissues)


class Head:
    """A source that is made when it is needed."""

    def __init__(self, seed):
        self.seed = seed

    def __call__(self):
        return small_head(self.seed)


@pytest.fixture(scope="module")
def sources():
    return [small_head(1), small_head(2)]


def digest(pair):
    parts = [p.numpy().tobytes() if isinstance(p, torch.Tensor) else repr(p).encode() for p in pair]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def only(items):
    return items[0]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_same_bytes_for_any_number_of_workers(sources):
    ranges = dataclasses.replace(RANGES, artefacts=MILD)
    pairs = SimulatedPairs([sources[0], Head(2)], ranges, seed=7, n_per_source=4)
    found = {
        n: [digest(pair) for pair in DataLoader(pairs, batch_size=1, num_workers=n, collate_fn=only)] for n in (0, 1, 8)
    }
    assert found[0] == found[1] == found[8]
    assert len(set(found[0])) == 8


def test_same_bytes_in_another_process_in_any_order(sources):
    code = (
        "import hashlib, sys\n"
        "from dataclasses import replace\n"
        "from mrcore.phantom import digital_head, head_grid\n"
        "from ulfsim.dataset import SimulatedPairs\n"
        "from ulfsim.protocols.ranges import SWOOP_LIKE\n"
        "from ulfsim.source.source import source_of\n"
        "heads = [digital_head(head_grid(32), seed=s) for s in (1, 2)]\n"
        "ranges = replace(SWOOP_LIKE, in_plane_mm=(6.0, 8.0), slice_mm=(9.0, 14.0), tilt_deg=(-5.0, 5.0),\n"
        "                 artefacts=None)\n"
        "pairs = SimulatedPairs([source_of(h.image, h.tissues) for h in heads], ranges, seed=7, n_per_source=2)\n"
        "for i in (3, 0):\n"
        "    print(hashlib.sha256(pairs[i].scan.numpy().tobytes()).hexdigest())\n"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    pairs = SimulatedPairs(sources, RANGES, seed=7, n_per_source=2)
    assert [hashlib.sha256(pairs[i].scan.numpy().tobytes()).hexdigest() for i in (3, 0)] == there
    other = SimulatedPairs(sources, RANGES, seed=8)[0]
    assert not torch.equal(other.truth, pairs[0].truth)


def test_threads_change_no_byte(sources):
    pairs = SimulatedPairs(sources, RANGES, seed=7)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = digest(pairs[0])
        torch.set_num_threads(2)
        assert digest(pairs[0]) == one
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_scan_is_the_prediction_from_its_truth_and_noise(sources):
    ranges = dataclasses.replace(RANGES, noise_fwhm_voxels=(0.0, 0.0), wm_snr=(30.0, 60.0))
    for pair in SimulatedPairs(sources, ranges, seed=1):
        truth_grid, scan_grid = (
            Grid(tuple(data.shape[1:]), affine.numpy())
            for data, affine in ((pair.truth, pair.truth_affine), (pair.scan, pair.scan_affine))
        )
        acquisition = from_json(json.loads(pair.settings))
        assert acquisition.noise_sd == pair.noise_sd
        assert scan_grid.spacing_mm == pytest.approx(acquisition.voxel_mm)
        clean = predict(imaging_operator(truth_grid, scan_grid, acquisition.psf), pair.truth[0])
        bright = clean > 8 * pair.noise_sd
        residual = (pair.scan[0] - clean)[bright]
        assert float(residual.std()) == pytest.approx(pair.noise_sd, rel=0.1)
        assert abs(float(residual.mean())) < 0.2 * pair.noise_sd
        assert float(pair.scan.std()) > 5 * pair.noise_sd


def test_facts_of_a_pair_are_those_of_its_draw(sources):
    stated = [json.loads(pair.settings) for pair in SimulatedPairs(sources, RANGES, seed=2, n_per_source=3)]
    assert [facts["Source"] for facts in stated] == [0, 1] * 3
    # In voxels of 6 mm dark CSF may ask for gains below 0, which are not given.
    reached = [facts for facts in stated if not any("out of reach" in warning for warning in facts["Warnings"])]
    assert reached
    for facts in reached:
        assert facts["PredictedSnr"] == pytest.approx(facts["TargetSnr"], rel=0.01)
    for facts in stated:
        acquisition = from_json(facts)
        assert RANGES.in_plane_mm[0] <= acquisition.voxel_mm[0] <= RANGES.in_plane_mm[1]
        assert RANGES.slice_mm[0] <= acquisition.voxel_mm[2] <= RANGES.slice_mm[1]
        assert RANGES.wm_snr[0] <= facts["TargetSnr"]["WM"] <= RANGES.wm_snr[1]
        assert facts["Artefacts"] == {}
    assert len({facts["Seed"] for facts in stated}) == len(stated)


def test_high_is_the_source_and_truth_its_contrast(sources):
    pair = SimulatedPairs(sources, RANGES, seed=2)[1]
    assert torch.equal(pair.high[0], sources[1].volume.data)
    inside = sources[1].tissues.mask
    assert not torch.allclose(pair.high[0][inside], pair.truth[0][inside], rtol=0.05)


def test_on_the_truth_grid_scan_and_object_coincide(sources):
    pair = SimulatedPairs(sources, RANGES, seed=2, on_truth_grid=True)[0]
    assert pair.scan.shape == pair.truth.shape == pair.high.shape
    assert torch.equal(pair.scan_affine, pair.truth_affine)
    weights = [image[0].double() * (image[0] > 0.25 * image.max()) for image in (pair.scan, pair.truth)]
    index = torch.stack(torch.meshgrid(*[torch.arange(n) for n in pair.truth.shape[1:]], indexing="ij"), -1).double()
    centres = [(w[..., None] * index).sum((0, 1, 2)) / w.sum() for w in weights]
    assert float((centres[0] - centres[1]).abs().max()) < 0.3


def test_patches_are_blocks_of_the_whole(sources):
    shape = (12, 10, 14)
    whole = SimulatedPairs(sources, RANGES, seed=2, on_truth_grid=True, n_per_source=3)
    starts = set()
    for cut, full in zip(SimulatedPairs(sources, RANGES, seed=2, patch=shape, n_per_source=3), whole, strict=True):
        step = np.linalg.solve(full.truth_affine.numpy(), cut.truth_affine.numpy())
        assert step[:3, :3] == pytest.approx(np.eye(3))
        start = [round(v) for v in step[:3, 3]]
        starts.add(tuple(start))
        window = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
        for a, b in ((cut.truth, full.truth), (cut.high, full.high), (cut.scan, full.scan)):
            assert torch.allclose(a[0], b[0][window], atol=1e-5)
        assert float(cut.truth.max()) > 0
    assert len(starts) > 3


def test_patches_larger_than_the_head_are_padded_and_collate(sources):
    other = digital_head(head_grid(30), seed=3)
    mixed = [sources[0], source_of(other.image, other.tissues)]
    pairs = SimulatedPairs(mixed, RANGES, seed=2, patch=(40, 32, 36))
    batch = next(iter(DataLoader(pairs, batch_size=2)))
    assert isinstance(batch, Pair)
    assert batch.scan.shape == batch.truth.shape == batch.high.shape == (2, 1, 40, 32, 36)
    assert batch.truth_affine.shape == (2, 4, 4)
    assert batch.noise_sd.shape == (2,)
    assert float(batch.truth[:, 0, 0].abs().max()) == 0  # air
    for image, source in zip(batch.high, mixed, strict=True):
        assert float(image.max()) == float(source.volume.data.max())


def test_sources_are_loaded_when_needed_and_few_are_kept(tmp_path):
    head = digital_head(head_grid(32), seed=1)
    save_volume(head.image, tmp_path / "t1.nii.gz", sidecar={})
    written = save_tissues(head.tissues, tmp_path, "t1", sidecar={})
    maps = [next(p for p in written if f"label-{name}_" in p.name) for name in ("CSF", "GM", "WM")]
    files = SourceFiles(tmp_path / "t1.nii.gz", tuple(maps))
    pairs = SimulatedPairs([files, Head(2), Head(3)], RANGES, seed=7, n_cached=2)
    direct = SimulatedPairs([small_head(1), Head(2), Head(3)], RANGES, seed=7)
    assert torch.allclose(pairs[0].scan, direct[0].scan, rtol=1e-3, atol=1e-4)
    _ = pairs[1], pairs[2]
    assert list(pairs._loaded) == [1, 2]
    assert pickle.loads(pickle.dumps(pairs))._loaded == {}
    missing = SimulatedPairs([SourceFiles(tmp_path / "none.nii.gz", tuple(maps))], RANGES, seed=7)
    with pytest.raises(BadInputError, match=r"none\.nii\.gz"):
        missing[0]


def test_bad_requests_are_refused(sources):
    with pytest.raises(BadInputError, match="no sources"):
        SimulatedPairs([], RANGES, 0)
    with pytest.raises(BadInputError, match="at least 1"):
        SimulatedPairs(sources, RANGES, 0, n_per_source=0)
    with pytest.raises(BadInputError, match="at least 1"):
        SimulatedPairs(sources, RANGES, 0, patch=(4, 4, 0))
    pairs = SimulatedPairs(sources, RANGES, 0, n_per_source=2)
    assert len(pairs) == 4
    for index in (4, -1):
        with pytest.raises(IndexError, match="0 to 3"):
            pairs[index]


def test_contrast_that_reorders_the_tissues_is_synthesised(sources):
    ranges = dataclasses.replace(RANGES, protocols=(PRESETS["hyperfine-t2w"],))
    pair = SimulatedPairs(sources, ranges, seed=1)[0]
    assert any("approximate" in warning for warning in json.loads(pair.settings)["Warnings"])
    other = SimulatedPairs(sources, dataclasses.replace(RANGES, protocols=(PRESETS["hyperfine-t1w"],)), seed=1)[0]
    assert not any("approximate" in warning for warning in json.loads(other.settings)["Warnings"])
