"""Which files a job writes, and writing each once it is finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.io.atomic import atomic_write, refuse_existing
from mrcore.io.nifti_write import space_code
from mrcore.io.sidecar import finite, sidecar_path
from mrcore.io.tissues import probability_paths, save_tissues
from mrcore.io.volumes import save_volume


@dataclass(frozen=True)
class OutputNames:
    """An output folder and the first part of the names of all files in it."""

    directory: Path
    stem: str

    def image(self, name: str) -> Path:
        """Return the file of the image `name`."""
        return self.file(f"{name}.nii.gz")

    def tissues(self, name: str) -> list[Path]:
        """Return the files of the tissues of `name` (empty: of the input itself)."""
        return probability_paths(self.directory, self.tissue_stem(name))

    def tissue_stem(self, name: str) -> str:
        """Return the stem that `save_tissues` needs for the tissues of `name`."""
        return f"{self.stem}_{name}" if name else self.stem

    def report(self, name: str) -> Path:
        """Return the HTML page."""
        return self.file(f"{name}_report.html")

    def file(self, ending: str) -> Path:
        """Return a file whose name ends in `ending`."""
        return self.directory / f"{self.stem}_{ending}"


@dataclass(frozen=True, eq=False)
class ImageOutput:
    """An image to write, in the world space that `space_of` came in; `about` is what its sidecar says of it alone."""

    path: Path
    volume: Volume
    space_of: Volume | None = None
    about: Mapping[str, object] = field(default_factory=dict)

    def write(self, sidecar: Mapping[str, object], *, force: bool) -> list[Path]:
        """Write the image with its sidecar."""
        volume = self.volume if self.space_of is None else in_space_of(self.space_of, self.volume)
        save_volume(volume, self.path, sidecar=_says(sidecar, self.about), force=force)
        return [self.path]


@dataclass(frozen=True, eq=False)
class TissueOutput:
    """Tissue maps to write, label map and probabilities, in the world space that `space_of` came in."""

    names: OutputNames
    name: str
    tissues: TissueMap
    space_of: Volume
    about: Mapping[str, object] = field(default_factory=dict)

    def write(self, sidecar: Mapping[str, object], *, force: bool) -> list[Path]:
        """Write the maps, each with its sidecar."""
        stem, space = self.names.tissue_stem(self.name), space_code(self.space_of.meta)
        says = _says(sidecar, self.about)
        return save_tissues(self.tissues, self.names.directory, stem, sidecar=says, force=force, space=space)


@dataclass(frozen=True, eq=False)
class FileOutput:
    """A file of another kind: `save` writes it to a path whole or not at all; `force` replaces what is there."""

    path: Path
    save: Callable[[Path, bool], object]

    def write(self, sidecar: Mapping[str, object], *, force: bool) -> list[Path]:
        """Write the file."""
        self.save(self.path, force)
        return [self.path]


Output = ImageOutput | TissueOutput | FileOutput


def text_output(path: Path, text: str) -> FileOutput:
    """Return the output of a text, such as an HTML page."""
    return bytes_output(path, text.encode("utf-8"))


def bytes_output(path: Path, content: bytes) -> FileOutput:
    """Return the output of a file's content."""

    def save(to: Path, force: bool) -> None:
        with atomic_write(to, force=force) as temporary:
            temporary.write_bytes(content)

    return FileOutput(path, save)


def json_output(path: Path, values: Mapping[str, object], *, indent: int = 2, sort_keys: bool = False) -> FileOutput:
    """Return the output of numbers as JSON; what is not finite becomes null."""
    return text_output(path, json.dumps(finite(values), indent=indent, sort_keys=sort_keys, allow_nan=False) + "\n")


def write_results(outputs: Sequence[Output], sidecar: Mapping[str, object], *, force: bool) -> list[Path]:
    """Write the results of a job in order and return their paths; `sidecar` is what all sidecars say.

    Numbers that are not finite (a score that does not exist) become null: hours of work shall not be lost to one.

    Make pages and all other texts before: should that fail, no results without a report stay behind.
    """
    return [path for output in outputs for path in output.write(sidecar, force=force)]


def _says(sidecar: Mapping[str, object], about: Mapping[str, object]) -> dict[str, object]:
    return {key: finite(value) for key, value in {**sidecar, **about}.items()}


def check_outputs(images: Iterable[Path], others: Iterable[Path], inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse, before any work is done, to write over what is there; inputs are never written over.

    Raises:
        BadInputError: a file exists and `force` is off, is one of the inputs, or cannot be made.
    """
    images = list(images)
    paths = [*images, *map(sidecar_path, images), *others]
    read = {path.resolve() for path in inputs}
    clash = [path for path in paths if path.resolve() in read]
    if clash:
        raise BadInputError(f"{clash[0]} is an input and would be written over; choose another output folder")
    refuse_existing(paths, force=force)


def in_space_of(source: Volume, result: Volume) -> Volume:
    """Return `result` marked as lying in the same world space (scanner, MNI, ...) as the loaded image `source`."""
    return Volume(result.data, result.grid, {**result.meta, "SpaceCode": space_code(source.meta)})
