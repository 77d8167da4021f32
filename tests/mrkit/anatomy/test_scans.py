"""Scans in folders: what is looked at, and what is left out."""

import json
import logging

import nibabel as nib
import numpy as np
import pytest

from mrcore.errors import BadInputError
from mrkit.anatomy.scans import ScanFile, find_scans, usable_scans
from mrkit.cli import build_parser
from mrkit.simulation.job import job_of_simulation

ANNEX = "../.git/annex/objects/a/b/MD5E-s1--0.nii.gz/MD5E-s1--0.nii.gz"


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(0).uniform(1, 9, (4, 5, 6)).astype(np.float32)
    nib.Nifti1Image(data, np.diag([2.0, 2.0, 5.0, 1.0])).to_filename(path)
    return path


def names(scans):
    return [scan.path.name for scan in scans]


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    write(tmp_path / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    write(tmp_path / "sub-02" / "anat" / "scan.nii")
    (tmp_path / "sub-03_T1w.nii.gz").symlink_to(ANNEX)
    for name in ("sub-01_bold.nii.gz", "sub-01_T2starw.nii", "sub-01_dseg.nii.gz", "._sub-01_T1w.nii.gz", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    for name in (".git/annex/objects/x/MD5E-s9--1_T1w.nii.gz", ".git/annex/objects/x/y.nii"):
        write(tmp_path / name)
    return tmp_path


def test_folders_are_searched_for_scans_and_nothing_else(folder):
    found = find_scans(folder, "--real")
    assert names(found) == ["sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz", "scan.nii", "sub-03_T1w.nii.gz"]
    assert [scan.weighting for scan in found] == ["T1w", "T2w", "T1w", "T1w"]


def test_only_the_asked_contrast_is_looked_at(folder):
    assert names(find_scans(folder, "--real", "T2w")) == ["sub-01_T2w.nii.gz", "scan.nii"]
    assert {scan.weighting for scan in find_scans(folder, "--real", "T2w")} == {"T2w"}
    (folder / "sub-02" / "anat" / "scan.json").write_text(
        json.dumps({"Acquisition": {"sequence": {"weighting": "FLAIR"}}})
    )
    assert names(find_scans(folder, "--real", "FLAIR")) == ["scan.nii"]
    with pytest.raises(BadInputError, match=r"holds no FLAIR image for --real: by name or sidecar all 2 are T1w, T2w"):
        find_scans(folder / "sub-01", "--real", "FLAIR")
    # One file that is named is of the contrast that is said.
    assert find_scans(folder / "sub-01" / "anat" / "sub-01_T1w.nii.gz", "--real", "FLAIR")[0].weighting == "FLAIR"


def test_what_cannot_be_read_is_left_out_with_its_reason(folder, caplog):
    (folder / "torn_T1w.nii.gz").write_bytes(b"\x1f\x8b torn")
    with caplog.at_level(logging.WARNING, "mrkit"):
        good, left_out = usable_scans(find_scans(folder, "--real", "T1w"), "--real")
    assert names(good) == ["sub-01_T1w.nii.gz", "scan.nii"]
    assert [text.split()[0] for text in left_out] == ["sub-03_T1w.nii.gz", "torn_T1w.nii.gz"]
    assert "run `git annex get sub-03_T1w.nii.gz`" in left_out[0]
    assert "gzip stream is truncated or damaged" in left_out[1]
    assert caplog.messages == list(left_out)


def test_nothing_usable_is_an_error(tmp_path):
    assert usable_scans((), "--source") == ((), ())
    (tmp_path / "a.nii").write_bytes(b"")
    scan = ScanFile(tmp_path / "a.nii", "T1w", "a")
    with pytest.raises(BadInputError, match=r"--real has no image that can be used: .*a\.nii is empty"):
        usable_scans([scan], "--real")
    with pytest.raises(BadInputError, match=r"\(2 images, none can be used\)"):
        usable_scans([scan, scan], "--real")


def test_reference_scans_of_a_folder_are_left_out_but_not_one_that_is_named(folder):
    def job(*like):
        arguments = ["simulate", "hf.nii.gz", "out", "--like", *map(str, like)]
        return job_of_simulation(build_parser().parse_args(arguments))

    found = job(folder)
    assert [path.name for path in found.like] == ["sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz", "scan.nii"]
    assert [text.split()[0] for text in found.left_out] == ["sub-03_T1w.nii.gz"]
    named = job(folder / "sub-03_T1w.nii.gz")
    assert [path.name for path in named.like] == ["sub-03_T1w.nii.gz"]
    assert named.left_out == ()
