"""Measurements as NumPy files: the way for what is no picture, such as Fourier coefficients."""

import os
import zipfile

import numpy as np

from experiments.restoration.errors import Refused


def read(path, max_pixels):
    """Reads the arrays of an `.npy` or `.npz` file; pickles are refused.

    Args:
        path: The file. An `.npy` file is the measurement; an `.npz` file holds it as `measurement`,
            and what the operator needs for it as `data`, `data_1`...
        max_pixels: Shapes are read first, and nothing else if an array has more pixels than this.

    Returns:
        A dict from these names to arrays, without a batch axis.

    Raises:
        Refused: It is no such file, is damaged, has too many pixels, or has no `measurement`.
    """
    try:
        if os.path.splitext(path)[1].lower() == ".npy":
            with open(path, "rb") as file:
                _check_shape(file, max_pixels)
                file.seek(0)
                found = {"measurement": np.lib.format.read_array(file, allow_pickle=False)}
        else:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    with archive.open(name) as file:
                        _check_shape(file, max_pixels)
            with np.load(path, allow_pickle=False) as archive:
                found = dict(archive)
    except Refused:
        raise
    except Exception as error:  # damaged archives raise nearly every kind of exception
        raise Refused(f"Cannot be read as NumPy arrays: {error}") from None
    if "measurement" not in found:
        raise Refused(f"Expected an array named 'measurement'. Received: {sorted(found)}.")
    return found


def _check_shape(file, max_pixels):
    version = np.lib.format.read_magic(file)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in header:
        raise Refused(f"Expected version 1 or 2 of NumPy's format. Received: {version}.")
    shape, _, dtype = header[version](file)
    if dtype.kind not in "biufcO":  # what reads it says of objects that they are pickles
        raise Refused(f"Expected numbers. Received: {dtype}.")
    channels = shape[-1] if len(shape) > 2 and shape[-1] in (1, 2, 3, 4) else 1
    if np.prod(shape, dtype=float) > max_pixels * channels:
        raise Refused(f"Expected at most {max_pixels} pixels (--max_pixels). Received: {shape}.")


def write(path, values):
    """Writes `values` as a float32 `.npy` file, unclipped.

    Args:
        path: A new file.
        values: The reconstruction `(height, width, channels)`.
    """
    with open(path, "wb") as file:
        np.lib.format.write_array(file, np.asarray(values, np.float32), allow_pickle=False)
