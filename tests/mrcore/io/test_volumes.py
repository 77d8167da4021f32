"""Images that are read: orientation, oblique axes, units, slopes, formats."""

import gzip
import itertools
import logging
import struct

import nibabel as nib
import numpy as np
import pytest
import torch
from images import SHAPE, an_image, oblique, oriented, write

from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.io.nifti_read import read_grid
from mrcore.io.volumes import load_volume, save_volume

ORIENTATIONS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]  # fmt: skip


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_each_of_the_48_orientations_survives(tmp_path, order, flips):
    data, affine = an_image(), oriented(order, flips)
    volume = load_volume(write(tmp_path / "in.nii", data, affine))
    assert np.array_equal(volume.data.numpy(), data)
    assert np.abs(volume.grid.affine - affine).max() < 1e-5
    assert volume.meta["Warnings"] == []
    save_volume(volume, tmp_path / "out.nii.gz", sidecar={})
    again = nib.load(tmp_path / "out.nii.gz")
    assert nib.aff2axcodes(again.affine) == nib.aff2axcodes(affine)
    assert np.array_equal(again.get_fdata(), data)
    for stored, code in (again.get_sform(coded=True), again.get_qform(coded=True)):
        assert code == 1
        assert np.abs(stored - affine).max() < 1e-4
    assert again.header.get_xyzt_units()[0] == "mm"
    assert load_volume(tmp_path / "out.nii.gz").meta["Warnings"] == []


@pytest.mark.parametrize("flip", [1, -1])
@pytest.mark.parametrize("angles_deg", [(0, 0, 3.7), (10, -25, 40), (1e-3, 179.99, 0), (0.01, 0.02, 179.97)])
def test_oblique_axes_survive_without_a_false_warning(tmp_path, angles_deg, flip):
    affine = oblique(angles_deg, flip=flip)
    volume = Volume(torch.from_numpy(an_image((40, 50, 60))), Grid((40, 50, 60), affine))
    save_volume(volume, tmp_path / "out.nii.gz", sidecar={})
    again = load_volume(tmp_path / "out.nii.gz")
    assert again.grid.matches(volume.grid)
    assert again.meta["Warnings"] == []
    # Near half a turn the float32 quaternion of NIfTI-1 loses up to 1.2e-3 rad.
    assert np.abs(nib.load(tmp_path / "out.nii.gz").get_qform() - affine).max() < 1.2e-3 * 5.2


@pytest.mark.parametrize(("suffix", "image_type"), [
    (".nii", nib.Nifti1Image), (".nii.gz", nib.Nifti1Image), (".nii", nib.Nifti2Image), (".nii.gz", nib.Nifti2Image),
])  # fmt: skip
def test_nifti_1_and_2_are_read(tmp_path, suffix, image_type):
    data, affine = an_image(), oblique()
    volume = load_volume(write(tmp_path / f"in{suffix}", data, affine, header_type=image_type))
    assert np.array_equal(volume.data.numpy(), data)
    assert np.abs(volume.grid.affine - affine).max() < 1e-5


@pytest.mark.parametrize("suffix", [".mgh", ".mgz"])
def test_mgh_is_read(tmp_path, suffix):
    data, affine = an_image(), oblique(flip=-1)
    nib.MGHImage(data, affine).to_filename(tmp_path / f"in{suffix}")
    volume = load_volume(tmp_path / f"in{suffix}")
    assert np.array_equal(volume.data.numpy(), data)
    assert np.abs(volume.grid.affine - affine).max() < 1e-4
    assert volume.data.dtype == torch.float32


def test_format_is_told_by_content_not_by_name(tmp_path):
    path = write(tmp_path / "in.nii.gz", an_image(), oblique())
    named_wrongly = path.rename(tmp_path / "in.nii")
    assert np.array_equal(load_volume(named_wrongly).data.numpy(), an_image())


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", ">i2"])
def test_stored_types_become_float32(tmp_path, dtype):
    data = an_image().astype(dtype)
    image = nib.Nifti1Image(data, oblique())
    image.header.set_data_dtype(dtype)
    image.to_filename(tmp_path / "in.nii")
    volume = load_volume(tmp_path / "in.nii")
    assert volume.data.dtype == torch.float32
    assert np.array_equal(volume.data.numpy(), data.astype(np.float32))


