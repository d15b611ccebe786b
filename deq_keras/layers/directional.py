"""Derivatives of a fixed point in a direction, forward: the implicit function theorem once more."""

import tensorflow as tf

from deq_keras import adjoints
from deq_keras.adjoints.base import adjoint_operator, at_solution
from deq_keras.numerics import partial
from deq_keras.numerics.jacobian import product
from deq_keras.numerics.shapes import shapes_of, tensors_of


def jvp(layer, inputs, tangents):
    """The fixed point of a layer, and its derivative in a direction of the inputs.

    For `z = f(z, y)` and a direction `dy` the derivative `dz` solves

        (I - J) dz = (df/dy) dy,    J = df/dz at the fixed point,

    a single linear system, as a product with the transposed Jacobian needs one. It is found
    whatever the adjoint of the layer; `tf.autodiff.ForwardAccumulator` cannot pass through an
    implicit solution, since TensorFlow derives forward mode from second derivatives in reverse.

    Args:
        layer: A `deq_keras.layers.Equilibrium` or `Variational`.
        inputs: As in a call of it, real tensors.
        tangents: Directions, nested like `inputs` and of the same shapes; `None` in the place of a
            tensor that does not move.

    Returns:
        A `deq_keras.solvers.Solution` of the fixed point, and what the linear solver found:
        `value`, the derivative, with `residual`, `steps` and `converged` for each image.

    Raises:
        ValueError: If a tensor that moves is not real, or no tensor moves.

    Reference:
        Krantz and Parks, The implicit function theorem, 2003.

    Example:

    >>> prior = deq_keras.priors.FieldsOfExperts(filters=2, kernel_size=3)
    >>> layer = deq_keras.layers.Variational(deq_keras.operators.Identity(), prior)
    >>> noisy = tf.random.uniform((1, 16, 16, 1))
    >>> solution, tangent = deq_keras.layers.jvp(layer, noisy, tf.ones_like(noisy))
    >>> tangent.value.shape, tangent.converged.numpy()
    (TensorShape([1, 16, 16, 1]), array([ True]))
    """
    inputs = tensors_of(inputs)
    if not layer.built:
        layer.build(shapes_of(inputs, static=True))
    dtype = layer.variable_dtype
    leaves, directions = tf.nest.flatten(inputs), tf.nest.flatten(tangents)
    moving = [n for n, direction in enumerate(directions) if direction is not None]
    if len(leaves) != len(directions) or not moving:
        raise ValueError(
            f"Expected `tangents` nested like the inputs, {len(leaves)} tensors, and one of them "
            f"that is not None. Received {len(directions)} of which {len(moving)} are not None."
        )
    if any(not leaves[n].dtype.is_floating for n in moving):
        raise ValueError(
            "Expected real inputs in the places of tangents. Received "
            f"{[leaves[n].dtype.name for n in moving]}. Split complex ones into real parts."
        )
    solution = layer.solve(inputs)
    z = tf.nest.map_structure(tf.stop_gradient, solution.value)

    def cast(tensor):
        return tf.cast(tensor, dtype) if tensor is not None and tensor.dtype.is_floating else tensor

    leaves = [cast(leaf) for leaf in leaves]

    def problem_of(moved):
        parts = list(leaves)
        for place, part in zip(moving, moved, strict=True):
            parts[place] = part
        problem = layer.cell.bind(tf.nest.pack_sequence_as(inputs, parts), z)
        return problem._replace(symmetric=layer.structure.symmetric)

    start = [leaves[n] for n in moving]
    along = [tf.cast(tf.convert_to_tensor(directions[n]), dtype) for n in moving]
    right_side = product(lambda moved: at_solution(problem_of(moved))(z), start)(along)
    frozen = problem_of(start).frozen()
    if frozen.symmetric:
        operator = adjoint_operator(frozen, z)
    else:
        forward = product(frozen.f, z)

        def operator(w):
            return tf.nest.map_structure(tf.subtract, w, forward(w))

    adjoint = layer.adjoint if isinstance(layer.adjoint, adjoints.Implicit) else adjoints.Implicit()
    right_side = tf.nest.map_structure(tf.stop_gradient, right_side)
    tangent = adjoint.choose(frozen).solve(operator, right_side, adjoint.preconditioner(frozen, z))
    return solution, partial.stopped(tangent)
