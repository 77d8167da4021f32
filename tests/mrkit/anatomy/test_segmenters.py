"""Segmenters by name, and the weighting of an image."""

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrkit.anatomy import segmenters
from mrkit.anatomy.finding import weighting, weighting_cautions, weighting_of
from mrkit.anatomy.segmenters import BACKENDS, ORDERS, segmenter_named
from mrkit.arguments import SEGMENTERS, WEIGHTINGS


def volume(meta=None):
    return Volume(torch.ones((4, 4, 4)), Grid((4, 4, 4), np.eye(4)), meta or {})


def test_names_of_the_help_are_those_that_exist():
    assert set(BACKENDS) == set(SEGMENTERS)
    assert set(ORDERS) == set(WEIGHTINGS)


@pytest.mark.parametrize(("name", "expected"), [
    ("sub-01_T1w", "T1w"), ("sub-01_T2w", "T2w"), ("sub-01_acq-x_FLAIR", "FLAIR"), ("stroke_3T_T2_brain", "T2w"),
    ("sub-01_T2w_ulf", "T2w"), ("scan", "T1w"), ("T1_to_T2", "T1w"), ("flairy", "T1w"),
    ("sub-01_T2w.nii.gz", "T2w"), ("id_T1.mgz", "T1w"), ("sub-01_FLAIR.nii", "FLAIR"),
])  # fmt: skip
def test_weighting_is_read_from_the_name(name, expected):
    assert weighting_of(volume(), name) == expected


def test_sidecar_of_mrkit_goes_before_the_name():
    meta = {"Acquisition": {"sequence": {"weighting": "FLAIR"}}}
    assert weighting_of(volume(meta), "sub-01_T1w") == "FLAIR"
    assert weighting_of(volume({"Acquisition": "odd"}), "sub-01_T2w") == "T2w"


@pytest.mark.parametrize(
    ("meta", "name", "expected", "caution"),
    [
        ({"SeriesDescription": "T2 (AXI)"}, "scan", "T2w", None),
        ({"ProtocolName": "t2_space_dark-fluid_sag"}, "scan", "FLAIR", None),
        ({"ScanningSequence": ["GR", "IR"], "SequenceName": "*tfl3d1_16ns"}, "scan", "T1w", None),
        ({"SeriesDescription": "T2 (AXI)"}, "sub-01_T2w", "T2w", None),
        ({"SeriesDescription": "T2 (AXI)"}, "sub-01_T1w", "T2w", r"as SeriesDescription in its sidecar says"),
        ({"SeriesDescription": "localizer", "EchoTime": 0.1}, "sub-01_T1w", "T1w", None),
        ({"EchoTime": 0.1948, "RepetitionTime": 2.0}, "scan", "T2w", "by its echo and inversion time alone"),
        ({"EchoTime": 0.16, "InversionTime": 1.3}, "scan", "FLAIR", "by its echo and inversion time alone"),
        ({"EchoTime": 0.01, "RepetitionTime": 4.0}, "scan", "T1w", None),
        ({"EchoTime": 80}, "scan", "T1w", None),
        ({"EchoTime": "long"}, "scan", "T1w", None),
    ],
)  # fmt: skip
def test_weighting_is_told_by_names_in_the_sidecar_then_the_file_then_times(meta, name, expected, caution):
    image = volume({**meta, "SourceFile": f"{name}.nii.gz"})
    assert weighting_of(image, name) == weighting(image) == expected
    found = weighting_cautions(image)
    assert not found if caution is None else caution in found[0]


def test_unknown_names_are_refused():
    with pytest.raises(BadInputError, match="no segmenter 'spm'; there are mrkit"):
        segmenter_named("spm", "T1w")
    with pytest.raises(BadInputError, match="no tissue order for weighting 'PDw'"):
        segmenter_named("mrkit", "PDw")


def test_the_template_is_laid_over_a_person_once(monkeypatch):
    """A second image of the person, as on the lattice of a fit, is segmented by the same prior."""
    calls, used = [], []
    monkeypatch.setattr(segmenters, "atlas_prior", lambda volume, mask: calls.append(volume) or "prior")
    monkeypatch.setattr(
        segmenters, "atlas_segmenter", lambda prior, settings: lambda volume, mask: used.append((prior, settings))
    )
    segmenter = segmenter_named("icbm", "T2w")
    for _ in range(2):
        segmenter(volume(), torch.ones(4, 4, 4, dtype=torch.bool))
    assert len(calls) == 1
    assert [prior for prior, _ in used] == ["prior", "prior"]
    assert used[0][1].tissue_order == ORDERS["T2w"]