def test_slope_and_intercept_are_applied_once(tmp_path):
    stored = an_image().astype(np.int16)
    image = nib.Nifti1Image(stored, oblique())
    path = tmp_path / "in.nii"
    image.to_filename(path)
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<2f", 2.5, -3.25)
    path.write_bytes(content)
    volume = load_volume(path)
    assert np.allclose(volume.data.numpy(), 2.5 * stored - 3.25)
    save_volume(volume, tmp_path / "out.nii", sidecar={})
    assert torch.equal(load_volume(tmp_path / "out.nii").data, volume.data)


def test_one_volume_in_a_fourth_axis_is_accepted(tmp_path):
    data = an_image()
    path = write(tmp_path / "in.nii", data[..., None], oblique())
    assert np.array_equal(load_volume(path).data.numpy(), data)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3)])
def test_other_units_of_length_are_converted_exactly(tmp_path, caplog, unit, factor):
    affine = oblique()
    affine[:3] *= factor
    image = nib.Nifti1Image(an_image(), affine)
    image.header.set_xyzt_units(unit)
    image.to_filename(tmp_path / "in.nii")
    with caplog.at_level(logging.WARNING):
        volume = load_volume(tmp_path / "in.nii")
    assert np.allclose(volume.grid.affine, oblique(), rtol=1e-5)
    assert f"the header gives lengths in {unit}s; they were converted to mm" in caplog.text


def test_unknown_unit_means_mm(tmp_path):
    image = nib.Nifti1Image(an_image(), oblique())
    image.header.set_xyzt_units("unknown")
    image.to_filename(tmp_path / "in.nii")
    assert load_volume(tmp_path / "in.nii").grid.spacing_mm == pytest.approx((0.9, 1.3, 5.2), rel=1e-5)


def test_qform_alone_is_used(tmp_path):
    affine = oblique()
    volume = load_volume(write(tmp_path / "in.nii", an_image(), affine, codes=(0, 1)))
    assert np.abs(volume.grid.affine - affine).max() < 1e-4


def test_qform_that_disagrees_gives_a_warning_and_the_sform_wins(tmp_path, caplog):
    affine = oblique()
    image = nib.Nifti1Image(an_image(), affine)
    other = affine.copy()
    other[0, 3] += 0.004
    image.header.set_sform(affine, code=1)
    image.header.set_qform(other, code=1)
    image.to_filename(tmp_path / "in.nii")
    with caplog.at_level(logging.WARNING):
        volume = load_volume(tmp_path / "in.nii")
    assert "sform and qform disagree by 0.004 mm" in caplog.text
    assert np.abs(volume.grid.affine - affine).max() < 1e-4
    assert any("disagree" in str(text) for text in volume.meta["Warnings"])


def test_no_position_at_all_gives_a_warning(tmp_path, caplog):
    path = write(tmp_path / "in.nii", an_image(), np.diag([2.0, 2, 2, 1]))
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        load_volume(path)
    assert "neither sform nor qform is set" in caplog.text


def test_shears_stay_in_the_sform_and_switch_the_qform_off(tmp_path, caplog):
    affine = oblique()
    affine[0, 1] += 0.05
    volume = Volume(torch.from_numpy(an_image()), Grid(SHAPE, affine))
    with caplog.at_level(logging.WARNING):
        save_volume(volume, tmp_path / "out.nii.gz", sidecar={})
    assert "the affine has shears" in caplog.text
    image = nib.load(tmp_path / "out.nii.gz")
    assert int(image.header["qform_code"]) == 0
    again = load_volume(tmp_path / "out.nii.gz")
    assert again.grid.matches(volume.grid, 1e-4)
    (text,) = again.meta["Warnings"]
    assert "the voxel axes are not at right angles (sheared by 0." in text


