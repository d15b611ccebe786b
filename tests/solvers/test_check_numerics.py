"""Solves under `tf.debugging.enable_check_numerics`, which finds infinite constants too."""

import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: what has been traced before is not undone by disabling it.
PROGRAM = """
import tensorflow as tf
tf.debugging.enable_check_numerics()
import deq_keras as dk
y = tf.random.stateless_uniform((2, 6, 6, 1), (0, 0))
for solver in ("lbfgs", "anderson", "picard"):
    layer = dk.layers.Variational(
        dk.operators.Identity(), dk.priors.FieldsOfExperts(2, 3), solver=solver
    )
    layer.build(y.shape)
    solve = tf.function(layer.solve, autograph=False)
    assert solve(y).converged.numpy().all(), solver
try:
    solve(y * float("inf"))
except tf.errors.InvalidArgumentError:
    print("found")
"""


@pytest.mark.slow
def test_only_what_is_wrong_is_found():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["found"]
