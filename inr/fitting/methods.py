"""Fits by name, for comparison: one data term, total variation and tissue loss; only the field differs.

Rates and batches suit each field: dense grids learn from whole lattices at high rates; networks of the position are
dear per point and learn from scattered voxels at low ones. `n_steps` is what each needs for about the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from inr.fields.fourier import FourierMlp
from inr.fields.gabor_mlp import GaborMlp, TwoMapGaborMlp, Wire
from inr.fields.hashgrid import HashGrid
from inr.fields.siren import Siren
from inr.fitting.fit import FitSettings

METHODS: Mapping[str, FitSettings] = MappingProxyType(
    {
        "default": FitSettings(),
        "hash grid": FitSettings(field=HashGrid(), learning_rate=0.01, n_steps=100),
        "SIREN": FitSettings(field=Siren(), learning_rate=2e-3, n_steps=300, batch=0.1),
        "Gabor": FitSettings(field=GaborMlp(), learning_rate=2e-3, n_steps=250, batch=0.1),
        "Gabor, two maps": FitSettings(field=TwoMapGaborMlp(), learning_rate=2e-3, n_steps=150, batch=0.1),
        "WIRE": FitSettings(field=Wire(), learning_rate=1e-3, n_steps=150, batch=0.1),
        "Fourier": FitSettings(field=FourierMlp(), learning_rate=1e-3, n_steps=250, batch=0.1),
    }
)
"""HULFSynth's own losses are not among these: see `inr.hulfsynth`."""
