"""What can go wrong with one image, or with the server."""

import re

from trainers.process import exits


class Refused(ValueError):
    """This image cannot be restored: it is not an image, or the model refuses it."""


class TooLarge(Refused):
    """A request is larger than the server takes, or than its memory holds: smaller tiles help."""


class Unavailable(RuntimeError):
    """The server does not answer, or not yet."""

    exit_code = exits.UNAVAILABLE


_TRACE = re.compile(r"Graph execution error|Detected at node|<stack traces|^\s*(File|\[\[)")


def plain(text, most=500):
    """What a person needs of an error of TensorFlow: not the nodes that it passed through.

    Args:
        text: The error.
        most: Characters that are kept.

    Example:

    >>> from experiments.restoration.errors import plain
    >>> plain("Graph execution error:\\n\\nassertion failed: [empty]\\n\\t [[{{node Assert}}]]")
    'assertion failed: [empty]'
    """
    lines = [line for line in str(text).splitlines() if not _TRACE.search(line)]
    return " ".join(" ".join(lines).split())[:most]
