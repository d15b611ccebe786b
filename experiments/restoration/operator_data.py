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

    def __call__(self, name, channels):
        """The array for an image, `(height, width, channels)` of a picture.

        Args:
            name: The image's name, below its folder.
            channels: 1 or 3, what a picture is brought to; None: as it is.

        Raises:
            Refused: There is none, it cannot be read, or nothing was given.
        """
        if self._path is None:
            raise Refused("The model needs the data of its operator for each image: use --data.")
        if not self._path.is_dir():
            if self._shared is None:
                self._shared = self._read(self._path)
            return _with_channels(self._shared, channels)
        for ending in inputs.ENDINGS:
            for written in (ending, ending.upper()):
                path = self._path / Path(name).with_suffix(written)
                if path.is_file():
                    return _with_channels(self._read(path), channels)
        raise Refused(f"No data for it: nothing named {Path(name).stem!r} in {str(self._path)!r}.")

    def _read(self, path):
        try:
            if path.suffix.lower() in inputs.ARRAYS:
                return arrays.read(path, self._max_pixels)["measurement"]
            return pictures.read(path, self._max_pixels).planes
        except (Refused, OSError) as error:
            raise Refused(f"Its data {str(path)!r}: {error}") from None


def _with_channels(array, channels):
    """A picture, or a mask without an axis for channels, with so many of them."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] == channels:
        return array
    if channels == 1 and array.shape[-1] == 3:
        return pictures.luminance(array)
    if channels == 3 and array.shape[-1] == 1:
        return np.repeat(array, 3, axis=-1)
    return array
