"""Numbered versions of an export in a folder, each there as a whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trainers.process.errors import StorageError
from trainers.process.files import make_writable


class Version:
    """A version that is being written.

    Attributes:
        partial: Where its files are put; no server looks at this folder.
        path: Where they are in the end; `None` before that.
    """

    def __init__(self, partial: Path):
        self.partial, self.path = partial, None


def numbers(folder: str | os.PathLike) -> list[int]:
    """The versions in a folder, in order.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("2", "10", "notes"):
    ...         Path(folder, name).mkdir()
    ...     numbers(folder)
    [2, 10]
    """
    folder = Path(folder)
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


@contextlib.contextmanager
def new_version(folder: str | os.PathLike) -> Iterator[Version]:
    """Writes the next version: what is put into `partial` appears at once, when all went well.

    A server that watches the folder, and another export into it, see no half of a version. A folder
    that was made for a version which came to nothing is removed.

    Args:
        folder: The folder of a model; made if it does not exist.

    Raises:
        StorageError: If it cannot be written.
    """
    is_new = not Path(folder).exists()
    make_writable(folder, "folder", "Name another one with --output.")
    version = Version(Path(tempfile.mkdtemp(prefix=".partial-", dir=folder)))
    try:
        yield version
        _make_readable(version.partial)
        version.path = _take_number(version.partial, Path(folder))
    finally:
        shutil.rmtree(version.partial, ignore_errors=True)
        if is_new and version.path is None:
            with contextlib.suppress(OSError):  # another export may have put something there
                Path(folder).rmdir()


def _take_number(partial, folder):
    number = max(numbers(folder), default=0) + 1
    for path in (folder / str(n) for n in range(number, number + 1000)):
        try:
            # A folder takes the place of an empty one only.
            os.rename(partial, path)
            return path
        except OSError as error:
            if not path.exists():
                raise StorageError(f"Cannot write {str(path)!r}: {error.strerror}.") from None
    raise StorageError(f"Found no free version in {str(folder)!r}.")


def _make_readable(folder):
    """The permissions of files that a program makes: a server runs as another user."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
