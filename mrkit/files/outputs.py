"""Which files a command writes, and writing each once it is finished."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.io.atomic import atomic_write, refuse_existing
from mrcore.io.nifti_write import space_code
from mrcore.io.sidecar import sidecar_path
from mrcore.io.tissues import probability_paths, save_tissues
from mrcore.io.volumes import save_volume


@dataclass(frozen=True)
class Target:
    """An output folder and the first part of the names of all files in it."""

    directory: Path
    stem: str

    def image(self, name: str) -> Path:
        """Return the file of the image `name`."""
        return self.directory / f"{self.stem}_{name}.nii.gz"

    def tissue_stem(self, name: str) -> str:
        """Return the stem that `save_tissues` needs for the tissues of `name` (empty: of the input itself)."""
        return f"{self.stem}_{name}" if name else self.stem

    def tissues(self, name: str) -> list[Path]:
        """Return the files of the tissues of `name`."""
        return probability_paths(self.directory, self.tissue_stem(name))

    def report(self, name: str) -> Path:
        """Return the HTML page."""
        return self.directory / f"{self.stem}_{name}_report.html"


def check_targets(images: Iterable[Path], pages: Iterable[Path], inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse, before any work is done, to write over what is there; inputs are never written over.

    Raises:
        BadInputError: a file exists and `force` is off, is one of the inputs, or cannot be made.
    """
    images = list(images)
    paths = [*images, *map(sidecar_path, images), *pages]
    read = {path.resolve() for path in inputs}
    clash = [path for path in paths if path.resolve() in read]
    if clash:
        raise BadInputError(f"{clash[0]} is an input and would be written over; choose another output folder")
    refuse_existing(paths, force=force)


def write_image(volume: Volume, path: Path, sidecar: Mapping[str, object], *, force: bool) -> Path:
    """Write one image with its sidecar."""
    save_volume(volume, path, sidecar=sidecar, force=force)
    return path


def write_tissues(
    tissues: TissueMap, target: Target, name: str, sidecar: Mapping[str, object], space_of: Volume, *, force: bool
) -> list[Path]:
    """Write label map and probability maps, in the world space that `space_of` came in."""
    return save_tissues(
        tissues,
        target.directory,
        target.tissue_stem(name),
        sidecar=sidecar,
        force=force,
        space=space_code(space_of.meta),
    )


def write_page(html: str, path: Path, *, force: bool) -> Path:
    """Write an HTML page."""
    with atomic_write(path, force=force) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def in_space_of(source: Volume, result: Volume) -> Volume:
    """Return `result` marked as lying in the same world space (scanner, MNI, ...) as the loaded image `source`."""
    return Volume(result.data, result.grid, {**result.meta, "SpaceCode": space_code(source.meta)})
