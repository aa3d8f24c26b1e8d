"""The exception for mistakes that a user can correct."""


class InputError(ValueError):
    """Bad input from outside: a file, a value, a setting.

    The message names the file or argument, the finding and the remedy.
    Arguments are named in backticks, with the value where it helps: `overwrite=True`, `fpr`.
    The command line replaces them by its flags (`maediff.cli.shared.errors`).
    It prints the message without a traceback and exits with code 2.
    If only some of several scans failed, the exit code is 1.
    """
