"""The errors that the command line shows as one line instead of a traceback."""


class InputError(ValueError):
    """The user's input or a file of the workspace is wrong; the command line exits with code 2.

    The message says what is wrong, where, and what would be right.
    """


class CommandError(RuntimeError):
    """A program that was called (git, uv) failed; the command line exits with code 1."""
