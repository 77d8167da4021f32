"""Images that are written: round trips, sidecars, the same bytes, nothing overwritten, nothing half done."""

import gzip
import json
import logging
import struct
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from images import SHAPE, an_image, oblique, write

from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.io.atomic import atomic_write, refuse_existing
from mrcore.io.volumes import load_volume, save_labels, save_volume


def test_code_of_the_world_space_is_kept(tmp_path):
    volume = load_volume(write(tmp_path / "in.nii", an_image(), oblique(), codes=(4, 0)))
    save_volume(volume, tmp_path / "out.nii", sidecar={})
    image = nib.load(tmp_path / "out.nii")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (4, 4)


def test_sidecar_is_read_and_written_with_provenance(tmp_path):
    path = write(tmp_path / "sub-01_T1w.nii.gz", an_image(), oblique())
    (tmp_path / "sub-01_T1w.json").write_text(json.dumps({"MagneticFieldStrength": 0.064}))
    volume = load_volume(path)
    assert volume.meta["MagneticFieldStrength"] == 0.064
    sidecar = {"Seed": 3}
    save_volume(volume, tmp_path / "out" / "sr.nii.gz", sidecar=sidecar)
    written = json.loads((tmp_path / "out" / "sr.json").read_text())
    assert written["GeneratedBy"][0]["Name"] == "mrkit"
    assert written["Seed"] == 3
    assert len(str(volume.meta["SourceSHA256"])) == 64


def test_broken_sidecar_is_a_warning(tmp_path, caplog):
    path = write(tmp_path / "in.nii.gz", an_image(), oblique())
    (tmp_path / "in.json").write_text("{'no': json")
    with caplog.at_level(logging.WARNING):
        load_volume(path)
    assert "cannot be read as JSON" in caplog.text


def test_same_volume_gives_the_same_bytes_at_another_time(tmp_path, monkeypatch):
    volume = Volume(torch.from_numpy(an_image()), Grid(SHAPE, oblique()))
    save_volume(volume, tmp_path / "a.nii.gz", sidecar={"Seed": 1, "Mean": 0.1})
    monkeypatch.setattr(time, "time", lambda: 4e9)
    save_volume(volume, tmp_path / "b.nii.gz", sidecar={"Mean": 0.1, "Seed": 1})
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == b"\0\0\0\0"  # gzip's time


def test_written_images_are_float32_without_scaling(tmp_path):
    volume = Volume(torch.from_numpy(an_image()).double(), Grid(SHAPE, oblique()))
    save_volume(volume, tmp_path / "a.nii.gz", sidecar={})
    content = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    assert struct.unpack("<h", content[70:72]) == (16,)
    assert struct.unpack("<2f", content[112:120]) == (1.0, 0.0)


def test_nothing_is_overwritten_without_force(tmp_path):
    volume = Volume(torch.from_numpy(an_image()), Grid(SHAPE, oblique()))
    save_volume(volume, tmp_path / "a.nii.gz", sidecar={})
    before = (tmp_path / "a.nii.gz").read_bytes()
    other = Volume(volume.data + 1, volume.grid)
    with pytest.raises(BadInputError, match=r"exists already.*--force"):
        save_volume(other, tmp_path / "a.nii.gz", sidecar={})
    assert (tmp_path / "a.nii.gz").read_bytes() == before
    save_volume(other, tmp_path / "a.nii.gz", sidecar={}, force=True)
    assert torch.equal(load_volume(tmp_path / "a.nii.gz").data, other.data)


def test_existing_sidecar_alone_stops_the_image_too(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(BadInputError, match="exists already"):
        save_volume(Volume(torch.ones(SHAPE), Grid(SHAPE, np.eye(4))), tmp_path / "a.nii.gz", sidecar={})
    assert not (tmp_path / "a.nii.gz").exists()


def test_interrupted_write_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def interrupted():
        with atomic_write(path, force=True) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_file_that_appears_during_the_work_is_not_replaced(tmp_path):
    path = tmp_path / "a.bin"

    def raced():
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(BadInputError, match="exists already"):
        raced()
    assert path.read_bytes() == b"theirs"


def test_refuse_existing_makes_nothing_and_names_the_file_in_the_way(tmp_path):
    refuse_existing([tmp_path / "new" / "a.nii.gz"], force=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInputError, match="is a file, not a folder"):
        refuse_existing([tmp_path / "file" / "a.nii.gz"], force=True)
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(BadInputError, match="a folder of that name"):
        refuse_existing([tmp_path / "folder.nii.gz"], force=True)


def test_save_refuses_what_a_file_cannot_hold(tmp_path):
    grid = Grid(SHAPE, np.eye(4))
    with pytest.raises(BadInputError, match="complex images are not written"):
        save_volume(Volume(torch.ones(SHAPE, dtype=torch.complex64), grid), tmp_path / "a.nii.gz", sidecar={})
    with pytest.raises(BadInputError, match=r"written as \.nii or \.nii\.gz"):
        save_volume(Volume(torch.ones(SHAPE), grid), tmp_path / "a.mgz", sidecar={})
    with pytest.raises(BadInputError, match="whole numbers from 0 to 255"):
        save_labels(torch.full(SHAPE, 300), grid, tmp_path / "a.nii.gz", sidecar={})
    with pytest.raises(GridMismatchError, match="do not fit the grid"):
        save_labels(torch.ones((2, 2, 2)), grid, tmp_path / "a.nii.gz", sidecar={})
    with pytest.raises(BadInputError, match="a value that JSON cannot"):
        save_volume(Volume(torch.ones(SHAPE), grid), tmp_path / "b.nii.gz", sidecar={"Mean": float("nan")})


def test_labels_are_stored_as_bytes(tmp_path):
    labels = torch.arange(210).reshape(SHAPE).to(torch.uint8)
    save_labels(labels, Grid(SHAPE, oblique()), tmp_path / "a.nii.gz", sidecar={})
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(image.dataobj), labels.numpy())


@pytest.mark.parametrize("name", [
    "t1/visualqc_id001_orig.mgz", "t1/stroke_3T_T2_brain.nii.gz", "t1/openms_long_p01_T1W_raw.nii.gz",
    "ulf/lowgan_MS017_64mT_T1w.nii.gz",
])  # fmt: skip
def test_real_scans_survive_the_round_trip(shared_data, tmp_path, name):
    path: Path = shared_data / name
    volume, reference = load_volume(path), nib.load(path)
    assert np.array_equal(volume.data.numpy(), reference.get_fdata(dtype=np.float32))
    assert np.allclose(volume.grid.affine, reference.affine)
    save_volume(volume, tmp_path / "out.nii.gz", sidecar={})
    again = load_volume(tmp_path / "out.nii.gz")
    assert torch.equal(again.data, volume.data)
    assert again.grid.matches(volume.grid)
    assert again.meta["Warnings"] == []
