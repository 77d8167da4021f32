import math
import sys

import numpy as np
import pytest
from scipy.io import savemat

from mrcore.errors import BadInputError, MissingExtraError
from recon.files.sequences import Column, delics_sequence, read_sequence, sequence_from_table
from recon.files.tables import read_table
from recon.files.trajectories import read_arms


def test_the_train_of_delics():
    sequence = delics_sequence()
    assert sequence.n_frames == 500
    assert sequence.duration_s == pytest.approx(0.02 + 500 * 0.012)
    assert sequence.flip_deg[[0, 83, 100, 207, 291, 400]].tolist() == pytest.approx([0, 25, 25, 0, 75, 8.33], abs=1e-4)


def test_units_are_those_that_the_columns_name(tmp_path):
    path = tmp_path / "fisp.csv"
    path.write_text("flip_rad,tr_ms,te_us,phase_deg\n0.5,12.5,700,0\n1.0,13,700,180\n\n")
    sequence = read_sequence(path, ti_s=0.02, inversion_efficiency=0.9)
    assert sequence.flip_deg.tolist() == pytest.approx([math.degrees(0.5), math.degrees(1.0)])
    assert sequence.tr_s.tolist() == pytest.approx([0.0125, 0.013])
    assert sequence.te_s.tolist() == pytest.approx([0.0007, 0.0007])
    assert sequence.phase_deg.tolist() == [0, 180]
    assert (sequence.ti_s, sequence.inversion_efficiency) == (0.02, 0.9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flip_deg,tr_s,te_s\n0.5,0.012,0.002\n", "'flip_deg' gives.*plausible in rad"),
        ("flip_rad,tr_s,te_s\n30,0.012,0.002\n", "'flip_rad' gives.*plausible in deg"),
        ("flip_rad,tr_s,te_s\n6,0.012,0.002\n", "'flip_rad' gives.*plausible in deg"),
        ("flip_deg,tr_s,te_s\n30,12,2\n25,25,2\n", "'tr_s' gives.*plausible in ms"),
        ("flip_deg,tr_s,te_s\n30,12,0.002\n25,12,0.002\n", "'tr_s' gives.*plausible in ms"),
        ("flip_deg,tr_s,te_s\n30,12000,2000\n", "'tr_s' gives.*plausible in us"),
        ("flip_deg,tr_ms,te_ms\n30,0.012,0.002\n", "'tr_ms' gives.*plausible in s"),
        ("flip_deg,tr_ms,te_ms\n30,12000,2000\n", "'tr_ms' gives.*plausible in us"),
        ("flip_deg,tr_us,te_us\n30,12,2\n", "'tr_us' gives.*plausible in ms"),
        ("flip_deg,tr_ms,te_s\n30,12,2\n", "'te_s' gives.*plausible in ms"),
        ("flip_deg,tr_ms,te_ms\n30,12,0.002\n", "'te_ms' gives.*plausible in s"),
        ("flip_deg,tr_ms,te_ms\n30,12,700\n", "'te_ms' gives.*plausible in us"),
        ("flip_deg,tr_ms,te_us\n30,12,2\n", "'te_us' gives.*plausible in ms"),
        ("flip_deg,tr_ms,te_ms\n30,12,-1\n", "'te_ms' gives.*0 <= TE <= TR"),
        ("flip_deg,tr_ms,te_ms,phase_deg\n30,12,2,0\n30,12,2,3.14159\n", "'phase_deg' gives.*plausible in rad"),
        ("flip_deg,tr_ms,te_ms,phase_rad\n30,12,2,0\n30,12,2,180\n", "'phase_rad' gives.*plausible in deg"),
        ("flip,tr,te\n30,12,2\n", "'flip' says no unit, its numbers would fit flip_deg.*'tr'.*fit tr_ms.*fit te_ms"),
        ("FA,TR,TE\n0.5,0.012,0.002\n", "'FA' says no unit, its numbers would fit flip_rad.*fit tr_s;.*fit te_s"),
        ("30,12,2\n30,12,2\n", "columns 0, 1, 2; expected flip_deg"),
        ("flip_deg,flip_deg,tr_ms,te_ms\n30,30,12,2\n", "the same name"),
        ("flip_deg,tr_ms,te_ms\n30,12,13\n", "TE <= TR"),
        ("flip_deg,tr_ms,te_ms\n30,12\n", "needs 3 numbers"),
        ("flip_deg,tr_ms,te_ms\n30,twelve,2\n", "cannot be read"),
        ("flip_deg,tr_ms,te_ms\n", "needs 3 numbers"),
        ("angle,tr_ms,te_ms\n30,12,2\n", "expected flip_deg"),
        ("flip_deg,tr_ms,tr_s,te_ms\n30,12,0.012,2\n", "which is meant"),
        ("flip_deg,tr_ms,te_ms\nnan,12,2\n", "finite"),
    ],
)
def test_what_another_unit_would_explain_is_refused(tmp_path, text, message):
    path = tmp_path / "fisp.csv"
    path.write_text(text)
    with pytest.raises(BadInputError, match=message):
        read_sequence(path)


