"""The named fits: all of the same objective, all storable."""

import dataclasses

from inr.field_files import DESIGNS
from inr.fitting.fit import FitSettings
from inr.fitting.methods import METHODS


def test_only_field_rate_batch_and_steps_differ():
    own = {"field", "learning_rate", "batch", "n_steps"}
    shared = [f.name for f in dataclasses.fields(FitSettings) if f.name not in own]
    for name, settings in METHODS.items():
        assert all(getattr(settings, key) == getattr(FitSettings(), key) for key in shared), name


def test_each_design_but_the_published_one_has_a_name():
    designs = {type(settings.field).__name__ for settings in METHODS.values()}
    assert designs == DESIGNS.keys() - {"HulfSynthField"}
    assert METHODS["default"] == FitSettings()
