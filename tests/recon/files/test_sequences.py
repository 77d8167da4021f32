import math

import numpy as np
import pytest

from mrcore.errors import BadInputError
from recon.files.sequences import Column, delics_sequence, read_sequence, read_table, sequence_from_table


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
        ("flip_deg,tr_s,te_s\n0.5,0.012,0.002\n", "are they radians"),
        ("flip_rad,tr_s,te_s\n30,0.012,0.002\n", "are they degrees"),
        ("flip_deg,tr_s,te_s\n30,12,2\n25,25,2\n", "unit taken for another"),
        ("flip_deg,tr_ms,te_ms\n30,0.012,0.002\n", "unit taken for another"),
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
    with pytest.raises(BadInputError, match="unit taken for another"):
        sequence_from_table(read_table(folder / "slsp_fisp_fa_tr.mat"), Column("fa", "deg"), Column("tr", "us"), 0.0)
