"""Files that are not what their name says: read where that is safe, else refused with what they are."""

import gzip
import logging
import os
import re

import nibabel as nib
import numpy as np
import pytest

from mrcore.errors import BadInputError
from mrcore.io.file_content import refuse_unfetched
from mrcore.io.sidecar import read_sidecar
from mrcore.io.volumes import load_volume
from mrkit.cli import main

AFFINE = np.diag([1.5, 1.5, 4.0, 1.0])
DATA = np.random.default_rng(1).uniform(1, 100, (8, 9, 10)).astype(np.float32)
ANNEX = ".git/annex/objects/1z/9Q/MD5E-s34--0/MD5E-s34--0.nii.gz"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 5242880\n"


def nifti(kind=nib.Nifti1Image) -> bytes:
    return kind(DATA, AFFINE).to_bytes()


def mgh() -> bytes:
    return nib.MGHImage(DATA, AFFINE).to_bytes()


READABLE = {
    "zeros after gzip": ("a.nii.gz", gzip.compress(nifti()) + bytes(512), "512 bytes of 0 after the end of the gzip"),
    "rest after gzip": ("a.nii.gz", gzip.compress(nifti()) + b"<html>", "6 bytes after the end of the gzip stream are"),
    "zeros after data": ("a.nii", nifti() + bytes(7), "7 bytes of 0 after the data were ignored"),
    "rest after data": ("a.nii.gz", gzip.compress(nifti() + b"junk"), "4 bytes after the data, which are not 0"),
    "two images joined": ("a.nii.gz", gzip.compress(nifti()) * 2, "3232 bytes after the data, which are not 0"),
    "gzip named .nii": (
        "a.nii",
        gzip.compress(nifti()),
        r"name ends in \.nii, but this is NIfTI-1 compressed with gzip",
    ),
    "plain named .nii.gz": ("a.NII.GZ", nifti(nib.Nifti2Image), r"this is NIfTI-2 without compression.*name it \.nii$"),
    "MGH named .nii": ("a.nii", mgh(), r"name ends in \.nii, but this is MGH without compression.*name it \.mgh"),
    "MGZ named .nii.gz": ("a.nii.gz", gzip.compress(mgh()), r"this is MGH compressed with gzip.*name it \.mgz"),
    "NIfTI named .mgz": ("a.mgz", gzip.compress(nifti()), r"this is NIfTI-1 compressed with gzip.*name it \.nii\.gz"),
}


