"""JSON as it is found: other encodings, numbers that JSON does not have."""

import codecs
import json
import logging
import struct

import nibabel as nib
import numpy as np
import pytest

from mrcore.errors import BadInputError
from mrcore.io.sidecar import json_and_cautions, read_json, read_sidecar
from mrcore.io.volumes import load_volume
from mrkit.cli import main

VALUES = {"Manufacturer": "Universität Zürich", "EchoTime": 0.08}
TEXT = json.dumps(VALUES, ensure_ascii=False)


def image(path):
    data = np.random.default_rng(0).uniform(1, 100, (20, 20, 20)).astype(np.float32)
    nib.Nifti1Image(data, np.diag([5.0, 5.0, 5.0, 1.0])).to_filename(path)
    return path


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (TEXT.encode("utf-8"), None),
        (codecs.BOM_UTF8 + TEXT.encode("utf-8"), None),
        (codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"), "UTF-16"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "UTF-16"),
        (TEXT.encode("utf-16-le"), "UTF-16-LE"),
        (TEXT.encode("utf-32"), "UTF-32"),
        (TEXT.encode("latin-1"), "Latin-1"),
    ],
)
def test_every_encoding_is_read_and_named(tmp_path, content, encoding):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    values, cautions = json_and_cautions(path)
    assert values == VALUES
    if encoding is None:
        assert cautions == ()
    else:
        assert f"is not UTF-8, as JSON must be: read as {encoding};" in cautions[0]


def test_numbers_that_are_none_are_not_used_and_named(tmp_path, caplog):
    path = tmp_path / "a.json"
    path.write_text('{"A": NaN, "B": [1, -Infinity], "C": {"D": 1e999}, "EchoTime": 0.1}')
    with caplog.at_level(logging.WARNING):
        assert read_json(path) == {"A": None, "B": [1, None], "C": {"D": None}, "EchoTime": 0.1}
    assert "NaN or infinity, which are no JSON, for A, B[1], C.D: not used" in caplog.text


@pytest.mark.parametrize("content", [b"\x00\x01\x02", b"[1]", b"\xff\xfe{", b"{" * 3, b""])
def test_what_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(BadInputError, match=r"a\.json (cannot be read as JSON|must hold a JSON object)"):
        read_json(tmp_path / "a.json")


def test_a_doubtful_sidecar_is_used_and_warned_of(tmp_path, caplog):
    path = image(tmp_path / "a.nii")
    (tmp_path / "a.json").write_bytes(b'{"InstitutionName": "Z\xfcrich", "EchoTime": 0.08, "SAR": NaN}')
    with caplog.at_level(logging.WARNING):
        meta = load_volume(path).meta
    assert meta["EchoTime"] == 0.08
    assert meta["InstitutionName"] == "Zürich"
    encoding, number = meta["Warnings"]
    assert "read as Latin-1" in encoding
    assert "for SAR: not used" in number
    assert "not used" in caplog.text


def test_values_are_inherited_within_a_dataset_and_the_nearest_file_counts(tmp_path):
    """BIDS' inheritance principle: same ending, no entity that the image lacks, the nearest file wins."""
    anat = tmp_path / "sub-01" / "anat"
    anat.mkdir(parents=True)
    path = image(anat / "sub-01_acq-x_T1w.nii")
    files = {
        tmp_path / "T1w.json": {"EchoTime": 1e-3, "FlipAngle": 9, "MagneticFieldStrength": 3},
        tmp_path / "acq-x_T1w.json": {"FlipAngle": 8},
        tmp_path / "acq-y_T1w.json": {"FlipAngle": 7},
        tmp_path / "T2w.json": {"FlipAngle": 90},
        tmp_path / "sub-01" / "sub-01_T1w.json": {"EchoTime": 2e-3},
        anat / "sub-01_acq-x_T1w.json": {"InversionTime": 0.9},
    }
    for file, values in files.items():
        file.write_text(json.dumps(values))
    assert read_sidecar(path) == {"InversionTime": 0.9}, "no dataset, no inheritance"
    (tmp_path / "dataset_description.json").write_text("{}")
    assert read_sidecar(path) == {
        "InversionTime": 0.9,
        "EchoTime": 2e-3,
        "FlipAngle": 8,
        "MagneticFieldStrength": 3,
    }
    assert load_volume(path).meta["FlipAngle"] == 8


def test_info_prints_valid_json_of_any_sidecar(tmp_path, capsys):
    path = image(tmp_path / "a.nii")
    content = path.read_bytes()
    # A slope that is not a number and a sidecar with one.
    path.write_bytes(content[:112] + struct.pack("<2f", np.nan, 0) + content[120:])
    (tmp_path / "a.json").write_text('{"EchoTime": NaN, "SAR": Infinity}')
    main(["info", str(path), "--json"])
    values = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert values["sidecar"] == {"EchoTime": None, "SAR": None}
    assert any("for EchoTime, SAR: not used" in problem["text"] for problem in values["problems"])
