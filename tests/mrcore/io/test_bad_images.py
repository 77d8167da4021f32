"""Images that cannot be used: each is refused with what is wrong and what to do."""

import gzip
import os
import struct

import nibabel as nib
import numpy as np
import pytest

from mrcore.errors import BadInputError
from mrcore.io.volumes import load_volume

AFFINE = np.diag([1.5, 1.5, 4.0, 1.0])


def an_image(shape=(8, 9, 10)):
    return np.random.default_rng(1).uniform(1, 100, shape).astype(np.float32)


def write(path, data, affine=AFFINE):
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def patched(path, offset, packed):
    content = bytearray(path.read_bytes())
    content[offset : offset + len(packed)] = packed
    path.write_bytes(bytes(content))
    return path


def missing(folder):
    return folder / "nowhere.nii.gz"


def is_a_folder(folder):
    return folder


def empty_file(folder):
    (folder / "a.nii.gz").write_bytes(b"")
    return folder / "a.nii.gz"


def is_text(folder):
    (folder / "a.nii").write_text("this is no image " * 50)
    return folder / "a.nii"


def is_dicom(folder):
    (folder / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 400)
    return folder / "a.dcm"


def half_of_a_pair(folder):
    nib.Nifti1Pair(an_image(), AFFINE).to_filename(folder / "a.hdr")
    return folder / "a.hdr"


def truncated_gzip(folder):
    path = write(folder / "a.nii.gz", an_image())
    path.write_bytes(path.read_bytes()[:-600])
    return path


def last_bytes_of_gzip_missing(folder):
    # All data are there, only the checksum is not.
    path = write(folder / "a.nii.gz", an_image())
    path.write_bytes(path.read_bytes()[:-6])
    return path


def damaged_gzip(folder):
    path = folder / "a.nii.gz"
    write(path, an_image())
    content = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), 0))
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return path


def truncated_data(folder):
    path = write(folder / "a.nii", an_image())
    path.write_bytes(path.read_bytes()[:-100])
    return path


def header_asks_for_the_moon(folder):
    return patched(write(folder / "a.nii", an_image()), 42, struct.pack("<3h", 32767, 32767, 32767))


def truncated_header(folder):
    path = write(folder / "a.nii", an_image())
    path.write_bytes(path.read_bytes()[:348])
    return path


def unknown_type(folder):
    return patched(write(folder / "a.nii", an_image()), 70, struct.pack("<h", 1999))


def no_volume(folder):
    return patched(write(folder / "a.nii", an_image()), 42, struct.pack("<h", 0))


def holds_nan(folder):
    data = an_image()
    data[1, 2, 3] = np.nan
    return write(folder / "a.nii.gz", data)


def holds_infinity(folder):
    data = an_image()
    data[1, 2, 3:5] = np.inf
    return write(folder / "a.nii.gz", data)


def too_large_for_float32(folder):
    return write(folder / "a.nii", an_image().astype(np.float64) * 1e300)


def four_dimensional(folder):
    return write(folder / "a.nii.gz", an_image((4, 5, 6, 3)))


def two_dimensional(folder):
    return write(folder / "a.nii.gz", an_image((40, 50)))


def one_slice(folder):
    return write(folder / "a.nii.gz", an_image((40, 50, 1)))


def complex_data(folder):
    return write(folder / "a.nii.gz", an_image().astype(np.complex64))


