"""Tiles: their weights, and a reconstruction in tiles against one of the whole image."""

import keras
import numpy as np
import pytest

import deq_keras as dk
from experiments.restoration import tiles
from experiments.restoration.errors import Refused
from experiments.restoration.local import LocalModel
from experiments.restoration.restoring import Settings, restore
from tests.experiments.restoration import saved_models
from trainers.process.errors import ConfigurationError


@pytest.mark.parametrize(("tile", "overlap"), [(8, 0), (32, 8), (50, 14), (64, 3)])
def test_weights_add_up_to_one_and_tiles_fit(tile, overlap):
    tiles.check(tile, overlap)
    for size in (1, 7, tile - 1, tile, tile + 1, 2 * tile, 2 * tile - overlap + 1, 5 * tile + 3):
        spans = tiles.spans(size, tile, overlap)
        total, covered = np.zeros(size), np.zeros(size, int)
        for span in spans:
            total[span.start : span.stop] += span.weights
            covered[span.start : span.stop] += 1
        np.testing.assert_allclose(total, 1, atol=1e-6)
        assert covered.max() <= 2
        sides = {span.stop - span.start for span in spans}
        assert len(sides) == 1
        assert max(sides) <= tile
        for one, two in zip(spans, spans[1:], strict=False):
            assert one.stop - two.start >= overlap


def test_outer_quarter_of_an_overlap_has_no_weight():
    first, second = tiles.spans(size=60, tile=40, overlap=16)
    shared = first.stop - second.start
    assert (second.weights[: shared // 4] == 0).all()
    assert (first.weights[-(shared // 4) :] == 0).all()


def test_no_tiles():
    ((start, stop, weights),) = tiles.spans(1000, tile=0, overlap=32)
    assert (start, stop) == (0, 1000)
    assert (weights == 1).all()


@pytest.mark.parametrize(("tile", "overlap"), [(-1, 0), (32, -1), (32, 16), (32, 9)])
def test_overlap_that_does_not_fit(tile, overlap):
    with pytest.raises(ConfigurationError, match="3 times --overlap plus 8"):
        tiles.check(tile, overlap)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    keras.utils.set_random_seed(0)
    prior = dk.priors.FieldsOfExperts(filters=4, kernel_size=3)
    model = saved_models.variational(dk.operators.Identity(), prior, weight=0.1)
    return LocalModel(model.save(tmp_path_factory.mktemp("variational") / "1"))


def _noisy(rng, height, width):
    y, x = np.mgrid[:height, :width]
    clean = 0.5 + 0.2 * np.sin(x / 5) * np.cos(y / 7) + 0.2 * ((x // 16 + y // 16) % 2)
    noise = 0.1 * rng.standard_normal((height, width))
    return (clean + noise).astype(np.float32)[None, ..., None]


def test_seams_are_not_seen(denoiser, rng):
    """A real energy with 3 × 3 filters: tiles agree with the whole, the better the more overlap."""
    image = _noisy(rng, 72, 101)
    whole = restore(denoiser, image, {}, Settings(tile=0))
    assert whole.tiles == 1
    assert whole.converged
    errors = []
    for overlap in (2, 18):
        tiled = restore(denoiser, image, {}, Settings(tile=62, overlap=overlap))
        assert tiled.tiles == 4 if overlap == 2 else tiled.tiles >= 4
        assert tiled.converged
        errors.append(np.abs(tiled.reconstruction - whole.reconstruction).max())
    assert errors[1] < 1e-3 < errors[0]
    # The image is far from what the blending could hide.
    assert np.abs(whole.reconstruction - image).max() > 0.05


def test_an_image_as_large_as_a_tile_is_whole(denoiser, rng):
    image = _noisy(rng, 24, 24)
    tiled = restore(denoiser, image, {}, Settings(tile=24, overlap=4))
    whole = restore(denoiser, image, {}, Settings(tile=0))
    assert tiled.tiles == 1
    np.testing.assert_array_equal(tiled.reconstruction, whole.reconstruction)


def test_progress_counts_tiles(denoiser, rng):
    seen = []
    settings = Settings(tile=20, overlap=4)
    restore(denoiser, _noisy(rng, 20, 30), {}, settings, lambda *counts: seen.append(counts))
    assert seen == [(1, 2), (2, 2)]


def test_larger_outputs(saved, rng):
    """Super-resolution: tiles are put where the factor says, and blend to the whole."""
    model = LocalModel(saved("doubled"))
    image = rng.random((1, 45, 33, 1), np.float32)
    tiled = restore(model, image, {}, Settings(tile=20, overlap=4))
    assert tiled.tiles > 4
    expected = image.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(tiled.reconstruction, expected, atol=1e-6)


def test_a_mask_is_cut_along(saved, rng):
    model = LocalModel(saved("masked"))
    image = rng.random((1, 45, 33, 1), np.float32)
    mask = rng.integers(0, 2, image.shape).astype(np.float32)
    tiled = restore(model, image, {"data": mask}, Settings(tile=20, overlap=4))
    np.testing.assert_allclose(tiled.reconstruction, image * mask, atol=1e-6)


def test_one_tile_that_does_not_converge_is_told(saved, rng):
    model = LocalModel(saved("grey"))
    image = 0.5 + 0.5 * rng.random((1, 45, 33, 1), np.float32)
    settings = Settings(tile=20, overlap=4)
    assert restore(model, image, {}, settings).converged
    image[0, 44, 32] = 0
    assert not restore(model, image, {}, settings).converged


def test_limits_reach_the_model(saved, rng):
    model = LocalModel(saved("grey"))
    image = 0.5 + 0.5 * rng.random((1, 8, 8, 1), np.float32)
    limited = restore(model, image, {}, Settings(max_steps=2))
    assert (limited.steps, limited.converged) == (2, False)


def test_fourier_coefficients_are_not_cut(saved, rng):
    model = LocalModel(saved("fourier"))
    image = rng.random((1, 40, 30), np.float32)
    measurement = np.fft.fft2(image)[..., None].astype(np.complex64)
    restored = restore(model, measurement, {}, Settings(tile=20, overlap=4))
    assert restored.tiles == 1
    np.testing.assert_allclose(restored.reconstruction[..., 0], image, atol=1e-5)


def test_refusal_of_the_model_is_told(saved):
    model = LocalModel(saved("grey"))
    image = np.full((1, 8, 8, 1), np.nan, np.float32)
    with pytest.raises(Refused, match="not finite"):
        restore(model, image, {}, Settings())