ROWS = [(30.0, 12.5, 2.0), (40.0, 13.0, 2.5), (-10.0, 1.2e1, 2.0)]


@pytest.mark.parametrize(
    "text",
    [
        "flip_deg,tr_ms,te_ms\n30,12.5,2\n40,13,2.5\n-10,12,2\n",
        "flip_deg;tr_ms;te_ms\n30;12.5;2\n40;13;2.5\n-10;1.2e1;2\n",
        "flip_deg;tr_ms;te_ms\n30;12,5;2\n40;13,0;2,5\n-10;12;2\n",
        "flip_deg\ttr_ms\tte_ms\n30\t12.5\t2\n40\t13\t2.5\n-10\t12\t2\n",
        "flip_deg tr_ms te_ms\n30  12.5 2\n 40 13   2.5\n-10 12 2 \n",
        "FLIP_DEG, Tr_ms ,TE_MS\n30, 12.5, 2\n40, 13, 2.5\n-10, 12, 2",
        "FA (deg),TR [ms],TE (ms)\n30,12.5,2\n40,13,2.5\n-10,12,2\n",
        '"flip_deg","tr_ms","te_ms"\n"30","12.5","2"\n"40","13","2.5"\n"-10","12","2"\n',
        "\n\nflip_deg,tr_ms,te_ms\n\n30,12.5,2\n  \n40,13,2.5\n,,\n-10,12,2\n\n",
        "flip_deg,tr_ms,te_ms,\n30,12.5,2,\n40,13,2.5,,\n-10,12,2\n",
        "flip_deg;tr_ms;te_ms;\r\n30;12.5;2;\r\n40;13;2.5;\r\n-10;12;2;\r\n",
        "# a train\nflip_deg,tr_ms,te_ms\n% first\n30,12.5,2 # inverted\n// rest\n40,13,2.5\n-10,12,2\n",
        "# flip_deg tr_ms te_ms\n3.0e+01 1.25e+01 2.0e+00\n40 13 2.5\n-10 12 2\n",  # as numpy.savetxt writes
        "\N{ZERO WIDTH NO-BREAK SPACE}flip_deg,tr_ms,te_ms\n30,12.5,2\n40,13,2.5\n-10,12,2\n",
        "flip_deg,tr_us,te_us\n30,12500,2000\n40,13000,2500\n-10,12000,2000\n",
    ],
)
@pytest.mark.parametrize("name", ["fisp.csv", "fisp.txt"])
def test_tables_are_read_however_they_are_written(tmp_path, text, name):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    sequence = read_sequence(path)
    for values, expected in zip(
        (sequence.flip_deg, 1e3 * sequence.tr_s, 1e3 * sequence.te_s), zip(*ROWS, strict=True), strict=True
    ):
        assert values.tolist() == pytest.approx(expected)


