"""Which lines of an ISMRMRD file are the image, in which space they lie, and whether header and lines make sense."""

import h5py
import numpy as np
import pytest
import torch

from mrcore.errors import BadInputError
from mrcore.notes import cautions
from recon.files.ismrmrd import read_ismrmrd
from recon.files.ismrmrd_lines import HEAD


def edited(path, change):
    """Apply `change` to the table of acquisitions."""
    with h5py.File(path, "r+") as handle:
        table = change(handle["dataset/data"][()])
        del handle["dataset/data"]
        handle["dataset"].create_dataset("data", data=table, maxshape=(None,))


def space(n, fov_mm, thickness_mm=5):
    parts = "".join(
        f"<{name}><matrixSize><x>{n}</x><y>{n}</y><z>1</z></matrixSize>"
        f"<fieldOfView_mm><x>{fov_mm}</x><y>{fov_mm}</y><z>{thickness_mm}</z></fieldOfView_mm></{name}>"
        for name in ("encodedSpace", "reconSpace")
    )
    limits = (
        f"<kspace_encoding_step_1><minimum>0</minimum><maximum>{n - 1}</maximum><center>{n // 2}</center>"
        "</kspace_encoding_step_1>"
    )
    return f"<encoding>{parts}<encodingLimits>{limits}</encodingLimits><trajectory>cartesian</trajectory></encoding>"


def cartesian_file(path, n=8, fov_mm=160, spaces=None, sequence=""):
    """Fully sampled lines along x, one a row, in the standard's own layout: its schema and packed head, by h5py."""
    spaces = spaces or space(n, fov_mm)
    header = (
        '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><acquisitionSystemInformation>'
        "<receiverChannels>1</receiverChannels></acquisitionSystemInformation><experimentalConditions>"
        f"<H1resonanceFrequency_Hz>63000000</H1resonanceFrequency_Hz></experimentalConditions>{spaces}"
        f"{sequence}</ismrmrdHeader>"
    )
    floats = h5py.vlen_dtype(np.float32)
    table = np.zeros(n, np.dtype([("head", HEAD), ("traj", floats), ("data", floats)]))
    for row in range(n):
        head = table["head"][row]
        head["version"], head["number_of_samples"], head["active_channels"] = 1, n, 1
        head["available_channels"], head["center_sample"] = 1, n // 2
        head["read_dir"], head["phase_dir"], head["slice_dir"] = np.eye(3)
        head["idx"]["kspace_encode_step_1"] = row
        line = (row + 1) * np.ones(n) + 1j * np.arange(n)
        table["data"][row] = line.astype(np.complex64).view(np.float32)
        table["traj"][row] = np.zeros(0, np.float32)
    with h5py.File(path, "w") as handle:
        group = handle.create_group("dataset")
        group.create_dataset("xml", data=[header], dtype=h5py.string_dtype())
        group.create_dataset("data", data=table, maxshape=(None,))
    return path


def rows_of(raw):
    """Rows of k-space (by their phase encoding) that became part of the image, in cycles over the field of view."""
    return sorted({round(float(k)) for k in raw.trajectory.k_cyc_per_mm[:, 1] * raw.grid.fov_mm[1]})


# The standard's own list (ismrmrd.h), by name: what a line with this flag alone is.
IMAGING = {
    "FIRST_IN_ENCODE_STEP1": 1,
    "LAST_IN_ENCODE_STEP1": 2,
    "FIRST_IN_ENCODE_STEP2": 3,
    "LAST_IN_ENCODE_STEP2": 4,
    "FIRST_IN_AVERAGE": 5,
    "LAST_IN_AVERAGE": 6,
    "FIRST_IN_SLICE": 7,
    "LAST_IN_SLICE": 8,
    "FIRST_IN_CONTRAST": 9,
    "LAST_IN_CONTRAST": 10,
    "FIRST_IN_PHASE": 11,
    "LAST_IN_PHASE": 12,
    "FIRST_IN_REPETITION": 13,
    "LAST_IN_REPETITION": 14,
    "FIRST_IN_SET": 15,
    "LAST_IN_SET": 16,
    "FIRST_IN_SEGMENT": 17,
    "LAST_IN_SEGMENT": 18,
    "IS_PARALLEL_CALIBRATION_AND_IMAGING": 21,
    "IS_REVERSE": 22,
    "LAST_IN_MEASUREMENT": 25,
    "USER1": 57,
    "USER8": 64,
}
OTHER = {
    "IS_NOISE_MEASUREMENT": 19,
    "IS_PARALLEL_CALIBRATION": 20,
    "IS_NAVIGATION_DATA": 23,
    "IS_PHASECORR_DATA": 24,
    "IS_HPFEEDBACK_DATA": 26,
    "IS_DUMMYSCAN_DATA": 27,
    "IS_RTFEEDBACK_DATA": 28,
    "IS_SURFACECOILCORRECTIONSCAN_DATA": 29,
    "IS_PHASE_STABILIZATION_REFERENCE": 30,
    "IS_PHASE_STABILIZATION": 31,
}