@pytest.mark.parametrize(
    ("qfac", "sizes", "flip", "warning"),
    [
        (0.0, (0.9, 1.3, 5.2), 1, None),
        (1.0, (0.9, 1.3, 5.2), 1, None),
        (-1.0, (0.9, 1.3, 5.2), -1, None),
        (-0.5, (0.9, 1.3, 5.2), -1, "-1 is taken"),
        (3.0, (0.9, 1.3, 5.2), 1, "1 is taken"),
        (float("nan"), (0.9, 1.3, 5.2), 1, "1 is taken"),
        (1.0, (-0.9, 1.3, -5.2), 1, r"negative (-0.9 x 1.3 x -5.2): taken as positive"),
    ],
)
def test_qform_alone_is_read_as_the_standard_says(tmp_path, qfac, sizes, flip, warning):
    """nifti1.h: qfac is -1 where pixdim[0] is below 0, else 1, and turns the third axis; sizes are positive."""
    path = write(tmp_path / "in.nii", an_image(), oblique(), codes=(0, 1))
    content = path.read_bytes()
    path.write_bytes(content[:76] + struct.pack("<4f", qfac, *sizes) + content[92:])
    expected = oblique()
    expected[:3, 2] *= flip
    volume = load_volume(path)
    assert np.abs(volume.grid.affine - expected).max() < 1e-4
    warnings = volume.meta["Warnings"]
    assert not warnings if warning is None else warning in warnings[0]


def test_qfac_of_a_qform_that_is_not_used_is_no_matter(tmp_path):
    path = write(tmp_path / "in.nii", an_image(), oblique())
    content = path.read_bytes()
    path.write_bytes(content[:76] + struct.pack("<f", 0.0) + content[80:])
    assert load_volume(path).meta["Warnings"] == []


@pytest.mark.parametrize(("unit", "per_mm"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1.0), ("unknown", 1.0)])
def test_units_of_the_header_count_for_sizes_and_for_distances(tmp_path, unit, per_mm):
    affine, moved = oriented((0, 1, 2), (1, 1, 1)), oriented((0, 1, 2), (1, 1, 1))
    moved[0, 3] += 2.5
    image = nib.Nifti1Image(an_image(), None)
    image.header.set_sform(np.diag([per_mm, per_mm, per_mm, 1]) @ affine, code=1)
    image.header.set_qform(np.diag([per_mm, per_mm, per_mm, 1]) @ moved, code=1)
    image.header.set_xyzt_units(unit)
    image.to_filename(tmp_path / "a.nii")
    volume = load_volume(tmp_path / "a.nii")
    assert np.abs(volume.grid.affine - affine).max() < 1e-4
    assert "sform and qform disagree by 2.5 mm" in volume.meta["Warnings"][-1]
    assert len(volume.meta["Warnings"]) == (2 if unit in ("meter", "micron") else 1)


@pytest.mark.parametrize("flag", [0, -1])
def test_position_of_an_mgh_file_that_states_none_is_freesurfers_and_warned_of(tmp_path, flag):
    data = an_image()
    image = nib.MGHImage(data, oblique())
    image.to_filename(tmp_path / "a.mgz")
    content = bytearray(gzip.decompress((tmp_path / "a.mgz").read_bytes()))
    content[28:30] = struct.pack(">h", flag)
    (tmp_path / "a.mgz").write_bytes(gzip.compress(bytes(content)))
    volume = load_volume(tmp_path / "a.mgz")
    assert volume.grid.orientation == "LIA"
    assert volume.grid.spacing_mm == (1.0, 1.0, 1.0)
    assert "goodRASFlag 0" in volume.meta["Warnings"][0]
    assert read_grid(tmp_path / "a.mgz")[0].matches(volume.grid)
    image.to_filename(tmp_path / "good.mgz")
    assert load_volume(tmp_path / "good.mgz").meta["Warnings"] == []


@pytest.mark.parametrize("name", ["many.nii.gz", "nan.nii.gz", "labels.nii", "cut.nii"])
def test_any_file_with_a_valid_header_gives_its_grid(tmp_path, name):
    data = {"many": an_image((5, 6, 7, 3)), "nan": np.full(SHAPE, np.nan, np.float32)}
    values = data.get(name.partition(".")[0], np.ones(SHAPE, np.uint8))
    path = write(tmp_path / name, values, oblique(), codes=(4, 0))
    if name == "cut.nii":
        path.write_bytes(path.read_bytes()[:-12])
    found, code = read_grid(path)
    assert found.matches(Grid(SHAPE, oblique()))
    assert code == 4