def hdf5_of_matlab(path, **arrays):
    """A file as MATLAB writes it with -v7.3: HDF5 behind a header of 512 bytes, axes in reverse order."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            if isinstance(values, str):
                codes = np.array([[ord(c)] for c in values], np.uint16)
                file.create_dataset(name, data=codes).attrs["MATLAB_class"] = np.bytes_("char")
            else:
                stored = values.T
                if np.iscomplexobj(stored):
                    parts = np.zeros(stored.shape, [("real", "<f8"), ("imag", "<f8")])
                    parts["real"], parts["imag"] = stored.real, stored.imag
                    stored = parts
                file.create_dataset(name, data=stored).attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


@pytest.mark.parametrize("version", ["5", "7.3"])
@pytest.mark.parametrize("in_structure", [False, True])
def test_matlab_files_of_both_kinds(tmp_path, version, in_structure):
    flips, tr, _ = (np.array(column)[:, None] for column in zip(*ROWS, strict=True))
    arrays = {"flip_deg": flips, "tr_ms": tr.T, "te_ms": np.array([[2.0]]), "note": "a train"}
    path = tmp_path / "train.mat"
    if version == "5":
        savemat(path, {"train": arrays} if in_structure else arrays)
    else:
        prefix = "train/" if in_structure else ""
        hdf5_of_matlab(path, **{prefix + name: values for name, values in arrays.items()})
    sequence = read_sequence(path)
    assert sequence.flip_deg.tolist() == [30, 40, -10]
    assert sequence.tr_s.tolist() == pytest.approx([0.0125, 0.013, 0.012])
    assert sequence.te_s.tolist() == pytest.approx([0.002] * 3)


def test_matlab_arms_of_version_7_3(tmp_path):
    arms = np.random.default_rng(0).normal(size=(7, 5, 2))  # samples, arms, 2
    hdf5_of_matlab(tmp_path / "real.mat", k=arms, dcf=np.ones((1, 35)))
    hdf5_of_matlab(tmp_path / "complex.mat", k=arms[..., 0] + 1j * arms[..., 1])
    savemat(tmp_path / "one.mat", {"k": arms[:, :1]})
    for name in ("real.mat", "complex.mat"):
        assert np.array_equal(read_arms(tmp_path / name).numpy(), arms.swapaxes(0, 1))
    assert np.array_equal(read_arms(tmp_path / "one.mat").numpy(), arms[:, :1].swapaxes(0, 1))


def test_matlab_files_of_version_7_3_need_a_library(tmp_path, monkeypatch):
    hdf5_of_matlab(tmp_path / "train.mat", fa=np.ones((3, 1)))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"mrkit\[ismrmrd\]"):
        read_table(tmp_path / "train.mat")


def test_an_inversion_in_milliseconds_is_refused(tmp_path):
    path = tmp_path / "fisp.csv"
    path.write_text("flip_deg,tr_ms,te_ms\n30,12,2\n")
    with pytest.raises(BadInputError, match="milliseconds given for seconds"):
        read_sequence(path, ti_s=20.0)


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(BadInputError, match=r"missing\.csv"):
        read_table(tmp_path / "missing.csv")
    (tmp_path / "broken.mat").write_bytes(b"no MATLAB file at all" * 20)
    with pytest.raises(BadInputError, match=r"broken\.mat"):
        read_table(tmp_path / "broken.mat")


def test_columns_need_units_that_fit():
    table = {"fa": np.array([30.0, 20.0]), "tr": np.array([12.0, 12.0])}
    with pytest.raises(BadInputError, match="needs deg or rad"):
        sequence_from_table(table, Column("fa", "ms"), 0.012, 0.002)
    with pytest.raises(BadInputError, match="needs s, ms or us"):
        sequence_from_table(table, Column("fa", "deg"), Column("tr", "deg"), 0.002)
    with pytest.raises(BadInputError, match="no column 'te', only fa, tr"):
        sequence_from_table(table, Column("fa", "deg"), Column("tr", "ms"), Column("te", "ms"))
    with pytest.raises(BadInputError, match="must be one of"):
        Column("fa", "degrees")


def test_trains_of_other_toolboxes(shared_data):
    folder = shared_data / "mrf"
    angles, times = (read_table(folder / f"openmrf_yun_{name}.txt") for name in ("fa", "tr"))
    text = sequence_from_table(
        angles | times, Column("openmrf_yun_fa", "deg"), Column("openmrf_yun_tr", "ms"), 0.002, ti_s=0.02
    )
    assert (text.n_frames, text.tr_s[0].item()) == (1000, pytest.approx(0.01317382))
    matlab = sequence_from_table(
        read_table(folder / "slsp_fisp_fa_tr.mat"), Column("fa", "deg"), Column("tr", "ms"), 0.002
    )
    assert (matlab.n_frames, matlab.flip_deg.max().item()) == (1200, 70.0)
    schedule = sequence_from_table(
        read_table(folder / "snapmrf_MRF001_schedule.csv"),
        Column("flip_angle_(fraction_of_nominal)", "deg", scale=60),
        Column("extension_of_base_TR_(ms)", "ms", offset=10.5),
        Column("extension_of_base_TE_(ms)", "ms", offset=3.5),
        phase=Column("rf_phase_(deg)", "deg"),
    )
    assert schedule.flip_deg[0].item() == pytest.approx(60 * 0.084857)
    assert schedule.tr_s[:2].tolist() == pytest.approx([0.012, 0.01197])
    with pytest.raises(BadInputError, match="plausible in ms"):
        sequence_from_table(read_table(folder / "slsp_fisp_fa_tr.mat"), Column("fa", "deg"), Column("tr", "us"), 0.0)
