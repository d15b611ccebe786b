"""The table of a solve that is shown while it runs."""

import re

import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk


def rows(text):
    """The numbers of the lines with a step: step, images left, median and largest residual."""
    found = re.findall(r"^ *(\d+) +(\d+) +(\S+) +(\S+)$", text, re.M)
    return [(int(a), int(b), float(c), float(d)) for a, b, c, d in found]


def layer(**options):
    prior = dk.priors.FieldsOfExperts(4, 3, sharpness=100.0)
    return dk.layers.Variational(dk.operators.Identity(), prior, **options)


@pytest.mark.parametrize("compact", [False, True])
def test_table_says_what_the_history_does(capfd, compact):
    y = tf.random.uniform((3, 12, 12, 1)) * tf.reshape([1.0, 0.01, 0.3], (3, 1, 1, 1))
    solved = layer(solver=dk.solvers.Nesterov(tolerance=1e-4, compact=compact))
    quiet = solved.solve(y, return_history=True)
    assert not capfd.readouterr().out
    shown = solved.solve(y, verbose=1)
    text = capfd.readouterr().out
    np.testing.assert_array_equal(shown.value, quiet.value)
    assert text.startswith("Nesterov, tolerance 1.0e-04\n")
    most = int(tf.reduce_max(quiet.steps))
    assert text.endswith(f"3 of 3 images converged, in at most {most} steps\n")
    expected = [n for n in range(1, most + 1) if n % 10 ** (len(str(n)) - 1) == 0]
    assert [row[0] for row in rows(text)] == expected
    for step, left, median, largest in rows(text):
        now = quiet.history[step - 1].numpy()
        np.testing.assert_allclose((median, largest), (np.median(now), now.max()), rtol=6e-3)
        assert left == int((quiet.steps.numpy() > step).sum())


def test_an_image_that_does_not_converge_is_counted(capfd):
    layer(solver=dk.solvers.Picard(max_steps=3)).solve(tf.random.uniform((2, 8, 8, 1)), verbose=1)
    assert "0 of 2 images converged, in at most 3 steps" in capfd.readouterr().out


def test_an_empty_batch(capfd):
    tv = dk.layers.Variational(dk.operators.Identity(), dk.priors.TotalVariation())
    tv.solve(tf.zeros((0, 8, 8, 1)), verbose=1)
    assert "0 of 0 images converged, in at most 0 steps" in capfd.readouterr().out


def test_a_graph_refuses_it_in_words():
    solve = tf.function(lambda y: layer().solve(y, verbose=1))
    with pytest.raises(ValueError, match=r"outside of graphs.*Leave out `verbose`"):
        solve(tf.ones((1, 8, 8, 1)))
