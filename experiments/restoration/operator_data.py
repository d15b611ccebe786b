"""What an operator needs for each image, such as a mask: `--data`."""

from pathlib import Path

import numpy as np

from experiments.restoration import arrays, inputs, pictures
from experiments.restoration.errors import Refused
from trainers.process.errors import ConfigurationError


class OperatorData:
    """The input `data` of a model, from a file for all images or a folder with one for each.

    A picture is scaled to [0, 1], as images are: of a mask, white was measured. It is not
    thresholded. An `.npy` file is taken as it is.

    Args:
        path: A file, or a folder in which the file for an image has the name of that image (and
            the same place, if the image was found in a folder) and any of the endings. None: none.
        max_pixels: The most pixels of a file.

    Raises:
        ConfigurationError: There is no such file or folder.
    """

    def __init__(self, path, max_pixels):
        self._path = None if path is None else Path(path).expanduser()
        self._max_pixels = max_pixels
        self._shared = None
        if self._path is not None and not self._path.exists():
            raise ConfigurationError(
                f"Expected --data to be a file or a folder. {path!r} does not exist."
            )

    def check(self, model):
        """Raises a `ConfigurationError` if the model has no use for what was given."""
        if self._path is not None and "data" not in model.data:
            raise ConfigurationError(f"--data is given, and the model {model.where} takes none.")

    def __call__(self, name, spec):
        """The array for an image, without a batch axis.

        Args:
            name: The image's name, below its folder.
            spec: The `Spec` of the model's input, which says how many channels it has, or none.

        Raises:
            Refused: There is none, it cannot be read, or nothing was given.
        """
        if self._path is None:
            raise Refused("The model needs the data of its operator for each image: use --data.")
        if not self._path.is_dir():
            if self._shared is None:
                self._shared = self._read(self._path)
            return _fitting(self._shared, spec)
        for ending in inputs.ENDINGS:
            for written in (ending, ending.upper()):
                path = self._path / Path(name).with_suffix(written)
                if path.is_file():
                    return _fitting(self._read(path), spec)
        raise Refused(f"No data for it: nothing named {Path(name).stem!r} in {str(self._path)!r}.")

    def _read(self, path):
        try:
            if path.suffix.lower() in inputs.ARRAYS:
                return arrays.read(path, self._max_pixels)["measurement"]
            return pictures.read(path, self._max_pixels).planes
        except (Refused, OSError) as error:
            raise Refused(f"Its data {str(path)!r}: {error}") from None


def _fitting(array, spec):
    """A picture, or an array without an axis for channels, with the channels of the input."""
    if len(spec.shape) == 3:
        return array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if len(spec.shape) != 4 or array.ndim not in (2, 3):
        return array
    array = array if array.ndim == 3 else array[..., None]
    if (array.shape[-1], spec.shape[-1]) == (3, 1):
        return pictures.luminance(array)
    if (array.shape[-1], spec.shape[-1]) == (1, 3):
        return np.repeat(array, 3, axis=-1)
    return array
