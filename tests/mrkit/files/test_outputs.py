"""Names, checks and provenance of what the commands write."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.io.volumes import load_volume
from mrkit.files.outputs import (
    ImageOutput,
    OutputNames,
    TissueOutput,
    check_outputs,
    json_output,
    text_output,
    write_results,
)
from mrkit.files.provenance import Record, distinct_names, distinct_stems

GRID = Grid((6, 5, 4), np.diag([-1.5, 2.0, 3.0, 1.0]))


def test_names_follow_the_input(tmp_path):
    target = OutputNames(tmp_path, "sub-01_T1w")
    assert target.image("ulf").name == "sub-01_T1w_ulf.nii.gz"
    assert target.report("sr").name == "sub-01_T1w_sr_report.html"
    assert [path.name for path in target.tissues("")][:2] == [
        "sub-01_T1w_dseg.nii.gz",
        "sub-01_T1w_label-CSF_probseg.nii.gz",
    ]
    assert target.tissues("sr")[3].name == "sub-01_T1w_sr_label-WM_probseg.nii.gz"


def test_sidecars_of_the_results_are_checked_too(tmp_path):
    image = tmp_path / "a.nii.gz"
    check_outputs([image], [], [], force=False)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"a\.json exists already"):
        check_outputs([image], [], [], force=False)
    check_outputs([image], [], [], force=True)


def test_input_is_never_written_over_even_with_force(tmp_path):
    image = tmp_path / "a.nii.gz"
    image.write_bytes(b"x")
    with pytest.raises(BadInputError, match="is an input and would be written over"):
        check_outputs([tmp_path / "sub" / ".." / "a.nii.gz"], [], [image], force=True)


def test_provenance_names_files_by_content_not_by_folder(tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"content")
    values = Record({"image": path}, 7, {"VoxelMm": 1.5}, ("a note",)).sidecar()
    assert values == {
        "Sources": ["scan.nii.gz"],
        "SourcesSHA256": {"scan.nii.gz": hashlib.sha256(b"content").hexdigest()},
        "Seed": 7,
        "Parameters": {"VoxelMm": 1.5},
        "Notes": ["a note"],
    }
    assert str(tmp_path) not in json.dumps(values)


def test_equal_names_from_different_folders_stay_apart(tmp_path):
    paths = [tmp_path / folder / "anat" / "T1w.nii.gz" for folder in ("sub-01", "sub-02")]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes([number]))
    values = Record({"image": paths[0], "like": paths[1]}).sidecar()
    names = ["sub-01/anat/T1w.nii.gz", "sub-02/anat/T1w.nii.gz"]
    assert values["Sources"] == names
    digests = [hashlib.sha256(bytes([n])).hexdigest() for n in range(2)]
    assert values["SourcesSHA256"] == dict(zip(names, digests, strict=True))
    assert str(tmp_path) not in json.dumps(values)


def test_names_and_stems_take_only_the_folders_they_need(tmp_path):
    a, b, c = tmp_path / "a" / "T1w.nii.gz", tmp_path / "b" / "T1w.nii", tmp_path / "a" / "T2w.nii.gz"
    assert list(distinct_names([a, b, c]).values()) == ["T1w.nii.gz", "T1w.nii", "T2w.nii.gz"]
    assert list(distinct_stems([a, b, c]).values()) == ["a_T1w", "b_T1w", "T2w"]
    assert distinct_names([a, a]) == {a: "T1w.nii.gz"}
    # Two files of one folder under one stem cannot be told apart: their sidecar is one file, too.
    assert set(distinct_stems([a, a.with_suffix("")]).values()) == {"T1w"}


def test_numbers_that_do_not_exist_are_null_in_sidecars(tmp_path):
    image = ImageOutput(
        tmp_path / "a.nii.gz", Volume(torch.rand(GRID.shape), GRID), None, {"Fit": {"Cost": float("nan")}}
    )
    write_results([image], {"Scores": [float("inf"), 1.5]}, force=False)
    text = (tmp_path / "a.json").read_text()
    values = json.loads(text, parse_constant=pytest.fail)
    assert values["Fit"] == {"Cost": None}
    assert values["Scores"] == [None, 1.5]


def test_results_stay_in_the_world_space_of_their_source(tmp_path):
    source = Volume(torch.ones(GRID.shape), GRID, {"SpaceCode": 4})
    data = torch.arange(120.0).reshape(GRID.shape)
    prob = torch.zeros((3, *GRID.shape))
    prob[0, 1], prob[1, 2], prob[2, 3] = 1, 1, 1
    target = OutputNames(tmp_path, "b")
    image = ImageOutput(tmp_path / "a.nii.gz", Volume(data, GRID), source, {"Units": "s"})
    tissues = TissueOutput(target, "sr", TissueMap(prob, TISSUES, GRID), source)
    written = write_results([image, tissues], {"Seed": 3}, force=False)
    assert written == [tmp_path / "a.nii.gz", *target.tissues("sr")]
    sidecars = [json.loads((tmp_path / name).read_text()) for name in ("a.json", "b_sr_dseg.json")]
    assert [(values["Seed"], values.get("Units")) for values in sidecars] == [(3, "s"), (3, None)]
    for path in written:
        header = nib.load(path).header
        assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 4)
    assert torch.equal(load_volume(tmp_path / "a.nii.gz").data, data)


def test_page_is_written_whole_and_not_over_another(tmp_path):
    page = text_output(tmp_path / "new" / "a.html", "<p>\u00d7</p>")
    assert write_results([page], {}, force=False) == [page.path]
    assert (tmp_path / "new" / "a.html").read_text(encoding="utf-8") == "<p>\u00d7</p>"
    with pytest.raises(BadInputError, match="exists already"):
        write_results([page], {}, force=False)


def test_numbers_that_json_cannot_hold_become_null(tmp_path):
    write_results([json_output(tmp_path / "a.json", {"b": float("nan"), "a": 1.5}, sort_keys=True)], {}, force=False)
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 1.5,\n  "b": null\n}\n'


def test_a_record_without_chance_has_no_seed():
    record = Record(parameters={"a": 1})
    assert "Seed" not in record.sidecar()
    assert record.settings == {"a": 1}
    assert Record(seed=0).settings == {"seed": 0}