@pytest.mark.parametrize(("name", "content", "message"), READABLE.values(), ids=READABLE.keys())
def test_what_is_safe_is_read_with_a_warning(tmp_path, caplog, name, content, message):
    (tmp_path / name).write_bytes(content)
    with caplog.at_level(logging.WARNING, "mrcore"):
        volume = load_volume(tmp_path / name)
    assert np.array_equal(volume.data.numpy(), DATA)
    assert len(volume.meta["Warnings"]) == 1
    assert caplog.messages == volume.meta["Warnings"]
    assert re.search(message, volume.meta["Warnings"][0])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nii.gz", gzip.compress(nifti())),
        ("a.nii", nifti()),
        ("a.mgz", gzip.compress(mgh() + b"tags")),
        ("a.mgh", mgh()),
        ("A.NII", nifti()),
        # bgzip and pigz write an image as several streams.
        ("a.nii.gz", gzip.compress(nifti()[:500]) + gzip.compress(nifti()[500:])),
        ("a.nii.gz", gzip.compress(nifti()[:500]) + bytes(5) + gzip.compress(nifti()[500:])),
        ("no-suffix", nifti()),
    ],
)
def test_what_is_right_is_read_without_a_word(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    volume = load_volume(tmp_path / name)
    assert volume.meta["Warnings"] == []
    assert np.array_equal(volume.data.numpy(), DATA)


TAGS = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"
REFUSED = {
    "DICOM": (bytes(128) + b"DICM" + bytes(400), "is a DICOM file; convert the series to NIfTI with dcm2niix"),
    "DICOM in gzip": (gzip.compress(bytes(128) + b"DICM" + bytes(400)), "is a DICOM file"),
    "DICOM without preamble": (TAGS + bytes(400), "is a DICOM file"),
    "NRRD": (b"NRRD0004\ntype: short\n", "is an NRRD image; convert it to NIfTI"),
    "MetaImage": (b"ObjectType = Image\n", "is a MetaImage"),
    "MINC 1": (b"CDF\x01" + bytes(400), "is a MINC 1 image; convert it to NIfTI with mnc2nii"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(400), "is an HDF5 file: a MINC 2 image"),
    "Analyze": ((348).to_bytes(4, "little") + bytes(344), "header of Analyze 7.5, which does not say left from right"),
    "ZIP": (b"PK\x03\x04" + bytes(400), "is a ZIP archive"),
    "bzip2": (b"BZh91AY" + bytes(400), "is compressed with bzip2"),
    "picture": (b"\x89PNG\r\n" + bytes(400), "is a PNG picture; give the scan itself"),
    "web page": (b"\n <!DOCTYPE html><html>404", "is a web page, such as a server sends"),
    "text": (b"this is no image " * 50, "is not a NIfTI-1, NIfTI-2 or MGH image"),
    "twice compressed": (gzip.compress(gzip.compress(nifti())), "is compressed twice"),
    "cut gzip": (gzip.compress(nifti())[:-600], "gzip stream is truncated or damaged"),
    "cut second stream": (gzip.compress(nifti()[:500]) + gzip.compress(nifti()[500:])[:-9], "it ends before its end"),
    "empty": (b"", r"is empty \(0 bytes\)"),
    "Git LFS": (LFS, "is not fetched: it is a pointer of Git LFS.*run `git lfs pull --include=a.nii`"),
    "annex pointer": (f"/annex/objects/{ANNEX[-12:]}\n".encode(), "is not fetched.*run `git annex get a.nii`"),
    "annex link as text": (f"../../{ANNEX}".encode(), "is not fetched.*run `git annex get a.nii`"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_image_is_named(tmp_path, content, message):
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(BadInputError, match=message) as raised:
        load_volume(tmp_path / "a.nii")
    assert str(tmp_path / "a.nii") in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (f"../../{ANNEX}", "is not fetched: git-annex.*run `git annex get a.nii.gz`"),
        ("moved/b.nii.gz", "is a link to moved/b.nii.gz, which is not there; mend the link"),
        ("a.nii.gz", "is a link to a.nii.gz, which is not there"),
    ],
)
def test_links_to_nothing_are_named_by_every_reader(tmp_path, capsys, target, message):
    link = tmp_path / "a.nii.gz"
    link.symlink_to(target)
    with pytest.raises(BadInputError, match=message):
        load_volume(link)
    assert main(["info", str(link)]) == 2
    text = capsys.readouterr()
    assert target.split("/")[0] in text.out + text.err or "git annex get" in text.out + text.err
    assert "no such file" not in text.out + text.err


def test_a_sidecar_that_was_not_fetched_is_said(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti())
    (tmp_path / "a.json").symlink_to(f"../{ANNEX}")
    with pytest.raises(BadInputError, match=r"run `git annex get a\.json`"):
        read_sidecar(tmp_path / "a.nii")
    assert "git annex get a.json" in load_volume(tmp_path / "a.nii").meta["Warnings"][0]


def test_folders_say_what_they_hold(tmp_path):
    folder = tmp_path / "a.nii.gz"
    folder.mkdir()
    with pytest.raises(BadInputError, match=r"is a folder; give one NIfTI or MGH image \(a folder of DICOM"):
        load_volume(folder)
    (folder / "a.nii").write_bytes(nifti())
    with pytest.raises(BadInputError, match=r"it holds 1, such as a\.nii"):
        load_volume(folder)


def test_pipes_are_refused_before_they_are_read(tmp_path):
    os.mkfifo(tmp_path / "a.nii")
    with pytest.raises(BadInputError, match="is no regular file"):
        load_volume(tmp_path / "a.nii")


def test_what_is_there_or_missing_altogether_is_not_unfetched(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti())
    (tmp_path / "b.nii").symlink_to("a.nii")
    for name in ("a.nii", "b.nii", "c.nii"):
        refuse_unfetched(tmp_path / name)


def test_strict_stops_at_a_wrong_name(tmp_path, capsys):
    (tmp_path / "a.nii").write_bytes(gzip.compress(nifti()))
    assert (
        main(["transfer", "fit", str(tmp_path / "a.nii"), str(tmp_path / "a.nii"), "--out", "x.npz", "--strict"]) == 2
    )
    assert "name ends in .nii, but this is NIfTI-1 compressed with gzip" in capsys.readouterr().err
