"""Measurements as NumPy files: what is read, and what is refused before it is."""

import io
import zipfile

import numpy as np
import pytest

from experiments.restoration import arrays
from experiments.restoration.errors import Refused


def test_npy_and_npz(tmp_path, rng):
    measurement = rng.random((4, 5, 1)) + 1j * rng.random((4, 5, 1))
    np.save(tmp_path / "a.npy", measurement)
    np.savez_compressed(tmp_path / "a.npz", measurement=measurement, data=np.ones((4, 5)))
    np.testing.assert_array_equal(arrays.read(tmp_path / "a.npy", 20)["measurement"], measurement)
    found = arrays.read(tmp_path / "a.npz", 20)
    assert set(found) == {"measurement", "data"}
    np.testing.assert_array_equal(found["measurement"], measurement)


def test_result(tmp_path, rng):
    values = 3 * rng.standard_normal((4, 5, 1))
    arrays.write(tmp_path / "out.npy", values)
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values, rtol=1e-6)


def _header(shape):
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(10**6, 10**6), (10**6, 10**6, 1), (10, 10, 10**9)])
def test_size_is_checked_before_the_numbers_are_read(tmp_path, shape):
    (tmp_path / "large.npy").write_bytes(_header(shape))
    with zipfile.ZipFile(tmp_path / "large.npz", "w") as archive:
        archive.writestr("measurement.npy", _header(shape))
    for name in ("large.npy", "large.npz"):
        with pytest.raises(Refused, match="--max_pixels"):
            arrays.read(tmp_path / name, 10**9)


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}, None], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", measurement=np.array([None], object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(Refused, match="Cannot be read as NumPy arrays.*allow_pickle"):
            arrays.read(tmp_path / name, 100)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("content", [b"", b"hello", _header((4, 4))])
def test_what_is_no_array(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused, match="Cannot be read as NumPy arrays"):
        arrays.read(tmp_path / name, 100)


def test_text_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array(["a" * 1000]))
    with pytest.raises(Refused, match="Expected numbers. Received: <U1000"):
        arrays.read(tmp_path / "a.npy", 100)


def test_archive_without_a_measurement(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.ones((2, 2)))
    with pytest.raises(Refused, match=r"named 'measurement'. Received: \['image'\]"):
        arrays.read(tmp_path / "a.npz", 100)
