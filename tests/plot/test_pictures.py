"""Arrays as pictures."""

import numpy as np
import pytest

from deq_keras.plot import pictures


def test_panels_of_other_sizes_and_channels():
    panels = [np.full((2, 3, 1), 0.5), np.full((4, 2, 3), 2.0), np.full((3, 1, 5), np.nan)]
    row = pictures.side_by_side(panels)
    assert row.shape == (4, 6, 3)
    np.testing.assert_array_equal(row[:2, :3], 0.5)
    np.testing.assert_array_equal(row[2:, :3], 0.0)
    np.testing.assert_array_equal(row[:, 3:5], 1.0)
    np.testing.assert_array_equal(row[:, 5], 0.0)


def test_the_detail_is_where_estimates_differ_and_the_truth_has_structure():
    truth = np.zeros((120, 160, 1))
    truth[:, 80:] = 0.02 * np.indices((120, 80)).sum(0)[..., None] % 1.0
    truth[70:90, 100:120] = np.random.default_rng(0).random((20, 20, 1))
    other = truth.copy()
    other[70:90, 100:120] += 0.1
    other[70:90, 10:30] += 0.1  # differs as much, where there is nothing to see
    top, left, side = pictures.choose_detail(truth, [truth, other])
    assert top <= 70
    assert left <= 100
    assert top + side >= 90
    assert left + side >= 120
    assert pictures.choose_detail(truth, [truth, other]) == (top, left, side)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 300, 3), (64, 64, 1), (23, 24, 1)])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_detail_lies_in_the_picture(shape, count):
    truth = np.full(shape, 0.5)
    top, left, side = pictures.choose_detail(truth, [truth] * count)
    assert 0 < side <= min(shape[:2])
    assert 0 <= top <= shape[0] - side
    assert 0 <= left <= shape[1] - side


def test_pictures_are_for_the_eye():
    shown = pictures.as_picture(np.array([[-1.0, 0.5], [np.nan, np.inf]]))
    np.testing.assert_array_equal(shown[..., 0], [[0.0, 0.5], [0.0, 1.0]])
    two = np.stack([np.zeros((2, 3)), np.full((2, 3), 0.5)], axis=-1)
    np.testing.assert_array_equal(pictures.as_picture(two), np.full((2, 3, 1), 0.25))


@pytest.mark.parametrize("shape", [(1, 4, 4, 1), (4,), (0, 4), (4, 4, 0)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match="remove the batch axis"):
        pictures.as_picture(np.zeros(shape))


def test_tiles_are_scaled_each_by_itself_or_all_alike():
    kernel = np.zeros((2, 2, 1, 3))
    kernel[0, 0, 0] = (1.0, -4.0, 0.0)
    tiles = pictures.filter_tiles(kernel, columns=3)
    assert tiles.shape == (2, 8, 1)
    np.testing.assert_array_equal(tiles[0, [0, 3, 6], 0], [1.0, -1.0, 0.0])
    assert np.isnan(tiles[:, [2, 5]]).all()
    alike = pictures.filter_tiles(kernel, [1, 0], 2, limit=8.0)
    np.testing.assert_array_equal(alike[0, [0, 3], 0], [-0.5, 0.125])
