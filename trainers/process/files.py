"""Files: found below a folder, written so that they are never half there."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.process.errors import StorageError

# Folders that a NAS, a desktop or an archive puts beside pictures, in lower case: thumbnails, and
# what was thrown away.
MACHINE_MADE = frozenset(
    ("@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "lost+found")
    + ("system volume information",)
)

if TYPE_CHECKING:  # a program that only talks to a server writes files without Keras
    import keras


def save_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Write a model's weights to `path` (`*.weights.h5`) so that the file is never half there."""
    path = Path(path)
    partial = path.with_name("partial-" + path.name)
    model.save_weights(partial)
    os.replace(partial, path)


def files_below(
    folder: str | os.PathLike, endings: Container[str], without: str | os.PathLike | None = None
) -> list[str]:
    """The files in a folder and below it: paths relative to it, sorted.

    Names that begin with a dot are passed over, and so are the folders that machines make
    (`MACHINE_MADE`): the thumbnails in them are no pictures of a person. Links to folders are
    followed, as data folders on clusters often are links; one that leads back up does not loop for
    ever.

    Args:
        folder: The folder.
        endings: Those that are wanted, in lower case with the dot; files have them in any case.
        without: A folder that is passed over.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.PNG", "a.png", ".c.png", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     files_below(folder, {".png"})
    ['a.png', 'b.PNG']
    """
    found, seen = [], set() if without is None else {os.path.realpath(without)}
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name.lower() not in MACHINE_MADE
        )
        for file in files:
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in endings:
                found.append(Path(here, file).relative_to(folder).as_posix())
    return sorted(found)


def printable(name: str) -> str:
    """The name of a file as text that can be printed and written: bytes that are not UTF-8 escaped.

    Example:

    >>> print(printable(os.fsdecode(b"caf\\xe9.png")))
    caf\\xe9.png
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def load_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Load weights that `save_weights` has written.

    Raises:
        StorageError: If they cannot be read.
    """
    path = Path(path)
    try:
        model.load_weights(path)
    except (OSError, KeyError, ValueError) as error:
        raise StorageError(
            f"{str(path)!r} cannot be read. Name another folder to train anew. ({error})"
        ) from None


@contextlib.contextmanager
def literal(folder: str | os.PathLike) -> Iterator[str]:
    """A name of a folder under which TensorFlow can read checkpoints and SavedModels.

    When it reads one it takes `*`, `?`, `[` and a backslash in the path for a pattern, which can
    not be quoted. A folder with such a name is given another one meanwhile, by a link.

    Args:
        folder: The folder.

    Example:

    >>> with literal("runs/plain") as name:
    ...     print(name)
    runs/plain
    """
    folder = os.fspath(folder)
    if not set("*?[\\") & set(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        link = os.path.join(place, "link")
        os.symlink(os.path.abspath(folder), link, target_is_directory=True)
        yield link


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write JSON so that the file is never half there; NaN and infinity become `null`."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(finite(content), indent=1, allow_nan=False) + "\n", "utf-8")
    os.replace(partial, path)


def finite(content: Any) -> Any:
    """A structure as JSON has it: plain numbers, `None` for NaN and infinity."""
    if isinstance(content, dict):
        return {str(key): finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    if hasattr(content, "item"):
        content = content.item()
    if isinstance(content, float) and not abs(content) < float("inf"):
        return None
    return content


def make_writable(
    folder: str | os.PathLike, what: str = "working directory", advice: str = "Name another one."
) -> None:
    """Make a folder, and see whether files can be written in it.

    Args:
        folder: The folder.
        what: What it is, for the message.
        advice: How to mend it, for the message.

    Raises:
        StorageError: If not.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise StorageError(
            f"Cannot write to the {what} {str(folder)!r}: {error.strerror}. {advice}"
        ) from None
