"""What priors show of their weights: the filters as the map uses them, one picture each."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import priors


@pytest.mark.parametrize("cls", [priors.FieldsOfExperts, priors.UntiedFieldsOfExperts])
def test_pictures_are_the_normalised_filters(cls):
    prior = cls(filters=5, kernel_size=(3, 4))
    prior.build((None, 12, 13, 2))
    prior.analysis.assign(3.0 * prior.analysis)  # normalised before it is used
    pictures = prior.pictures()
    assert list(pictures) == (["analysis"] if prior.tied else ["analysis", "synthesis"])
    for title, shown in pictures.items():
        kernel = getattr(prior.coefficients(), title)
        assert shown.shape == (5, 3, 4, 2)
        for number in range(5):
            np.testing.assert_array_equal(shown[number], kernel[..., number])


@pytest.mark.parametrize("cls", [priors.AffineExperts, priors.UntiedAffineExperts])
def test_pictures_of_affine_experts_are_images(cls):
    prior = cls(units=4)
    prior.build((None, 5, 6, 1))
    u = tf.random.stateless_uniform((1, 5, 6, 1), (0, 0))
    responses = [tf.reduce_sum(picture * u[0]) for picture in prior.pictures()["analysis"]]
    expected = tf.linalg.matmul(tf.reshape(u, (1, 30)), prior.coefficients().analysis)[0]
    np.testing.assert_allclose(responses, expected, rtol=1e-4)
    assert ("synthesis" in prior.pictures()) == (not prior.tied)


def test_there_is_nothing_to_show_of_vectors_and_of_total_variation():
    prior = priors.AffineExperts(units=4)
    prior.build((None, 30))
    assert prior.pictures() == {}
    assert priors.TotalVariation().pictures() == {}
