"""What a command's files and options make of a job."""

import logging
from pathlib import Path

import pytest

from mrcore.data.grid import Grid
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import MissingExtraError
from mrcore.io.tissues import save_tissues
from mrcore.io.volumes import save_volume
from mrcore.phantom import digital_head, head_grid
from mrkit.anatomy.subject import read_subject
from mrkit.files.job import Job


@pytest.fixture(scope="module")
def head_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("head") / "head.nii.gz"
    head = digital_head(head_grid(48), seed=0, skull=True).image
    # Air is never exactly zero in a head scan.
    save_volume(Volume(head.data + 1e-3, Grid(head.grid.shape, head.grid.affine)), path, sidecar={})
    return path


def test_masker_that_is_asked_for_is_used(head_file, tmp_path, monkeypatch):
    calls = []

    def instead(volume):
        calls.append(volume.grid.shape)
        raise MissingExtraError('pip install "mrkit[deepbet]"')

    monkeypatch.setattr("mrkit.anatomy.subject.deepbet_brain_mask", instead)
    assert read_subject(Job(head_file, tmp_path)).mask is None, "the template is laid on later"
    assert calls == []
    with pytest.raises(MissingExtraError, match="deepbet"):
        read_subject(Job(head_file, tmp_path, masker="deepbet"))
    assert calls == [(48, 48, 48)]


def test_job_says_what_mask_and_tissues_come_from(tmp_path):
    scan = Path("scan.nii.gz")
    assert Job(scan, tmp_path).mask_used == "template"
    assert Job(scan, tmp_path, masker="deepbet").mask_used == "deepbet"
    assert Job(scan, tmp_path, mask=Path("m.nii.gz")).mask_used == "given mask"
    given = Job(scan, tmp_path, tissues=(Path("t.nii.gz"),), segmenter="fast")
    assert (given.mask_used, given.segmenter_used) == ("given tissue maps", "given tissue maps")
    assert Job(scan, tmp_path, segmenter="fast").segmenter_used == "fast"


def test_tissues_that_rounding_has_moved_are_laid_on_the_image(tmp_path, caplog):
    head = digital_head(head_grid(32), seed=0)
    save_volume(head.image, tmp_path / "hf_T1w.nii.gz", sidecar={"SeriesDescription": "T1 (AXI)"})
    affine = head.tissues.grid.affine.copy()
    affine[0, 3] += 0.03
    moved = TissueMap(head.tissues.prob, head.tissues.names, Grid(head.tissues.grid.shape, affine))
    maps = save_tissues(moved, tmp_path, "moved")
    with caplog.at_level(logging.WARNING):
        subject = read_subject(Job(tmp_path / "hf_T1w.nii.gz", tmp_path / "out", tissues=(maps[0],)))
    assert subject.tissues.grid is subject.volume.grid
    assert "lie 0.03 mm apart" in caplog.text


def test_a_sidecar_that_contradicts_the_name_is_followed_and_warned_of(tmp_path, caplog):
    head = digital_head(head_grid(32), seed=0)
    save_volume(head.image, tmp_path / "hf_T1w.nii.gz", sidecar={"SeriesDescription": "T2 (AXI)"})
    with caplog.at_level(logging.WARNING):
        assert read_subject(Job(tmp_path / "hf_T1w.nii.gz", tmp_path)).weighting == "T2w"
        assert "hf_T1w.nii.gz is taken as T2w, as SeriesDescription in its sidecar says" in caplog.text
        caplog.clear()
        assert read_subject(Job(tmp_path / "hf_T1w.nii.gz", tmp_path, weighting="T1w")).weighting == "T1w"
    assert caplog.text == ""
