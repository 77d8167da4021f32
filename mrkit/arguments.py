"""Arguments that several commands share; light, because the help must come fast."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

MASKERS = ("template", "deepbet")
SEGMENTERS = ("mrkit", "icbm", "fast", "atropos", "dipy")
WEIGHTINGS = ("T1w", "T2w", "FLAIR")
TISSUE_NAMES = ("CSF", "GM", "WM")
_SEGMENTER_HELP = (
    "what finds CSF, GM and WM: mrkit (built in, the default), icbm (the same, knowing where the ICBM-152 template has "
    "them), fast (FSL must be installed), atropos (needs the extra mrkit[ants]), dipy (needs mrkit[dipy])"
)


def add_command(
    commands: Commands,
    common: argparse.ArgumentParser,
    name: str,
    *,
    summary: str,
    description: str,
    epilog: str,
) -> argparse.ArgumentParser:
    """Add a command with the options of all and return its parser."""
    return commands.add_parser(
        name,
        parents=[common],
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def positive(text: str) -> float:
    """Return a positive number."""
    return _number(text, above=0.0, what="a positive number")


def not_negative(text: str) -> float:
    """Return a number that is at least 0."""
    value = number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got '{text}'")
    return value


def number(text: str) -> float:
    """Return a finite number."""
    return _number(text, above=-math.inf, what="a number")


def tissue_number(text: str) -> tuple[str, float]:
    """Return the parts of `WM=50`."""
    name, equals, value = text.partition("=")
    if not equals or name not in TISSUE_NAMES:
        raise argparse.ArgumentTypeError(f"expected TISSUE=NUMBER with {', '.join(TISSUE_NAMES)}, got '{text}'")
    return name, positive(value)


def label_codes(text: str) -> dict[int, str]:
    """Return the tissue of each code of `GM=1,WM=2+41,CSF=3`; every tissue is needed, no code twice."""
    found: dict[int, str] = {}
    for part in text.split(","):
        name, _, codes = part.strip().partition("=")
        for code in codes.split("+"):
            if name not in TISSUE_NAMES or not code.isdigit() or int(code) in found:
                raise argparse.ArgumentTypeError(f"expected codes such as GM=1,WM=2,CSF=3, each once, got '{text}'")
            found[int(code)] = name
    if set(found.values()) != set(TISSUE_NAMES):
        raise argparse.ArgumentTypeError(f"expected codes of {', '.join(TISSUE_NAMES)}, got '{text}'")
    return found


def whole(text: str) -> int:
    """Return a whole number that is at least 0."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got '{text}'")
    return value


def at_least_one(text: str) -> int:
    """Return a whole number that is at least 1."""
    if (value := whole(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got '{text}'")
    return value


def add_brain(parser: argparse.ArgumentParser, image: str) -> None:
    """Add what tells brain and tissues of `image`."""
    group = parser.add_argument_group("brain and tissues")
    group.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help=f"brain mask on the grid of {image}; without it skull-stripped images are recognised, and the brain of "
        "others is found by --masker",
    )
    group.add_argument(
        "--masker",
        choices=MASKERS,
        default=MASKERS[0],
        help="what finds the brain of a head: template (registration, needs mrkit[demo], the default) or deepbet (a "
        "network for T1w heads, needs mrkit[deepbet])",
    )
    group.add_argument(
        "--tissues",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="one label map (codes as its sidecar or dseg.tsv states, else FAST's 1 CSF, 2 GM, 3 WM, or FreeSurfer's), "
        "or three probability maps in the order CSF GM WM, instead of a segmentation",
    )
    group.add_argument(
        "--labels",
        type=label_codes,
        metavar="GM=1,WM=2,CSF=3",
        help="what the codes of the label map mean; several codes of a tissue as WM=2+41; others are background",
    )
    group.add_argument(
        "--weighting",
        choices=WEIGHTINGS,
        help=f"contrast of {image}, which the segmentation needs (default: by the names in its sidecar, "
        "else its own name, else its times, else T1w)",
    )
    group.add_argument("--segmenter", choices=SEGMENTERS, default=SEGMENTERS[0], help=_SEGMENTER_HELP)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add seed, threads, overwriting and the report."""
    group = parser.add_argument_group("run")
    group.add_argument(
        "--seed", type=whole, default=0, metavar="N", help="all randomness follows from it (default: %(default)s)"
    )
    group.add_argument("--threads", type=at_least_one, metavar="N", help="CPU threads (default: all cores)")
    group.add_argument("--no-report", action="store_true", help="write images only, no HTML page")
    group.add_argument("--force", action="store_true", help="replace results that exist")


def _number(text: str, *, above: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= above:
        raise argparse.ArgumentTypeError(f"expected {what}, got '{text}'")
    return value
