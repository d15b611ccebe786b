"""Picture files, written and read by other libraries: values, depth, colours, camera."""

import functools
import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image, ImageCms, ImageOps

from experiments.restoration import pictures
from experiments.restoration.errors import Refused

LIMIT = 10**6
MAKE, ORIENTATION = 0x010F, 0x0112


def _values(rng, depth, *shape):
    return rng.integers(0, 2**depth, shape, np.uint8 if depth == 8 else np.uint16)


def _write(path, array):
    """By TensorFlow or tifffile, which know 16-bit colour."""
    if path.suffix == ".png":
        pixels = array if array.ndim == 3 else array[..., None]
        tf.io.write_file(str(path), tf.io.encode_png(pixels))
    else:
        space = "rgb" if array.ndim == 3 else "minisblack"
        extra = ["unassalpha"] if array.shape[-1] == 4 and array.ndim == 3 else None
        tifffile.imwrite(path, array, photometric=space, extrasamples=extra)


def _read(path, depth):
    if path.suffix == ".png":
        kind = tf.uint8 if depth == 8 else tf.uint16
        array = tf.io.decode_png(tf.io.read_file(str(path)), dtype=kind).numpy()
        return array[..., 0] if array.shape[-1] == 1 else array
    array = tifffile.imread(path)
    assert array.dtype == (np.uint8 if depth == 8 else np.uint16)
    return array


