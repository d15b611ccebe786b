"""A conversion in a process of its own: converters may crash, or report a failure as success.

    python -m trainers.export.formats.worker FORMAT FOLDER FILE

The folder holds the SavedModel `source/` and the batches `inputs.npz`. Writes the file, runs it,
and last writes what came out of it, `outputs.npz`. A conversion without that has failed, whatever
the exit code.
"""

import importlib
import sys
from pathlib import Path

import numpy as np


def read_batches(path):
    """The batches of a file, dictionaries of arrays."""
    batches = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            number, name = key.split("/")
            batches.setdefault(int(number), {})[name] = arrays[key]
    return [batches[number] for number in sorted(batches)]


def write_batches(path, batches):
    """Writes what `read_batches` reads."""
    np.savez(
        path, **{f"{n}/{name}": x for n, batch in enumerate(batches) for name, x in batch.items()}
    )


def main(name, folder, file):
    """Converts, runs, and writes what came out."""
    chosen = importlib.import_module(f"trainers.export.formats.{name}")
    folder, file = Path(folder), Path(file)
    chosen.write(folder / "source", file)
    write_batches(folder / "outputs.npz", chosen.run(file, read_batches(folder / "inputs.npz")))


if __name__ == "__main__":
    main(*sys.argv[1:])
