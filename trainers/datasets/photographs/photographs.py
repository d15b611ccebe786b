"""Photographs that lie in the scikit-image wheel: a data set that needs no download."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import pathlib
import tempfile
from typing import NamedTuple

import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

from trainers.datasets.images import (
    SPLITS,
    Picture,
    check_channels,
    check_max_side,
    to_array,
    to_picture,
)


class Photograph(NamedTuple):
    """One file of the wheel: the split it is in, and what its documentation says of its rights."""

    file: str
    split: str
    rights: str


_CC0 = "CC0"
_PUBLIC = "public domain"
_NONE_KNOWN = "no known copyright restrictions"
_MIDDLEBURY = "Middlebury stereo benchmark 2014 (Scharstein et al., GCPR 2014), no licence stated"

PHOTOGRAPHS = {
    "astronaut": Photograph("astronaut.png", "train", f"NASA, {_PUBLIC}"),
    "coffee": Photograph("coffee.png", "train", f"Rachel Michetti, {_CC0}"),
    "motorcycle_left": Photograph("motorcycle_left.png", "train", _MIDDLEBURY),
    "motorcycle_right": Photograph("motorcycle_right.png", "train", _MIDDLEBURY),
    "coins": Photograph("coins.png", "train", f"Brooklyn Museum, {_NONE_KNOWN}"),
    "moon": Photograph("moon.png", "train", "no licence stated"),
    "ihc": Photograph("ihc.png", "train", f"CMMI, {_NONE_KNOWN}"),
    "rocket": Photograph("rocket.jpg", "validation", f"SpaceX, {_PUBLIC}"),
    "hubble_deep_field": Photograph("hubble_deep_field.jpg", "validation", f"NASA, {_PUBLIC}"),
    "camera": Photograph("camera.png", "test", f"Lav Varshney, {_CC0}"),
    "chelsea": Photograph("chelsea.png", "test", f"Stefan van der Walt, {_CC0}"),
    "retina": Photograph("retina.jpg", "test", f"Mikael Häggström, {_CC0}"),
}

_DESCRIPTION = """\
Twelve photographs that are part of the scikit-image wheel, for reconstruction experiments that
need no download: people and animals, everyday scenes, and pictures made for science.
"""

_CITATION = """\
@article{van_der_walt_scikit-image_2014,
  title = {scikit-image: image processing in {Python}},
  author = {van der Walt, St{\\'e}fan and Sch{\\"o}nberger, Johannes L. and
            {Nunez-Iglesias}, Juan and Boulogne, Fran{\\c c}ois and Warner, Joshua D. and
            Yager, Neil and Gouillart, Emmanuelle and Yu, Tony and
            {the scikit-image contributors}},
  journal = {PeerJ},
  volume = {2},
  pages = {e453},
  year = {2014},
  doi = {10.7717/peerj.453},
}
"""


def wheel_folder() -> epath.Path:
    """The folder of the installed scikit-image that holds its pictures.

    The package is looked up, not imported: only its files are needed.

    Raises:
        ImportError: scikit-image is not installed.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ImportError(
            "The photographs come out of the scikit-image package, which is not installed: "
            "`pip install scikit-image`, or give a folder of pictures of your own as `data_dir`."
        )
    return epath.Path(spec.origin).parent / "data"


class Photographs(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of twelve photographs from the scikit-image wheel.

    Features: `image`, uint8 RGB `(height, width, 3)` of any size (grey photographs have three
    equal channels), and `name`. Grey conversion and patches belong to `trainers.datasets.pipeline`.

    The splits are by photograph, and no photograph, crop or second view of it is in two of them
    (both views of the motorcycle are in the training split). Each holds a scene or a living being
    and a picture made for science; validation is too small to be like the others in all respects.

    split      | photographs
    ---------- | -----------------------------------------------------------------------
    train      | astronaut, coffee, motorcycle_left, motorcycle_right, coins, moon, ihc
    validation | rocket, hubble_deep_field
    test       | camera, chelsea, retina

    Left out of what the wheel holds, because a photograph's statistics are wanted: documents and
    drawn pictures (page, text, chessboards, the horse's silhouette, phantom, logo, color); single
    textures, of which any two patches are alike (brick, grass, gravel); a photograph blurred
    already (clock_motion); a computed phase picture with banding (cell); and pictures smaller than
    a patch (microaneurysms, also another retina; lfw_subset).

    The rights to each are in `PHOTOGRAPHS`, as the documentation of `skimage.data` states them.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Twelve photographs, as scikit-image 0.26 ships them."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "name": tfds.features.Text(),
                }
            ),
            homepage="https://scikit-image.org/docs/stable/api/skimage.data.html",
            citation=_CITATION,
            license="; ".join(f"{name}: {photo.rights}" for name, photo in PHOTOGRAPHS.items()),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        del dl_manager  # there is nothing to download
        folder = wheel_folder()
        missing = [p.file for p in PHOTOGRAPHS.values() if not (folder / p.file).exists()]
        if missing:
            raise FileNotFoundError(
                f"The scikit-image installed here lacks {', '.join(missing)} in {folder}. Expected "
                "the files of the wheel on PyPI (some distributions take them out): reinstall it "
                "with `pip install --force-reinstall scikit-image`."
            )
        splits = sorted({photo.split for photo in PHOTOGRAPHS.values()})
        return {split: self._generate_examples(folder, split) for split in splits}

    def _generate_examples(self, folder: epath.Path, split: str):
        for name, photo in PHOTOGRAPHS.items():
            if photo.split == split:
                with Image.open(io.BytesIO((folder / photo.file).read_bytes())) as image:
                    yield name, {"image": to_array(image, channels=3), "name": name}


def default_folder() -> pathlib.Path:
    """Where prepared data sets are kept: `$DEQ_KERAS_DATA` or `~/.cache/deq_keras/datasets`."""
    chosen = os.environ.get("DEQ_KERAS_DATA")
    folder = pathlib.Path(chosen) if chosen else pathlib.Path("~/.cache/deq_keras/datasets")
    return folder.expanduser()


def prepare(folder: str | os.PathLike | None = None) -> Photographs:
    """Prepares the photographs once into a local folder, without a network and without a word.

    Any number of processes may do so at the same time. TFDS by itself is not safe there: it names
    its temporary folder with Python's `random`, so that workers with equal seeds share one, and
    the last to finish fails to rename it. Here each prepares in a folder of its own and the
    finished version is moved into place in one step; who comes second uses what is there.

    Args:
        folder: where to keep it, None for `default_folder()`.

    Returns:
        The builder, ready for `as_dataset`.

    Raises:
        ImportError: scikit-image is not installed.
        FileNotFoundError: the installed scikit-image lacks some of the photographs.

    Example:

    >>> builder = prepare()
    >>> [builder.info.splits[split].num_examples for split in ("train", "validation", "test")]
    [7, 2, 3]
    """
    folder = _cache(folder)
    final = _final(folder)
    if not final.exists():
        with tempfile.TemporaryDirectory(prefix="preparing_", dir=folder) as private:
            _put(_prepared_in(private), final)
    return Photographs(data_dir=folder)


def _prepare_again(folder) -> Photographs:
    """As `prepare`, in place of what is there."""
    folder = _cache(folder)
    final = _final(folder)
    with tempfile.TemporaryDirectory(prefix="preparing_", dir=folder) as private:
        made = _prepared_in(private)
        with contextlib.suppress(FileNotFoundError):  # another process does the same
            final.rename(pathlib.Path(private) / "damaged")
        _put(made, final)
    return Photographs(data_dir=folder)


def _cache(folder):
    folder = pathlib.Path(folder).expanduser() if folder is not None else default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _final(folder):
    """Where TFDS looks for the prepared version; a builder would read what is there."""
    return folder / "photographs" / str(Photographs.VERSION)


def _put(made, final):
    """Moves a prepared version into its place, in one step."""
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(final)
    except OSError:  # Another process was faster: a full folder is never replaced.
        if not final.exists():
            raise


def _prepared_in(private):
    _prepare_quietly(Photographs(data_dir=private))
    return _final(pathlib.Path(private))


def _prepare_quietly(builder: Photographs) -> None:
    """Prepares without TFDS's messages and progress bars: it takes half a second."""
    config = tfds.download.DownloadConfig(
        try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP
    )
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=config)


def read_splits(
    channels: int = 1,
    seed: int = 0,
    max_side: int | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> dict[str, list[Picture]]:
    """Reads the photographs as training, validation and test pictures.

    What was prepared and cannot be read any more, damaged on the disk or half deleted, is prepared
    anew.

    Args:
        channels: 1 for grey, 3 for RGB.
        seed: unused, for the splits are fixed.
        max_side: shrink larger pictures to this longer side, None to keep every size.
        cache_dir: where they are prepared, see `prepare`.

    Returns:
        A dict of "train", "validation" and "test" to lists of `Picture`, sorted by name.
    """
    check_channels(channels)
    check_max_side(max_side)
    try:
        return _read(prepare(cache_dir), channels, max_side)
    except Exception:  # TensorFlow, TFDS and the file system each have errors of their own
        return _read(_prepare_again(cache_dir), channels, max_side)


def _read(builder, channels, max_side):
    pictures = {split: tfds.as_numpy(builder.as_dataset(split=split)) for split in SPLITS}
    return {
        split: sorted(
            (
                to_picture(
                    example["name"].decode(), Image.fromarray(example["image"]), channels, max_side
                )
                for example in examples
            ),
            key=lambda picture: picture.name,
        )
        for split, examples in pictures.items()
    }
