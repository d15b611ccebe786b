"""Named tensors from files: NumPy's, safetensors, and PyTorch's where that is installed."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trainers.process.errors import ConfigurationError

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
_INNER = ("state_dict", "model", "params")  # where checkpoints keep the tensors


def read(path) -> dict[str, np.ndarray]:
    """The tensors of a file by their names, as its ending says.

    | Ending | |
    |---|---|
    | `.npz` | of `numpy.savez` |
    | `.safetensors` | |
    | `.pt`, `.pth` | of `torch.save`, a state dictionary or a checkpoint with one; needs PyTorch |

    Nothing in a file is executed.

    Args:
        path: The file.

    Raises:
        ConfigurationError: If it is none of these, cannot be read, or PyTorch is missing.
    """
    path = Path(path)
    readers = {".npz": _npz, ".safetensors": _safetensors, ".pt": _torch, ".pth": _torch}
    reader = readers.get(path.suffix.lower())
    if reader is None or not path.is_file():
        found = "a file of another kind" if path.is_file() else "no file"
        raise ConfigurationError(
            f"Expected a file {', '.join(sorted(readers))}. Received {str(path)!r}, {found}."
        )
    return reader(path)


def _npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _safetensors(path):
    """The length of the header, the header as JSON, and the bytes of all tensors."""
    content = path.read_bytes()
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        return {name: _tensor(content[start:], **entry) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, error) from error


def _tensor(content, dtype, shape, data_offsets):
    first, last = data_offsets
    values = np.frombuffer(content[first:last], _DTYPES[dtype])
    if values.size != math.prod(shape):
        raise ValueError(f"{values.size} numbers for the shape {shape}")
    return values.reshape(shape)


def _torch(path):
    try:
        import torch
    except ImportError:
        raise ConfigurationError(
            f"{str(path)!r} is a file of PyTorch, which is not installed here. Install torch, or "
            "write the tensors where it is, by numpy.savez('weights.npz', **{name: tensor.numpy() "
            "for name, tensor in state_dict.items()})."
        ) from None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # it raises whatever its readers do
        raise _damaged(path, error) from error
    if isinstance(found, Mapping):
        found = next((found[n] for n in _INNER if isinstance(found.get(n), Mapping)), found)
    if not isinstance(found, Mapping):
        raise ConfigurationError(
            f"Expected a state dictionary in {str(path)!r}. Received {type(found).__name__}."
        )
    return {name: np.asarray(value) for name, value in found.items()}


def _damaged(path, error):
    return ConfigurationError(f"{str(path)!r} cannot be read: {error}")