def test_bits_are_those_of_the_library_of_the_format():
    ismrmrd = pytest.importorskip("ismrmrd")
    for name, bit in (IMAGING | OTHER).items():
        assert getattr(ismrmrd, f"ACQ_{name}") == bit


@pytest.mark.parametrize("name", [*IMAGING, *OTHER])
def test_lines_are_told_apart_by_their_flags(tmp_path, name):
    def flag(table):
        table["head"]["flags"][3] = np.uint64(1) << np.uint64((IMAGING | OTHER)[name] - 1)
        return table

    path = cartesian_file(tmp_path / "raw.h5")
    edited(path, flag)
    raw = read_ismrmrd(path, frame_counter="repetition")
    expected = list(range(-4, 4))
    if name in OTHER:
        expected.remove(-1)  # row 3 of 8
        assert (raw.noise is not None) == (name == "IS_NOISE_MEASUREMENT")
        assert raw.notes == () if raw.noise is not None else "left out, by their flags: 1 " in raw.notes[0]
    assert rows_of(raw) == expected
    assert raw.n_samples == 8 * len(expected)
    assert raw.n_frames == 1


def test_lines_that_calibrate_and_image_belong_to_the_image_however_they_are_flagged(tmp_path):
    """Converters set the flag of calibration as well as that of both."""

    def flag(table):
        table["head"]["flags"][2:6] = np.uint64((1 << 19) | (1 << 20) | 1)
        return table

    path = cartesian_file(tmp_path / "raw.h5")
    edited(path, flag)
    assert rows_of(read_ismrmrd(path, frame_counter="repetition")) == list(range(-4, 4))


def test_the_encoding_is_the_one_that_lines_refer_to(tmp_path):
    def second(table):
        table["head"]["encoding_space_ref"] = 1
        return table

    path = cartesian_file(tmp_path / "raw.h5", spaces=space(16, 480) + space(8, 160))
    edited(path, second)
    raw = read_ismrmrd(path, frame_counter="repetition")
    assert raw.grid.shape == (8, 8, 1)
    assert raw.grid.spacing_mm == pytest.approx((20, 20, 5))
    assert float(raw.trajectory.k_cyc_per_mm.abs().max()) == pytest.approx(4 / 160)

    def calibration_of_the_first(table):
        table["head"]["encoding_space_ref"][:2] = 0
        table["head"]["flags"][:2] = 1 << 19
        return table

    edited(path, calibration_of_the_first)
    assert read_ismrmrd(path, frame_counter="repetition").grid.shape == (8, 8, 1)

    def mixed(table):
        table["head"]["flags"] = 0
        return table

    edited(path, mixed)
    with pytest.raises(BadInputError, match=r"encodings 0, 1; choose one by its index \(--encoding\)"):
        read_ismrmrd(path)
    assert rows_of(read_ismrmrd(path, frame_counter="repetition", encoding=1)) == list(range(-2, 4))
    with pytest.raises(BadInputError, match="no image acquisition of encoding 2"):
        read_ismrmrd(path, encoding=2)

    def beyond(table):
        table["head"]["encoding_space_ref"] = 2
        return table

    edited(path, beyond)
    with pytest.raises(BadInputError, match="refer to encoding 2, the header has 2"):
        read_ismrmrd(path)


