"""One file: read, restored, written."""

import os
from typing import NamedTuple

import numpy as np

from experiments.restoration import arrays, inputs, pictures
from experiments.restoration.errors import Refused
from experiments.restoration.restoring import Restored, restore


class Done(NamedTuple):
    """What became of a file.

    Attributes:
        name: Its name.
        how: For people: what was done with its channels.
        restored: The diagnosis, without the image; None if it failed.
        error: Why it failed, or None.
    """

    name: str
    how: str = ""
    restored: Restored | None = None
    error: Exception | None = None


class Restorer:
    """Restores files with one model.

    Args:
        model: A `Model`.
        settings: `Settings`.
        colour: What a grey model does with a colour picture: `luminance` restores Y' and keeps Cb
            and Cr, `channels` restores R, G and B each for itself.
        data: An `OperatorData`.
        max_pixels: The most pixels of a file.
        force: Whether results that exist are replaced.
    """

    def __init__(self, model, settings, colour, data, max_pixels, force=False):
        self._model, self._settings = model, settings
        self._colour, self._data = colour, data
        self._max_pixels, self._force = max_pixels, force

    def __call__(self, job, progress=lambda done, total: None):
        """Restores a file and writes the result; if that fails there is none.

        Args:
            job: A `Job`.
            progress: Called with the number of finished tiles and of all.

        Returns:
            `Done`.
        """
        try:
            ending = job.source.suffix.lower()
            if ending in inputs.ARRAYS:
                how, restored = self._array(job, progress)
            elif ending in inputs.PICTURES:
                how, restored = self._picture(job, progress)
            else:
                raise Refused(f"Expected one of the endings {', '.join(inputs.ENDINGS)}.")
        except Exception as error:  # of decoders, of the model: the other files go on
            return Done(job.name, error=error)
        return Done(job.name, how, restored._replace(reconstruction=None))

    def _array(self, job, progress):
        found = arrays.read(job.source, self._max_pixels)
        unknown = sorted(set(found) - {"measurement", *self._model.data})
        if unknown:
            raise Refused(
                f"The model takes {self._model.data} beside the measurement. Received: {unknown}."
            )
        batches = {name: self._batch(name, array) for name, array in found.items()}
        measurement = batches.pop("measurement")
        data = self._complete(job, batches, len(measurement))
        restored = restore(self._model, measurement, data, self._settings, progress)
        self._write(job.target, lambda path: arrays.write(path, restored.reconstruction[0]))
        return "array", restored

    def _batch(self, name, array):
        """An array of a file as the batch of one that the model takes."""
        spec = self._model.inputs[name]
        if array.ndim == len(spec.shape) - 2 and spec.shape[-1] == 1:
            array = array[..., None]
        shape = spec.shape[1:]
        fits = len(shape) == array.ndim and all(
            wanted in (None, given) for wanted, given in zip(shape, array.shape, strict=True)
        )
        if not fits:
            raise Refused(f"Expected {name} of shape {_written(shape)}. Received: {array.shape}.")
        if array.dtype.kind not in "fc" and name == "measurement":
            raise Refused(f"Expected floating point, an image on [0, 1]. Received: {array.dtype}.")
        if array.dtype.kind == "c" and np.dtype(spec.dtype).kind != "c":
            raise Refused(f"Expected {name} of type {spec.dtype}. Received: {array.dtype}.")
        return array[None]

    def _complete(self, job, given, batch):
        """What the operator needs: of the file itself, else of --data."""
        data = dict(given)
        for name in self._model.data:
            if name in data:
                continue
            if name != "data":
                raise Refused(f"The model needs {name!r} too: give an .npz file with all arrays.")
            array = self._data(job.name, self._model.inputs[name])
            data[name] = self._batch(name, array)
        return {name: np.repeat(array, batch, axis=0) for name, array in data.items()}

    def _picture(self, job, progress):
        channels = self._model.channels
        if channels is None:
            spec = self._model.inputs["measurement"]
            raise Refused(
                "The model takes no pictures but .npy files of measurements: "
                f"{spec.dtype}, {_written(spec.shape[1:])}."
            )
        picture = pictures.read(job.source, self._max_pixels)
        how, measurement = _to_model(picture.planes, channels, self._colour)
        data = self._complete(job, {}, len(measurement))
        restored = restore(self._model, measurement, data, self._settings, progress)
        planes = _from_model(how, restored.reconstruction, picture.planes)
        self._write(job.target, lambda path: pictures.write(path, planes, picture))
        return how, restored

    def _write(self, target, write):
        """Writes a file that is never half there."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".partial-{os.getpid()}-{target.name}")
        try:
            write(partial)
            if target.exists() and not self._force:
                raise FileExistsError(f"{str(target)!r} has appeared in the meantime.")
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)


def _to_model(planes, channels, colour):
    """What is done with the channels of a picture, and the batch for a model of 1 or 3."""
    if planes.shape[-1] == channels:
        return ("grey" if channels == 1 else "colour"), planes[None]
    if channels == 3:
        return "grey as colour", np.repeat(planes, 3, axis=-1)[None]
    if colour == "luminance":
        return "luminance", pictures.luminance(planes)[None]
    return "channels", np.moveaxis(planes, -1, 0)[..., None]


def _from_model(how, batch, planes):
    """The reconstruction of a picture from what the model made of the batch."""
    if how == "grey as colour":
        return batch[0].mean(axis=-1, keepdims=True)
    if how == "luminance":
        return pictures.with_luminance(planes, batch[0])
    if how == "channels":
        return np.moveaxis(batch[..., 0], 0, -1)
    return batch[0]


def _written(shape):
    """A shape for people: `(height, width, 1)`."""
    names = ("height", "width")
    sizes = [
        str(size) if size is not None else names[i] if i < 2 else "any"
        for i, size in enumerate(shape)
    ]
    return f"({', '.join(sizes)})"