@pytest.mark.parametrize("shape", [(9, 14), (9, 14, 3), (9, 14, 4)], ids=["grey", "rgb", "rgba"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_round_trip_is_exact(tmp_path, rng, ending, depth, shape):
    array = _values(rng, depth, *shape)
    source, target = tmp_path / f"in{ending}", tmp_path / f"out{ending}"
    _write(source, array)
    picture = pictures.read(source, LIMIT)
    assert picture.depth == depth
    assert picture.planes.dtype == np.float32
    colours = array.reshape(9, 14, -1)[..., :3]
    np.testing.assert_allclose(picture.planes, colours / (2.0**depth - 1), atol=1e-7)
    assert (picture.alpha is not None) == (shape[-1] == 4)
    pictures.write(target, picture.planes, picture)
    np.testing.assert_array_equal(_read(target, depth), array)


def test_values_are_clipped_and_rounded(tmp_path):
    _write(tmp_path / "in.png", np.zeros((1, 4), np.uint8))
    picture = pictures.read(tmp_path / "in.png", LIMIT)
    planes = np.array([-1, 0.4 / 255, 0.6 / 255, 2], np.float32).reshape(1, 4, 1)
    pictures.write(tmp_path / "out.png", planes, picture)
    assert _read(tmp_path / "out.png", 8).tolist() == [[0, 0, 1, 255]]


@functools.cache  # it has the time of day in it
def _profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_camera_and_profile_are_kept_and_the_orientation_applied(tmp_path, rng, orientation):
    exif = Image.Exif()
    exif[MAKE], exif[ORIENTATION] = "ACME", orientation
    stored = Image.fromarray(_values(rng, 8, 10, 16, 3))
    stored.save(tmp_path / "in.png", exif=exif, icc_profile=_profile())
    picture = pictures.read(tmp_path / "in.png", LIMIT)
    pictures.write(tmp_path / "out.png", picture.planes, picture)
    with Image.open(tmp_path / "in.png") as before, Image.open(tmp_path / "out.png") as after:
        expected = np.asarray(ImageOps.exif_transpose(before))
        np.testing.assert_array_equal(np.asarray(after), expected)
        assert after.info["icc_profile"] == _profile()
        assert after.getexif()[MAKE] == "ACME"
        assert after.getexif().get(ORIENTATION, 1) == 1


def test_profile_of_a_tiff_is_kept(tmp_path, rng):
    array = _values(rng, 16, 6, 5, 3)
    tifffile.imwrite(
        tmp_path / "in.tif", array, photometric="rgb", iccprofile=_profile(), resolution=(300, 300),
        resolutionunit="INCH",
    )  # fmt: skip
    picture = pictures.read(tmp_path / "in.tif", LIMIT)
    pictures.write(tmp_path / "out.tif", picture.planes, picture)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        tags = file.pages[0].tags
        assert tags["InterColorProfile"].value == _profile()
        above, below = tags["XResolution"].value
        per_inch = 1 if tags["ResolutionUnit"].value == 2 else 2.54
        assert above / below * per_inch == pytest.approx(300, rel=1e-3)
        np.testing.assert_array_equal(file.asarray(), array)


def test_no_exif_is_made_up(tmp_path, rng):
    Image.fromarray(_values(rng, 8, 5, 6)).save(tmp_path / "in.png")
    picture = pictures.read(tmp_path / "in.png", LIMIT)
    pictures.write(tmp_path / "out.png", picture.planes, picture)
    with Image.open(tmp_path / "out.png") as after:
        assert not dict(after.getexif())


@pytest.mark.parametrize("mode", ["P", "1", "LA"])
def test_other_modes(tmp_path, rng, mode):
    stored = Image.fromarray(_values(rng, 8, 10, 16, 3))
    stored = stored.quantize(7) if mode == "P" else stored.convert(mode)
    stored.save(tmp_path / "in.png")
    picture = pictures.read(tmp_path / "in.png", LIMIT)
    expected = {"P": "RGB", "1": "L", "LA": "L"}[mode]
    found = np.rint(picture.planes * 255).astype(np.uint8).squeeze()
    np.testing.assert_array_equal(found, np.asarray(stored.convert(expected)))


def test_jpeg(tmp_path, rng):
    y, x = np.mgrid[:32, :32]
    smooth = np.stack([8 * x, 8 * y, 4 * (x + y)], -1).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "in.jpg", quality=95)
    picture = pictures.read(tmp_path / "in.jpg", LIMIT)
    assert picture.planes.shape == (32, 32, 3)
    assert np.abs(picture.planes * 255 - smooth).mean() < 2


def test_larger_picture_has_a_larger_transparency(tmp_path):
    array = np.zeros((4, 6, 4), np.uint8)
    array[:, 3:, 3] = 255
    _write(tmp_path / "in.png", array)
    picture = pictures.read(tmp_path / "in.png", LIMIT)
    pictures.write(tmp_path / "out.png", np.ones((8, 12, 3), np.float32), picture)
    alpha = _read(tmp_path / "out.png", 8)[..., 3]
    assert alpha.shape == (8, 12)
    assert (alpha[:, :4] == 0).all()
    assert (alpha[:, -4:] == 255).all()


def test_luminance_is_that_of_ycbcr_and_colours_are_kept(rng):
    colour = _values(rng, 8, 12, 9, 3)
    planes = colour.astype(np.float32) / 255
    luma = pictures.luminance(planes)
    reference = np.asarray(Image.fromarray(colour).convert("YCbCr"), np.float32)
    assert np.abs(luma[..., 0] * 255 - reference[..., 0]).max() <= 1
    changed = pictures.with_luminance(planes, 0.5 + 0.1 * luma)
    weights = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(changed @ weights, 0.5 + 0.1 * luma[..., 0], atol=1e-6)
    for one, two in ((2, 0.564), (0, 0.713)):  # Cb and Cr
        before = two * (planes[..., one] - planes @ weights)
        after = two * (changed[..., one] - changed @ weights)
        np.testing.assert_allclose(after, before, atol=1e-6)


def test_larger_luminance_takes_its_colours_along():
    planes = np.zeros((4, 6, 3), np.float32)
    planes[..., 0] = 1
    found = pictures.with_luminance(planes, np.full((8, 12, 1), 0.299, np.float32))
    np.testing.assert_allclose(found, np.broadcast_to([1, 0, 0], (8, 12, 3)), atol=1e-5)


def _bomb(width, height):
    """A PNG file that says how large it is, and has nothing of it."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_size_is_checked_before_decoding(tmp_path):
    (tmp_path / "bomb.png").write_bytes(_bomb(50_000, 60_000))
    with pytest.raises(Refused, match="at most 1000000 pixels.*60000 x 50000"):
        pictures.read(tmp_path / "bomb.png", LIMIT)


def _png(rng):
    buffer = io.BytesIO()
    Image.fromarray(_values(rng, 8, 40, 40, 3)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "svg"])
def test_what_is_no_image(tmp_path, rng, kind):
    content = {
        "empty": b"",
        "text": b"hello",
        "cut": _png(rng)[:2000],
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
    }[kind]
    (tmp_path / "in.png").write_bytes(content)
    with pytest.raises(Refused, match="No image, or damaged"):
        pictures.read(tmp_path / "in.png", LIMIT)


def test_several_pages_are_refused(tmp_path, rng):
    tifffile.imwrite(tmp_path / "in.tif", _values(rng, 8, 3, 5, 6), photometric="minisblack")
    with pytest.raises(Refused, match="one image in a file. Received: 3 pages"):
        pictures.read(tmp_path / "in.tif", LIMIT)


def test_other_kinds_of_images_are_refused(tmp_path, rng):
    Image.fromarray(_values(rng, 8, 5, 6, 4), "CMYK").save(tmp_path / "cmyk.jpg")
    tifffile.imwrite(tmp_path / "float.tif", rng.random((5, 6), np.float32))
    for name, word in (("cmyk.jpg", "cmyk"), ("float.tif", "float")):
        with pytest.raises(Refused, match=f"grey or RGB image of 8 or 16 bits.*{word}"):
            pictures.read(tmp_path / name, LIMIT)
