"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Bad input from outside: a file, a value, a flag.

    The message names the file, what was found there and what to do. The command line prints it without a
    traceback and exits with 2, or with 1 where the other scans went on.
    """
