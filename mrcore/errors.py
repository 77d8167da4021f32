"""Errors that tell a user what was expected, what came and what to do."""


class MrkitError(ValueError):
    """Base of every error that a user can mend; the command line prints it as one line and exits with 2."""


class BadInputError(MrkitError):
    """A file, array or parameter that cannot be used as it is."""


class GridMismatchError(MrkitError):
    """Two images that must share a grid do not."""


class MissingExtraError(MrkitError):
    """An optional library is needed; the message names the extra that installs it."""
