"""Versions of what is installed, for records of results."""

import importlib.metadata


def installed(*names: str) -> dict[str, str]:
    """The versions of those of some distributions that are installed.

    Example:

    >>> list(installed("numpy", "a-distribution-that-nobody-has"))
    ['numpy']
    """
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