def rgb(folder):
    data = np.zeros((8, 9, 10), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    return write(folder / "a.nii.gz", data)


def constant(folder):
    return write(folder / "a.nii.gz", np.full((8, 9, 10), 7.5, np.float32))


def hardly_varying(folder):
    data = np.full((8, 9, 10), 1e4, np.float32)
    data[0] += 0.002
    return write(folder / "a.nii.gz", data)


def absurd_slope(folder):
    return patched(write(folder / "a.nii", an_image()), 112, struct.pack("<2f", 1e20, 0.0))


def absurd_position(folder):
    return patched(write(folder / "a.nii", an_image()), 280, struct.pack("<4f", 1e30, 0, 0, 0))


def singular_affine(folder):
    image = nib.Nifti1Image(an_image(), AFFINE)
    image.header.set_sform(np.diag([1.5, 0.0, 4.0, 1.0]), code=1)
    image.header.set_qform(None, code=0)
    image.to_filename(folder / "a.nii")
    return patched(folder / "a.nii", 280, struct.pack("<12f", 1.5, 0, 0, 0, 1.5, 0, 0, 0, 0, 0, 4, 0))


def affine_of_nan(folder):
    path = write(folder / "a.nii", an_image())
    return patched(path, 280, struct.pack("<4f", np.nan, 0, 0, 0))


def qform_that_is_none(folder):
    path = write(folder / "a.nii", an_image())
    path = patched(path, 252, struct.pack("<2h", 1, 0))
    return patched(path, 256, struct.pack("<3f", 2.0, 2.0, 0.0))


def metres_called_mm(folder):
    return write(folder / "a.nii.gz", an_image(), np.diag([1.5e-3, 1.5e-3, 4e-3, 1]))


def mm_called_metres(folder):
    image = nib.Nifti1Image(an_image(), AFFINE)
    image.header.set_xyzt_units("meter")
    image.to_filename(folder / "a.nii.gz")
    return folder / "a.nii.gz"


def mm_called_microns(folder):
    image = nib.Nifti1Image(an_image(), AFFINE)
    image.header.set_xyzt_units("micron")
    image.to_filename(folder / "a.nii.gz")
    return folder / "a.nii.gz"


CASES = [
    (missing, "no such file"),
    (is_a_folder, "is a folder; give one NIfTI or MGH image"),
    (empty_file, r"is empty \(0 bytes\)"),
    (is_text, "is not a NIfTI-1, NIfTI-2 or MGH image"),
    (is_dicom, "is a DICOM file; convert the series to NIfTI with dcm2niix"),
    (half_of_a_pair, r"half of a \.hdr/\.img pair"),
    (truncated_gzip, "the gzip stream is truncated or damaged"),
    (last_bytes_of_gzip_missing, "the gzip stream is truncated or damaged"),
    (damaged_gzip, "the gzip stream is truncated or damaged"),
    (truncated_data, "the data are truncated: the header asks for 2880 bytes and 2780 are there"),
    (header_asks_for_the_moon, "the data are truncated"),
    (truncated_header, "the data are truncated"),
    (unknown_type, "header is damaged"),
    (no_volume, "a grid needs three positive"),
    (holds_nan, "1 of 720 voxels are NaN or infinite"),
    (holds_infinity, "2 of 720 voxels are NaN or infinite"),
    (too_large_for_float32, "720 of 720 voxels are NaN or infinite"),
    (four_dimensional, r"this is 4-D \(4 x 5 x 6 x 3\) with 3 volumes; extract one volume"),
    (two_dimensional, r"this is 2-D \(40 x 50\); give the whole stack"),
    (one_slice, r"this is 2-D \(40 x 50 x 1\)"),
    (complex_data, "the image is complex; give its magnitude"),
    (rgb, "the image is RGB colour"),
    (constant, r"the image is constant: every voxel is 7\.5"),
    (hardly_varying, "values from 10000 to 10000 are not those of a scan"),
    (absurd_slope, r"values from .*e\+2. are not those of a scan; check type, slope and intercept"),
    (absurd_position, r"the affine has numbers up to 1e\+30 mm"),
    (singular_affine, "the affine is singular"),
    (affine_of_nan, "affine must be a finite 4 x 4 matrix"),
    (qform_that_is_none, "the qform cannot be read"),
    (metres_called_mm, r"voxels of 0\.0015 x 0\.0015 x 0\.004 mm are .*; in meter they would be 1\.5 x 1\.5 x 4 mm"),
    (
        mm_called_metres,
        r"voxels of 1500 x 1500 x 4000 mm are not those of an MRI scan: the header says 1\.5 x 1\.5 x 4 meter; in mm "
        r"they would be 1\.5 x 1\.5 x 4 mm: repair xyzt_units",
    ),
    (mm_called_microns, r"voxels of 0\.0015 .* the header says 1\.5 x 1\.5 x 4 micron; in mm they would be"),
]


@pytest.mark.parametrize(("make", "message"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_unusable_image_is_refused_with_its_reason(tmp_path, make, message):
    path = make(tmp_path)
    with pytest.raises(BadInputError, match=message) as raised:
        load_volume(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_several_reasons_are_counted(tmp_path):
    data = an_image()
    data[1, 2, 3] = np.nan
    path = write(tmp_path / "a.nii", data, np.diag([1e-3, 1e-3, 1e-3, 1]))
    with pytest.raises(BadInputError, match=r"and 1 more; see `mrkit info`"):
        load_volume(path)


def test_nibabel_says_nothing_beside_our_own_message(tmp_path, capfd):
    with pytest.raises(BadInputError):
        load_volume(qform_that_is_none(tmp_path))
    with pytest.raises(BadInputError):
        load_volume(unknown_type(tmp_path))
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_refused(tmp_path):
    path = write(tmp_path / "a.nii.gz", an_image())
    path.chmod(0)
    with pytest.raises(BadInputError, match="cannot be read"):
        load_volume(path)
