"""The errors that the command line shows as one line instead of a traceback."""

from collections.abc import Iterable


class InputError(ValueError):
    """The user's input is wrong: the message says what, where, and what would be right.

    The command line prints the message as one line and exits with code 2.
    """


class UnavailableError(RuntimeError):
    """Something outside is missing (network, server, disk): nobody's input or code is wrong.

    The command line prints the message as one line and exits with code 1.
    """


def did_you_mean(name: str, known: Iterable[str], kind: str = "name") -> str:
    """Words the message for an unknown name, with the nearest known one.

    Args:
        name: What the user gave.
        known: The names that exist.
        kind: What is being named, e.g. `"data set"`.

    Returns:
        For example `unknown data set 'corra'; did you mean 'cora'? known: bat, cora, eat`. Long
        lists of names are left out when one of them is near.
    """
    import difflib

    names = sorted(known)
    folded = {item.casefold(): item for item in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    guess = f"did you mean {folded[near[0]]!r}? " if near else ""
    listed = "" if near and len(names) > 12 else f"known: {', '.join(names) or '(none)'}"
    return f"unknown {kind} {name!r}; {guess}{listed}".rstrip()
