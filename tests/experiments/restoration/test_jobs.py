"""One file through a real SavedModel: what is done with channels and data, and what is written."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from experiments.restoration.inputs import Job
from experiments.restoration.jobs import Restorer
from experiments.restoration.local import LocalModel
from experiments.restoration.operator_data import OperatorData
from experiments.restoration.restoring import Settings
from trainers.process.errors import ConfigurationError

LIMIT = 10**6


@pytest.fixture
def restore(saved, tmp_path):
    """Restores the file `in/NAME` to `out/TARGET` with a model."""

    def run(model, name, target=None, data=None, colour="luminance", force=False, **settings):
        model = LocalModel(saved(model))
        found = OperatorData(data, LIMIT)
        restorer = Restorer(model, Settings(**settings), colour, found, LIMIT, force)
        return restorer(Job(name, tmp_path / "in" / name, tmp_path / "out" / (target or name)))

    (tmp_path / "in").mkdir()
    return run


def _picture(path, rng, *shape):
    array = rng.integers(1, 256, shape, np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path)
    return array / 255


def _read(path):
    with Image.open(path) as image:
        return np.asarray(image) / 255


def test_grey(restore, tmp_path, rng):
    before = _picture(tmp_path / "in/a.png", rng, 8, 9)
    done = restore("grey", "a.png")
    assert (done.error, done.how, done.restored.steps) == (None, "grey", 5)
    assert done.restored.converged
    np.testing.assert_allclose(_read(tmp_path / "out/a.png"), 0.5 + 0.5 * before, atol=0.6 / 255)


def test_grey_model_on_colour(restore, tmp_path, rng):
    before = 0.25 + 0.5 * rng.random((8, 9, 3))
    Image.fromarray(np.rint(255 * before).astype(np.uint8)).save(tmp_path / "in/a.png")
    done = restore("grey", "a.png", "luminance.png")
    assert (done.error, done.how) == (None, "luminance")
    after = _read(tmp_path / "out/luminance.png")
    luma = before @ [0.299, 0.587, 0.114]
    expected = before + (0.5 - 0.5 * luma)[..., None]
    np.testing.assert_allclose(after, np.clip(expected, 0, 1), atol=1.5 / 255)
    done = restore("grey", "a.png", "channels.png", colour="channels")
    assert (done.error, done.how) == (None, "channels")
    after = _read(tmp_path / "out/channels.png")
    np.testing.assert_allclose(after, 0.5 + 0.5 * before, atol=1.2 / 255)


def test_colour_model(restore, tmp_path, rng):
    colour = _picture(tmp_path / "in/colour.png", rng, 8, 9, 3)
    grey = _picture(tmp_path / "in/grey.png", rng, 8, 9)
    assert restore("colour", "colour.png").how == "colour"
    assert restore("colour", "grey.png").how == "grey as colour"
    for name, before in (("colour.png", colour), ("grey.png", grey)):
        after = _read(tmp_path / "out" / name)
        np.testing.assert_allclose(after, 0.5 + 0.5 * before, atol=0.6 / 255)


def test_transparency_and_depth_are_kept(restore, tmp_path, rng):
    array = rng.integers(1, 65536, (8, 9, 4), np.uint16)
    tifffile.imwrite(tmp_path / "in/a.tif", array, photometric="rgb", extrasamples=["unassalpha"])
    assert restore("colour", "a.tif").error is None
    after = tifffile.imread(tmp_path / "out/a.tif")
    assert after.dtype == np.uint16
    np.testing.assert_array_equal(after[..., 3], array[..., 3])
    np.testing.assert_allclose(after[..., :3], 32767.5 + array[..., :3] / 2, atol=1)


@pytest.mark.parametrize("colour", ["luminance", "channels"])
def test_larger_results(restore, tmp_path, rng, colour):
    before = 0.25 + 0.5 * rng.random((8, 9, 3))
    Image.fromarray(np.rint(255 * before).astype(np.uint8)).save(tmp_path / "in/a.png")
    assert restore("doubled", "a.png", colour=colour).error is None
    after = _read(tmp_path / "out/a.png")
    assert after.shape == (16, 18, 3)
    luma = before @ [0.299, 0.587, 0.114]
    expected = luma.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(after @ [0.299, 0.587, 0.114], expected, atol=0.03)


def test_fourier_coefficients(restore, tmp_path, rng):
    image = rng.random((8, 9))
    measurement = np.fft.fft2(image)
    np.save(tmp_path / "in/a.npy", measurement)  # without an axis for channels
    np.savez(tmp_path / "in/b.npz", measurement=measurement[..., None])
    for name in ("a.npy", "b.npz"):
        assert restore("fourier", name, "out.npy", force=True).error is None
        after = np.load(tmp_path / "out/out.npy")
        assert (after.dtype, after.shape) == (np.float32, (8, 9, 1))
        np.testing.assert_allclose(after[..., 0], image, atol=1e-5)


def test_a_mask_for_all_images(restore, tmp_path, rng):
    before = _picture(tmp_path / "in/a.png", rng, 8, 9, 3)
    mask = np.zeros((8, 9), np.uint8)
    mask[2:, :5], mask[:2] = 255, 51
    Image.fromarray(mask).save(tmp_path / "mask.png")
    done = restore("masked", "a.png", data=str(tmp_path / "mask.png"), colour="channels")
    assert done.error is None
    after = _read(tmp_path / "out/a.png")
    # A mask is scaled and not thresholded: 51 is a fifth.
    np.testing.assert_allclose(after, before * mask[..., None] / 255, atol=0.6 / 255)


def test_a_mask_for_each_image(restore, tmp_path, rng):
    masks = {}
    for name in ("a", "b"):
        _picture(tmp_path / f"in/{name}.png", rng, 8, 9)
        masks[name] = rng.integers(0, 2, (8, 9)).astype(bool)
    (tmp_path / "masks").mkdir()
    Image.fromarray(masks["a"]).save(tmp_path / "masks/a.png")
    np.save(tmp_path / "masks/b.npy", masks["b"])
    for name, mask in masks.items():
        assert restore("masked", f"{name}.png", data=str(tmp_path / "masks")).error is None
        assert ((_read(tmp_path / f"out/{name}.png") > 0) == mask).all()
    (tmp_path / "masks/b.npy").unlink()
    error = restore("masked", "b.png", data=str(tmp_path / "masks"), force=True).error
    assert "nothing named 'b'" in str(error)


def test_a_kernel_is_not_cut(restore, tmp_path, rng):
    before = _picture(tmp_path / "in/a.png", rng, 30, 40)
    np.save(tmp_path / "kernel.npy", np.full((2, 2), 0.125))
    done = restore("scaled", "a.png", data=str(tmp_path / "kernel.npy"), tile=20, overlap=4)
    assert (done.error, done.restored.tiles) == (None, 6)
    np.testing.assert_allclose(_read(tmp_path / "out/a.png"), before / 2, atol=0.6 / 255)


def test_names_with_brackets(restore, tmp_path, rng):
    _picture(tmp_path / "in/a [1].png", rng, 5, 6)
    assert restore("grey", "a [1].png").error is None
    assert _read(tmp_path / "out/a [1].png").shape == (5, 6)


def test_data_in_the_file_of_the_measurement(restore, tmp_path, rng):
    image, mask = rng.random((2, 8, 9)).astype(np.float32)
    np.savez(tmp_path / "in/a.npz", measurement=image, data=mask)
    assert restore("masked", "a.npz", "a.npy").error is None
    np.testing.assert_allclose(np.load(tmp_path / "out/a.npy")[..., 0], image * mask, atol=1e-6)


def test_data_that_are_missing_or_too_many(restore, saved, tmp_path, rng):
    _picture(tmp_path / "in/a.png", rng, 8, 9)
    assert "use --data" in str(restore("masked", "a.png").error)
    with pytest.raises(ConfigurationError, match="takes none"):
        OperatorData(str(tmp_path / "in"), LIMIT).check(LocalModel(saved("grey")))
    with pytest.raises(ConfigurationError, match="does not exist"):
        OperatorData(str(tmp_path / "missing"), LIMIT)
    np.savez(tmp_path / "in/b.npz", measurement=np.ones((8, 9)), data=np.ones((8, 9)))
    assert "Received: ['data']" in str(restore("grey", "b.npz", "b.npy").error)


@pytest.mark.parametrize(
    ("model", "array", "words"),
    [
        ("grey", np.ones((8, 9, 3)), "Expected measurement of shape (height, width, 1)"),
        ("grey", np.ones(8), "Received: (8,)"),
        ("grey", np.ones((8, 9), np.uint8), "floating point, an image on [0, 1]. Received: uint8"),
        ("grey", np.ones((8, 9), complex), "type float32. Received: complex128"),
        ("grey", np.full((8, 9), np.nan), "The model refuses it: assertion failed"),
    ],
)
def test_measurements_that_do_not_fit(restore, tmp_path, model, array, words):
    np.save(tmp_path / "in/a.npy", array)
    done = restore(model, "a.npy")
    assert words in str(done.error)
    assert not (tmp_path / "out/a.npy").exists()


def test_pictures_are_no_fourier_coefficients(restore, tmp_path, rng):
    _picture(tmp_path / "in/a.png", rng, 8, 9)
    assert "no pictures but .npy files" in str(restore("fourier", "a.png").error)


def test_what_fails_leaves_nothing(restore, tmp_path, rng):
    (tmp_path / "in/a.png").write_text("no image")
    (tmp_path / "in/a.txt").write_text("no image")
    assert "No image" in str(restore("grey", "a.png").error)
    assert "Expected one of the endings" in str(restore("grey", "a.txt").error)
    _picture(tmp_path / "in/b.png", rng, 8, 9)
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out/b.png").write_text("mine")
    assert isinstance(restore("grey", "b.png").error, FileExistsError)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]
    assert (tmp_path / "out/b.png").read_text() == "mine"
    assert restore("grey", "b.png", force=True).error is None
    assert _read(tmp_path / "out/b.png").shape == (8, 9)