@pytest.mark.parametrize(
    ("fov", "thickness", "message"),
    [
        (0.16, 0.005, "looks like m. Say it in mm"),
        (160_000, 5000, "looks like um. Say it in mm"),
        (30_000, 5, "no common unit"),
        (0, 0, "both must be positive"),
        (160, "nan", "both must be positive"),
    ],
)
def test_fields_of_view_are_in_mm(tmp_path, fov, thickness, message):
    path = cartesian_file(tmp_path / "raw.h5", spaces=space(8, fov, thickness))
    with pytest.raises(BadInputError, match=message):
        read_ismrmrd(path)
    assert read_ismrmrd(path, fov_mm=(160.0, 160.0, 5.0)).grid.spacing_mm == pytest.approx((20, 20, 5))


def test_a_field_of_view_of_a_thumb_is_told(tmp_path):
    raw = read_ismrmrd(cartesian_file(tmp_path / "raw.h5", fov_mm=16))
    assert any("are they cm" in note for note in cautions(raw.notes))
    assert not read_ismrmrd(cartesian_file(tmp_path / "head.h5", fov_mm=160)).notes


def test_the_train_of_a_header_is_in_its_units(tmp_path):
    def train(tr, te):
        flips = "".join(f"<flipAngle_deg>{10 + i}</flipAngle_deg>" for i in range(8))
        return f"<sequenceParameters><TR>{tr}</TR><TE>{te}</TE>{flips}</sequenceParameters>"

    right = read_ismrmrd(cartesian_file(tmp_path / "raw.h5", sequence=train(12, 2))).sequence
    assert (float(right.tr_s[0]), float(right.te_s[0])) == pytest.approx((0.012, 0.002))
    with pytest.raises(BadInputError, match=r"'TR'.*would be plausible in s"):
        read_ismrmrd(cartesian_file(tmp_path / "s.h5", sequence=train(0.012, 0.002)))


def test_files_of_the_library_of_the_format_are_read(tmp_path):
    """Written by the format's own package: radial lines after noise, a navigator, and two encodings."""
    ismrmrd = pytest.importorskip("ismrmrd")
    path = tmp_path / "theirs.h5"
    dataset = ismrmrd.Dataset(str(path), "dataset", create_if_needed=True)
    header = (
        '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions>'
        "<H1resonanceFrequency_Hz>63000000</H1resonanceFrequency_Hz></experimentalConditions>"
        + (space(16, 480) + space(8, 160)).replace("cartesian", "radial")
        + "</ismrmrdHeader>"
    )
    dataset.write_xml_header(header.encode())
    generator = np.random.default_rng(0)
    lines = (generator.normal(size=(5, 2, 8)) + 1j * generator.normal(size=(5, 2, 8))).astype(np.complex64)
    for i, line in enumerate(lines):
        angle = i * np.pi / 5
        k = (np.arange(8) - 4)[:, None] / 8 * [np.cos(angle), np.sin(angle)]
        acquisition = ismrmrd.Acquisition.from_array(line, k.astype(np.float32))
        acquisition.encoding_space_ref, acquisition.idx.repetition = 1, i
        acquisition.read_dir[0], acquisition.phase_dir[1], acquisition.slice_dir[2] = -1.0, -1.0, 1.0
        if i == 0:
            acquisition.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        if i == 1:
            acquisition.set_flag(ismrmrd.ACQ_IS_NAVIGATION_DATA)
        acquisition.set_flag(ismrmrd.ACQ_LAST_IN_REPETITION)
        dataset.append_acquisition(acquisition)
    dataset.close()
    raw = read_ismrmrd(path)
    assert raw.grid.shape == (8, 8, 1)
    assert torch.equal(raw.noise, torch.from_numpy(lines[0]))
    assert torch.equal(raw.samples, torch.from_numpy(np.concatenate(lines[2:], axis=1)))
    assert raw.trajectory.frame.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert float(raw.trajectory.k_cyc_per_mm[0, 0]) == pytest.approx(-4 / 8 / 20 * np.cos(2 * np.pi / 5))
    assert raw.notes == ("acquisitions left out, by their flags: 1 navigator",)
