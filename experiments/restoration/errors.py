"""What can go wrong with one image, or with the server."""

from trainers.process import exits


class Refused(ValueError):
    """This image cannot be restored: it is not an image, or the model refuses it."""


class TooLarge(Refused):
    """A request is larger than the server takes, or than its memory holds: smaller tiles help."""


class Unavailable(RuntimeError):
    """The server does not answer, or not yet."""

    exit_code = exits.UNAVAILABLE
