"""The command `mrkit`. Nothing heavy is imported before the arguments are known to be right."""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, TextIO

from mrcore.errors import MrkitError
from mrkit.demo import command as commands_demo
from mrkit.enhancement import command as commands_enhance
from mrkit.fidelity import command as commands_fidelity
from mrkit.info import command as commands_info
from mrkit.iqt_training import command as commands_train_iqt
from mrkit.measurement import command as commands_measure
from mrkit.quantification import command as commands_quantify
from mrkit.rendering import command as commands_render
from mrkit.simulation import command as commands_simulate
from mrkit.superresolution import command as commands_superresolve
from mrkit.training import command as commands_train_denoiser
from mrkit.transfer import command as commands_transfer

EXIT_OK, EXIT_INTERNAL, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130

_DESCRIPTION = """\
Physics models for ultra-low-field (64 mT) MRI: simulate a scan from a high-field one, bring a real or simulated scan
to a finer grid by fitting this subject's own image through the same model of the acquisition. No training data.
For research; not a medical device."""

_EPILOG = """\
examples:
  mrkit demo --out demo-out                              everything at once, on a template brain
  mrkit info scan.nii.gz                                 what is this, and can it be used?
  mrkit measure scan.nii.gz                              contrast, noise and sharpness of a scan
  mrkit simulate t1.nii.gz out/ --seed 1                 a 64 mT T1w scan of this brain
  mrkit simulate t1.nii.gz out/ --like ulf.nii.gz        with the contrast and noise of a real scan
  mrkit superresolve ulf.nii.gz out/ --voxel 1.0         image, tissues and report at 1 mm
  mrkit render out/ulf_sr_field.safetensors fine/ --voxel 0.7    the fitted field with other voxels
  mrkit quantify raw.h5 out/ --sequence fisp.csv         T1, T2 and PD from the raw data of a fingerprint
  mrkit fidelity --sim a/ --real b/ --source c/          how close simulated scans are to real ones

Each command has its own help: mrkit simulate --help. Images are NIfTI-1/2 or MGH; lengths are in mm. Results are
written as .nii.gz with a .json beside each; nothing is overwritten without --force.
Warnings are printed, a line each; -q silences them, --strict stops at the first.
Exit codes: 0 done, 3 done without some images of a folder (each is named), 2 input that cannot be used (one line says
why), 1 an error in mrkit itself, 130 interrupted."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"mrkit: error: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    """Print the version; it is looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from mrcore.io.sidecar import software_version

        sys.stdout.write(f"mrkit {software_version()}\n")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="mrkit", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=raw, allow_abbrev=False)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group("messages")
    group.add_argument("-v", "--verbose", action="store_true", help="more messages, and the traceback of an error")
    group.add_argument("-q", "--quiet", action="store_true", help="no warnings")
    group.add_argument(
        "--strict", action="store_true", help="stop at the first warning with exit code 2, before results are written"
    )
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for module in (
        commands_simulate,
        commands_superresolve,
        commands_render,
        commands_quantify,
        commands_transfer,
        commands_fidelity,
        commands_info,
        commands_measure,
        commands_enhance,
        commands_train_denoiser,
        commands_train_iqt,
        commands_demo,
    ):
        module.add_parser(commands, common)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` are those of the process by default."""
    parsed = build_parser().parse_args(arguments)
    _log_to_stderr(verbose=parsed.verbose, quiet=parsed.quiet, strict=parsed.strict)
    try:
        code: int = parsed.run(parsed)
    except MrkitError as error:
        return _failed(f"error: {error}", EXIT_BAD_INPUT, verbose=parsed.verbose)
    except MemoryError:
        text = "error: not enough memory for this image; use a larger --voxel or a smaller field of view"
        return _failed(text, EXIT_BAD_INPUT, verbose=parsed.verbose)
    except KeyboardInterrupt:
        return _failed("interrupted", EXIT_INTERRUPTED, verbose=False)
    except BrokenPipeError:
        # The reader of our output has gone (`mrkit info ... | head`); Python must not complain at exit.
        sys.stderr.close()
        return EXIT_INTERNAL
    except Exception as error:  # the last line of defence: a user is owed one line, not a traceback
        text = f"internal error: {type(error).__name__}: {error}; run with --verbose for details and report this"
        return _failed(text, EXIT_INTERNAL, verbose=parsed.verbose)
    return code


def _failed(text: str, code: int, *, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    sys.stderr.write("mrkit: " + " ".join(text.split()) + "\n")
    return code


def _log_to_stderr(*, verbose: bool, quiet: bool, strict: bool) -> None:
    handler = _Strict() if strict else logging.StreamHandler()
    handler.setFormatter(_OneLine())
    handler.addFilter(_Once())
    level = logging.ERROR if quiet and not strict else logging.INFO if verbose else logging.WARNING
    for name in ("mrcore", "ulfsim", "inr", "recon", "mrkit"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


class _Strict(logging.StreamHandler[TextIO]):
    """Makes an error of the first warning."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            raise MrkitError(f"{record.getMessage()} (a warning, and --strict was asked for)")
        super().emit(record)


class _Once(logging.Filter):
    """Lets each message pass once: what is wrong with a file is found when it is read, and is a note on the result."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if text in self._seen:
            return False
        self._seen.add(text)
        return True


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"mrkit: {record.levelname.lower()}: " + " ".join(record.getMessage().split())
