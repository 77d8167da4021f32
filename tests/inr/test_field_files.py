"""Fitted fields: rendered on any grid, saved and loaded without a change of a bit."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from operators import grid, positions_mm
from safetensors.torch import save_file

from inr.field_files import DESIGNS as KNOWN
from inr.field_files import FORMAT, load_field, save_field
from inr.fields.fourier import FourierMlp
from inr.fields.gabor_mlp import GaborMlp, TwoMapGaborMlp, Wire
from inr.fields.hashgrid import HashGrid
from inr.fields.multilevel import FieldSettings
from inr.fields.siren import Siren
from inr.fitting.fit import FitSettings, fit
from inr.hulfsynth import HulfSynthField
from inr.rendering import FittedField, fitted_field, render
from inr.scans.single import OneScan
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.volume import TISSUES, TissueMap
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator, predict

LATTICE = grid((14, 16, 12), (2.0, 2.0, 2.0), (6, -4, 9), (8, -5, 12))
SCAN = grid((14, 16, 6), (2.0, 2.0, 4.0), (6, -4, 9), (8, -5, 12))
CENTRE_MM = np.array([8.5, -5.5, 10.5])
DESIGNS = {
    "FieldSettings": FieldSettings((8.0,), 1.5),
    "GaborMlp": GaborMlp(0.1, 0.1, 12, 2),
    "TwoMapGaborMlp": TwoMapGaborMlp(0.1, 0.1, 12, 2),
    "Wire": Wire(0.1, 0.1, 12, 2),
    "Siren": Siren(0.05, 24, 2),
    "FourierMlp": FourierMlp(0.1, 6, 12, 2),
    "HashGrid": HashGrid(coarsest_mm=8.0, n_levels=3, log2_entries=8, n_hidden=8),
    "HulfSynthField": HulfSynthField(8, 2),
}


def blob(where, width_mm=5.0) -> torch.Tensor:
    square = ((positions_mm(where).numpy() - CENTRE_MM) ** 2).sum(-1)
    return torch.from_numpy(np.exp(-square / (2 * width_mm**2))).float()


def some_tissues() -> TissueMap:
    prob = torch.rand(3, *LATTICE.shape, generator=torch.Generator().manual_seed(1))
    prob = prob / prob.sum(0) * (blob(LATTICE) > 0.3)
    return TissueMap(prob, TISSUES, LATTICE)


def fitted_blob(design, n_steps=6, start=None) -> tuple[FittedField, object]:
    """A blob scanned in thick slices and fitted from a start that knows nothing of it."""
    operator = imaging_operator(LATTICE, SCAN, gaussian_psf(SCAN.spacing_mm))
    settings = FitSettings(field=design, n_steps=n_steps, learning_rate=0.01, tv_weight=0.01)
    start = torch.full(LATTICE.shape, 0.1) if start is None else start
    everywhere = torch.ones(LATTICE.shape, dtype=torch.bool)
    scan = predict(operator, blob(LATTICE))
    done = fit(OneScan(scan, operator, 0.02), LATTICE, start[None], everywhere, some_tissues(), 0, settings)
    return fitted_field(done, settings, TISSUES, 250.0), done


def centroid_mm(image, where) -> np.ndarray:
    weight = image.double().numpy().reshape(-1, 1)
    return (weight * positions_mm(where).numpy().reshape(-1, 3)).sum(0) / weight.sum()


@pytest.mark.parametrize("name", ["FieldSettings", "Siren"])
def test_a_blob_stays_where_it_is_in_the_world(name):
    fitted, _ = fitted_blob(DESIGNS[name], n_steps=80)
    finer = grid((34, 30, 36), (1.1, 1.2, 1.0), (7, -5, 10), (-20, 15, 30), flips=(0,))
    image, _ = render(fitted, finer)
    expected = blob(finer) * 250
    within = blob(finer) > 0.1
    assert (image.data - expected)[within].square().mean().sqrt() < 15
    kept = torch.where(image.data > 60, image.data, 0)
    truth = torch.where(expected > 60, expected, 0)
    assert np.abs(centroid_mm(kept, finer) - centroid_mm(truth, finer)).max() < 0.3


def test_on_its_own_lattice_it_is_the_fit():
    fitted, done = fitted_blob(DESIGNS["Siren"])
    image, tissues = render(fitted, LATTICE)
    assert torch.equal(image.data, done.image * 250)
    assert torch.equal(tissues.prob, done.prob)
    assert tissues.names == TISSUES


def test_another_grid_agrees_with_the_lattice_where_voxels_meet():
    """The same voxels, counted backwards along two axes: another grid, the same places."""
    fitted, _ = fitted_blob(DESIGNS["GaborMlp"], start=blob(LATTICE))
    flipped = grid(LATTICE.shape, LATTICE.spacing_mm, (6, -4, 9), (8, -5, 12), flips=(0, 2))
    image, tissues = render(fitted, LATTICE)
    other, others = render(fitted, flipped)
    assert torch.allclose(other.data.flip(0, 2), image.data, atol=0.05)
    assert torch.allclose(others.prob.flip(1, 3), tissues.prob, atol=1e-3)


def test_outside_the_foreground_all_is_zero():
    fitted, _ = fitted_blob(DESIGNS["Siren"])
    away = grid((4, 4, 4), (2.0,) * 3, (500, 0, 0))
    image, tissues = render(fitted, away)
    assert image.data.abs().max() == 0
    assert tissues.prob.abs().max() == 0


def test_background_is_a_logit_without_a_name():
    fitted, _ = fitted_blob(DESIGNS["Siren"])
    named = dataclasses.replace(fitted, names=TISSUES[:2])
    _, tissues = render(named, LATTICE)
    _, all_three = render(fitted, LATTICE)
    assert tissues.names == TISSUES[:2]
    assert torch.equal(tissues.prob, all_three.prob[:2])


@pytest.mark.parametrize("name", KNOWN)
def test_saved_and_loaded_without_a_change_of_a_bit(name, tmp_path):
    fitted, _ = fitted_blob(DESIGNS[name], n_steps=2)
    path = tmp_path / "field.safetensors"
    save_field(fitted, path)
    again = load_field(path)
    assert again.design == fitted.design
    assert again.names == fitted.names
    assert again.scale == fitted.scale
    assert np.array_equal(again.field.grid.affine, LATTICE.affine)
    ours, theirs = fitted.field.state_dict(), again.field.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for where in (LATTICE, grid((9, 8, 7), (2.3,) * 3, (6, -4, 9))):
        one, other = render(fitted, where), render(again, where)
        assert torch.equal(one[0].data, other[0].data)
        assert torch.equal(one[1].prob, other[1].prob)


def test_every_design_is_in_this_test():
    assert KNOWN.keys() == DESIGNS.keys()


def test_files_are_not_overwritten_unless_asked(tmp_path):
    fitted, _ = fitted_blob(DESIGNS["Siren"], n_steps=1)
    path = tmp_path / "field.safetensors"
    save_field(fitted, path)
    with pytest.raises(BadInputError, match="exists already"):
        save_field(fitted, path)
    save_field(fitted, path, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["field.safetensors"]


def test_files_that_are_no_fields(tmp_path):
    with pytest.raises(BadInputError, match="no file"):
        load_field(tmp_path / "missing.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("this is not a field at all")
    with pytest.raises(BadInputError, match="not a safetensors file"):
        load_field(text)
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, other)
    with pytest.raises(BadInputError, match="not a field of this version"):
        load_field(other)
    save_file({"x": torch.zeros(2)}, other, metadata={"format": FORMAT, "field": json.dumps({"design": "Siren"})})
    with pytest.raises(BadInputError, match="incomplete"):
        load_field(other)


def test_designs_of_others_cannot_be_saved(tmp_path):
    fitted, _ = fitted_blob(DESIGNS["Siren"], n_steps=1)
    with pytest.raises(BadInputError, match="cannot be saved"):
        save_field(dataclasses.replace(fitted, design=object()), tmp_path / "field.safetensors")


@pytest.mark.parametrize(
    "changes",
    [{"names": ("A",)}, {"foreground": torch.zeros(LATTICE.shape, dtype=torch.bool)}, {"brain": torch.ones(2, 2, 2)}],
    ids=["names", "foreground", "brain"],
)
def test_parts_that_do_not_belong_together(changes):
    fitted, _ = fitted_blob(DESIGNS["Siren"], n_steps=1)
    with pytest.raises(BadInputError):
        dataclasses.replace(fitted, **changes)
