"""Which files are restored, and where each goes: settled, and checked, before any work."""

import os
from pathlib import Path
from typing import NamedTuple

from trainers.process.errors import ConfigurationError
from trainers.process.files import files_below

# From the ending of a file to that of its reconstruction.
PICTURES = {".png": ".png", ".tif": ".tif", ".tiff": ".tiff", ".jpg": ".png", ".jpeg": ".png"}
ARRAYS = {".npy": ".npy", ".npz": ".npy"}
ENDINGS = {**PICTURES, **ARRAYS}
_SHOWN = 5  # files that an error names


class Job(NamedTuple):
    """One file to restore."""

    name: str
    source: Path
    target: Path


def find(inputs, output, force=False):
    """The files to restore, in the order of the inputs, a folder's by name.

    Args:
        inputs: Files, or folders that are searched to the bottom for files whose ending says that
            they are images or arrays; names that begin with a dot are passed over. A file that is
            named itself is taken whatever its ending.
        output: The folder of the results. A file of a folder keeps its place below that folder, and
            any file its name, but that a JPEG becomes a PNG and an `.npz` an `.npy`.
        force: Whether results that exist are replaced.

    Returns:
        A list of `Job`.

    Raises:
        ConfigurationError: An input is missing, there is nothing to restore, two files would have
            one result, or a result exists. A result never takes the place of an input.
    """
    output = Path(output)
    jobs = []
    for text in inputs:
        path = Path(text).expanduser()
        if not path.exists():
            raise ConfigurationError(f"Expected a file or a folder. {text!r} does not exist.")
        # The results of an earlier run are no inputs.
        names = files_below(path, ENDINGS, output) if path.is_dir() else [path.name]
        folder = path if path.is_dir() else path.parent
        for name in names:
            ending = Path(name).suffix
            target = Path(name).with_suffix(ENDINGS.get(ending.lower(), ending))
            jobs.append(Job(name, folder / name, output / target))
    if not jobs:
        raise ConfigurationError(
            f"Nothing to restore in {', '.join(map(repr, inputs))}. Expected files ending in "
            f"{', '.join(ENDINGS)}."
        )
    _check(jobs, force)
    return jobs


def _check(jobs, force):
    by_target, sources = {}, {os.path.realpath(job.source) for job in jobs}
    for job in jobs:
        by_target.setdefault(os.path.normcase(os.path.abspath(job.target)), []).append(job)
    for same in by_target.values():
        if len(same) > 1:
            files = " and ".join(repr(str(job.source)) for job in same[:_SHOWN])
            raise ConfigurationError(
                f"{files} would both be written to {str(same[0].target)!r}. Restore them into two "
                "folders."
            )
    for job in jobs:
        if os.path.realpath(job.target) in sources:
            raise ConfigurationError(
                f"The result {str(job.target)!r} would replace an input. Name another --output."
            )
    there = [str(job.target) for job in jobs if job.target.exists()]
    if there and not force:
        more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
        raise ConfigurationError(
            f"Already there: {', '.join(there[:_SHOWN])}{more}. Name another --output, or replace "
            "them with --force."
        )
