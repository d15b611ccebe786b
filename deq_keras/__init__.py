"""Deep equilibrium models and bilevel learning for inverse problems in imaging.

An image is reconstructed from a measurement `y = K u + noise` as the fixed point
`z* = f(z*, y)` of a cell. `layers.Equilibrium` learns the cell itself, a deep equilibrium model;
`layers.Variational` derives it from an energy, which makes training it bilevel learning. Both
run the same solvers and differentiate the solution with the same implicit derivative.

- `operators`: the linear operators `K`, each with its adjoint.
- `fidelities` and `constraints`: how `K u` is compared with `y`, and what `u` must satisfy.
- `priors`: the regularisers, each with an energy and a gradient; `presets`: trained ones.
- `denoisers`: networks that remove noise, for energies made of them and plug-and-play.
- `solvers` and `linear_solvers`: fixed points, and the linear systems of their derivatives.
- `adjoints`: how a derivative passes through a solution.
- `certificates` and `conditioning`: how far a solution is from the exact one, and how hard it is.
- `convolution` and `regularizers`: what cells of one's own are made of, and kept stable by.
- `layers`: cells, and the two layers that solve for an image.
- `losses` and `bilevel`: training without clean images, and by certified descent.
- `metrics` and `testing`: quality measures, and checks for operators and cells of your own.
- `plot`: figures of reconstructions, filters and residuals.

Reference: Riccio, Ehrhardt and Benning, "Regularization of inverse problems: deep equilibrium
models versus bilevel learning", arXiv:2206.13193.
"""

# First of all: without a usable backend this explains what to do about it.
from deq_keras import _backend  # noqa: F401, I001
from deq_keras import (
    adjoints,
    bilevel,
    certificates,
    conditioning,
    constraints,
    convolution,
    denoisers,
    fidelities,
    layers,
    linear_solvers,
    losses,
    metrics,
    operators,
    plot,
    presets,
    priors,
    regularizers,
    solvers,
    testing,
)
from deq_keras._version import __version__

__all__ = [
    "__version__",
    "adjoints",
    "bilevel",
    "certificates",
    "conditioning",
    "constraints",
    "convolution",
    "denoisers",
    "fidelities",
    "layers",
    "linear_solvers",
    "losses",
    "metrics",
    "operators",
    "plot",
    "presets",
    "priors",
    "regularizers",
    "solvers",
    "testing",
]
