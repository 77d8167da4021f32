"""What `mrkit quantify` reads: raw data, with the sequence, trajectory and kind of train that were given for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from mrcore.data.grid import Grid, Triple
from mrcore.errors import BadInputError
from mrcore.io.file_content import refuse_unfetched
from mrcore.signals.epg import UNIFORM_SLICE
from mrcore.signals.mrf_sequence import MrfSequence
from recon.dictionary.dictionary import ModelOf, bssfp_model, fisp_model
from recon.files.ismrmrd import read_ismrmrd
from recon.files.npz import read_npz
from recon.files.sequences import read_sequence, read_slice_profile
from recon.files.trajectories import read_trajectory
from recon.rawdata import RawData
from recon.trajectories.extent import unit_cautions
from recon.trajectories.trajectory import Trajectory

_ISMRMRD = (".h5", ".hdf5", ".mrd")


@dataclass(frozen=True)
class IsmrmrdOptions:
    """What an ISMRMRD file may leave open; see `recon.files.ismrmrd.read_ismrmrd`.

    Files of other kinds have it all, but for `k_unit`, which is that of the trajectory that is used, whatever its file
    (None: cycles/voxel in ISMRMRD, cycles/mm in .npz).
    """

    k_unit: str | None = None
    slice_index: int | None = None
    encoding: int | None = None
    fov_mm: Triple | None = None
    frame_counter: str | None = None


@dataclass(frozen=True)
class Train:
    """The train of pulses, as given beside the raw data.

    Attributes:
        sequence: table that stands for the sequence of the raw data.
        ti_s: from the inversion to the first pulse, of `sequence`; None for no inversion.
        inversion_efficiency: of that inversion.
        balanced: whether it is balanced SSFP; else FISP, spoiled by its gradients.
        off_resonance_hz: of a balanced train, one for the whole object.
        slice_profile: table of flip factors across the slice; None for a uniform slice.

    Raises:
        BadInputError: an inversion without the sequence that it belongs to, an off-resonance of an unbalanced train.
    """

    sequence: Path | None = None
    ti_s: float | None = None
    inversion_efficiency: float = 1.0
    balanced: bool = False
    off_resonance_hz: float = 0.0
    slice_profile: Path | None = None

    def __post_init__(self) -> None:
        if self.sequence is None and (self.ti_s is not None or self.inversion_efficiency != 1):
            raise BadInputError("--ti and --inversion-efficiency belong to the table of --sequence, which is not given")
        if self.off_resonance_hz and not self.balanced:
            raise BadInputError("--off-resonance is for balanced trains: add --balanced, or leave it out")

    def read(self) -> MrfSequence | None:
        """Return the sequence of the table, None where none is given."""
        return read_sequence(self.sequence, self.ti_s, self.inversion_efficiency) if self.sequence else None

    def model(self) -> ModelOf:
        """Return the model of the signals."""
        profile = read_slice_profile(self.slice_profile) if self.slice_profile else UNIFORM_SLICE
        if self.balanced:
            return partial(bssfp_model, off_resonance_hz=self.off_resonance_hz, profile=profile)
        return partial(fisp_model, profile=profile)


def load_raw(
    path: str | Path,
    *,
    sequence: str | Path | MrfSequence | None = None,
    ti_s: float | None = None,
    inversion_efficiency: float = 1.0,
    trajectory: str | Path | None = None,
    ismrmrd: IsmrmrdOptions | None = None,
) -> RawData:
    """Load raw data of a fingerprint, from ISMRMRD (.h5) or .npz.

    Args:
        path: the raw data.
        sequence: the train, or a table of it (.csv, .mat or text: one line a frame, flip angles and times); that of the
            raw data by default.
        ti_s: from an inversion to the first pulse of a table; None for no inversion.
        inversion_efficiency: of that inversion.
        trajectory: file with k-space positions (.npz) that stand for those of the raw data.
        ismrmrd: what an ISMRMRD file may leave open.

    Raises:
        BadInputError: files that cannot be used, options that do not go with the file, or data without a sequence.
    """
    if isinstance(sequence, MrfSequence):
        if ti_s is not None or inversion_efficiency != 1.0:
            raise BadInputError("the train that was given has its own inversion; leave ti_s and its efficiency out")
        return _read(Path(path), sequence, trajectory, ismrmrd or IsmrmrdOptions())
    train = Train(None if sequence is None else Path(sequence), ti_s, inversion_efficiency)
    return read_data(Path(path), train, trajectory, ismrmrd or IsmrmrdOptions())


def read_data(path: Path, train: Train, trajectory: str | Path | None, options: IsmrmrdOptions) -> RawData:
    """Read raw data, with the sequence and the trajectory that were given for them.

    Raises:
        BadInputError: files that cannot be used, options that do not go with the file, or data without a sequence.
    """
    raw = _read(path, train.read(), trajectory, options)
    if raw.sequence is None:
        raise BadInputError(f"{path} says nothing about its sequence; give it as a table with --sequence")
    return raw


def _read(path: Path, sequence: MrfSequence | None, trajectory: str | Path | None, options: IsmrmrdOptions) -> RawData:
    """Read a file of either kind; `sequence` and `trajectory` stand for those of the file."""
    refuse_unfetched(path)
    if not path.is_file():
        raise BadInputError(f"{path}: there is no such file; expected raw data as .h5 (ISMRMRD) or .npz")
    if trajectory:
        unit = options.k_unit or "cycles/mm"
        raw = _read_as(path, sequence, partial(read_trajectory, trajectory, k_unit=unit), options)
        return replace(raw, notes=(*raw.notes, *unit_cautions(raw.trajectory, unit)))
    return _read_as(path, sequence, None, options)


def _read_as(
    path: Path, sequence: MrfSequence | None, placed: Callable[[Grid], Trajectory] | None, options: IsmrmrdOptions
) -> RawData:
    """Read a file of either kind, with the trajectory `placed` on its grid where one is given."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        changed = [f.name for f in fields(options) if f.name != "k_unit" and getattr(options, f.name) != f.default]
        if changed:
            raise BadInputError(f"{path} is no ISMRMRD file and says itself what --{_option(changed[0])} would")
        return read_npz(path, sequence=sequence, trajectory=placed, k_unit=options.k_unit or "cycles/mm")
    if suffix in _ISMRMRD:
        return read_ismrmrd(
            path,
            sequence=sequence,
            trajectory=placed,
            frame_counter=options.frame_counter,
            k_unit=options.k_unit or "cycles/voxel",
            fov_mm=options.fov_mm,
            slice_index=options.slice_index,
            encoding=options.encoding,
        )
    raise BadInputError(f"{path}: raw data end in .npz or {', '.join(_ISMRMRD)} (ISMRMRD), not in '{path.suffix}'")


def _option(name: str) -> str:
    return {"slice_index": "slice", "fov_mm": "fov"}.get(name, name.replace("_", "-"))
