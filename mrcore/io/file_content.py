"""The bytes of an image file, as they are or out of gzip, and what a file is that holds no image."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from mrcore.errors import BadInputError

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")

_GZIP = b"\x1f\x8b"
_CONVERT = "convert it to NIfTI"
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"NRRD000", f"an NRRD image; {_CONVERT} (for instance with ITK-SNAP or 3D Slicer)"),
    (b"ObjectType", f"a MetaImage (.mha, .mhd); {_CONVERT} (for instance with ITK-SNAP or 3D Slicer)"),
    (b"\x89HDF\r\n\x1a\n", f"an HDF5 file: a MINC 2 image ({_CONVERT} with mnc2nii), or raw data for `mrkit quantify`"),
    (b"CDF\x01", f"a MINC 1 image; {_CONVERT} with mnc2nii"),
    (b"CDF\x02", f"a MINC 1 image; {_CONVERT} with mnc2nii"),
    (b"MATLAB 5.0", "a MATLAB file; export the image as NIfTI"),
    (b"\x93NUMPY", "a NumPy array, which has no voxel size or position; save it as NIfTI"),
    (b"mrtrix image", f"an MRtrix image; {_CONVERT} with mrconvert"),
    (b"PK\x03\x04", "a ZIP archive; unpack it and give the image in it"),
    (b"BZh", "compressed with bzip2; unpack it with bunzip2"),
    (b"\xfd7zXZ\x00", "compressed with xz; unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard; unpack it with unzstd"),
    (b"\x89PNG", "a PNG picture; give the scan itself, not a picture of it"),
    (b"\xff\xd8\xff", "a JPEG picture; give the scan itself, not a picture of it"),
    (b"%PDF", "a PDF document; give the scan itself"),
)
_WEB_PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)
_LARGEST_POINTER = 32_768  # bytes; that of git-annex, those of Git LFS are smaller
# DICOM without its preamble begins with group 2 or 8, an element and its type in two capitals.
_BARE_DICOM = re.compile(rb"[\x02\x08]\x00.\x00[A-Z]{2}", re.DOTALL)
_NAMED_FOR = {"NIfTI-1": (".nii", ".nii.gz"), "NIfTI-2": (".nii", ".nii.gz"), "MGH": (".mgh", ".mgz")}


@dataclass(frozen=True, eq=False)
class FileContent:
    """The bytes of an image file after decompression, and what is odd about the file though it can be read.

    `sha256` is that of the bytes as stored.
    """

    content: bytes
    compressed: bool
    sha256: str
    cautions: tuple[str, ...]


def read_content(path: Path) -> FileContent:
    """Read a file whole; gzip is known by its bytes, not by the name, and checked to its last byte.

    Raises:
        BadInputError: no such file, a link to nothing, a file whose content was not fetched, a folder, what is no
            regular file, an empty or unreadable file, or a gzip stream that is truncated or damaged.
    """
    refuse_unfetched(path)
    if not path.exists():
        raise BadInputError(f"{path}: no such file")
    if path.is_dir():
        raise BadInputError(_about_folder(path))
    if not path.is_file():
        raise BadInputError(f"{path} is no regular file (a pipe, socket or device); save the image to a file first")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}") from None
    if not raw:
        raise BadInputError(f"{path} is empty (0 bytes); copy or convert the image again")
    compressed = raw[:2] == _GZIP
    content, cautions = _decompressed(path, raw) if compressed else (raw, ())
    if compressed and content[:2] == _GZIP:
        raise BadInputError(f"{path} is compressed twice (gzip within gzip); unpack it once with gunzip")
    return FileContent(content, compressed, hashlib.sha256(raw).hexdigest(), cautions)


def refuse_unfetched(path: Path) -> None:
    """Raise where a file of a data set was not fetched, or a link leads to nothing; a missing file is no matter.

    Git-annex (DataLad) leaves links into `.git/annex/objects`, or files that hold such a path; Git LFS leaves files of
    three lines (https://git-annex.branchable.com/internals/pointer_file, https://git-lfs.com: docs/spec.md).

    Raises:
        BadInputError: the content of the file is not here; the message says what fetches it.
    """
    annex = f"not fetched: git-annex has not brought its content here; run `git annex get {path.name}` (or datalad get)"
    if path.is_symlink() and not path.exists():
        target = str(path.readlink())
        if ".git/annex/objects/" in target.replace("\\", "/"):
            raise BadInputError(f"{path} is {annex} in its folder")
        raise BadInputError(f"{path} is a link to {target}, which is not there; mend the link or copy the file itself")
    pointer = _pointer(path)
    if pointer.startswith(b"version https://git-lfs.github.com/spec/"):
        fetch = f"run `git lfs pull --include={path.name}` in its repository"
        raise BadInputError(f"{path} is not fetched: it is a pointer of Git LFS to the image, not the image; {fetch}")
    if pointer.startswith(b"/annex/objects/") or b".git/annex/objects/" in pointer.partition(b"\n")[0]:
        raise BadInputError(f"{path} is {annex} in its folder")


def what_it_is(path: Path, content: bytes) -> str:
    """Return what a file is that is no NIfTI or MGH image, and what to do, for after its name."""
    if content[128:132] == b"DICM" or _BARE_DICOM.match(content):
        return "is a DICOM file; convert the series to NIfTI with dcm2niix"
    if content[344:348] == b"ni1\0" or path.suffix in (".hdr", ".img"):
        return "is half of a .hdr/.img pair; convert it to a single .nii.gz file"
    if int.from_bytes(content[:4], "little") == 348 or int.from_bytes(content[:4], "big") == 348:
        return "has the header of Analyze 7.5, which does not say left from right; convert the original images again"
    for signature, words in _SIGNATURES:
        if content.startswith(signature):
            return f"is {words}"
    if _WEB_PAGE.match(content):
        return "is a web page, such as a server sends in place of a file; download the image again"
    return "is not a NIfTI-1, NIfTI-2 or MGH image (.nii, .nii.gz, .mgh, .mgz)"


def name_cautions(path: Path, kind: str, *, compressed: bool) -> list[str]:
    """Return what is wrong between the name of an image and its format (`NIfTI-1`, `NIfTI-2`, `MGH`)."""
    plain, packed = _NAMED_FOR[kind]
    right = packed if compressed else plain
    # The longest that fits: .nii.gz before .nii. A name with none of them promises nothing.
    named = next((suffix for suffix in IMAGE_SUFFIXES if path.name.lower().endswith(suffix)), right)
    if named == right:
        return []
    what = f"{kind} {'compressed with gzip' if compressed else 'without compression'}"
    return [f"the name ends in {named}, but this is {what}; it was read, other programs may not: name it {right}"]


def excess_cautions(content: bytes, end: int) -> list[str]:
    """Return what lies behind the data of a NIfTI image, which end at byte `end`."""
    excess = content[end:]
    if not excess:
        return []
    if not excess.strip(b"\0"):
        return [f"{len(excess)} bytes of 0 after the data were ignored"]
    text = f"{len(excess)} bytes after the data, which are not 0, were ignored"
    return [f"{text}: more data than the header asks for; compare its sizes and type with the original"]


def _pointer(path: Path) -> bytes:
    """Return the beginning of a file that is small enough to be a pointer, else one line of nothing."""
    try:
        if path.is_file() and 0 < path.stat().st_size <= _LARGEST_POINTER:
            with path.open("rb") as file:
                return file.read(512)
    except OSError:  # who reads the file says why it cannot be read
        pass
    return b"\n"


def _decompressed(path: Path, raw: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return the content of a gzip file, of one stream or several, and what lies behind them."""
    parts, rest = [], raw
    while rest[:2] == _GZIP:
        stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            parts.append(stream.decompress(rest) + stream.flush())
        except zlib.error as error:
            raise _damaged(path, str(error)) from None
        if not stream.eof:
            raise _damaged(path, "it ends before its end marker")
        rest = stream.unused_data
    if not rest:
        return b"".join(parts), ()
    if not rest.strip(b"\0"):
        return b"".join(parts), (f"{len(rest)} bytes of 0 after the end of the gzip stream were ignored",)
    if rest.lstrip(b"\0")[:2] == _GZIP:  # streams with padding between them: gzip's own reader takes them as one
        try:
            return gzip.decompress(raw), ()
        except (EOFError, OSError, zlib.error) as error:
            raise _damaged(path, str(error)) from None
    text = f"{len(rest)} bytes after the end of the gzip stream are not gzip and were ignored"
    return b"".join(parts), (f"{text}; the stream itself is whole by its checksum: copy the file again to be sure",)


def _damaged(path: Path, reason: str) -> BadInputError:
    return BadInputError(f"{path}: the gzip stream is truncated or damaged ({reason}); copy the file again")


def _about_folder(path: Path) -> str:
    try:
        names = sorted(p.name for p in path.iterdir() if p.name.lower().endswith(IMAGE_SUFFIXES))
    except OSError:
        names = []
    holds = f" (it holds {len(names)}, such as {names[0]})" if names else ""
    return (
        f"{path} is a folder; give one NIfTI or MGH image{holds} (a folder of DICOM files is converted with dcm2niix)"
    )
