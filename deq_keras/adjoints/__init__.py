"""How a derivative passes through the solution of `z = f(z)`, with one custom gradient."""

from deq_keras import config as _config
from deq_keras.adjoints.base import Adjoint
from deq_keras.adjoints.implicit import Implicit
from deq_keras.adjoints.jacobian_free import JacobianFree, TruncatedNeumann
from deq_keras.adjoints.phantom import Phantom
from deq_keras.adjoints.shine import SHINE
from deq_keras.adjoints.unrolled import Unrolled

__all__ = [
    "SHINE",
    "Adjoint",
    "Implicit",
    "JacobianFree",
    "Phantom",
    "TruncatedNeumann",
    "Unrolled",
    "get",
]

_BY_NAME = {
    "implicit": Implicit,
    "jacobian_free": JacobianFree,
    "phantom": Phantom,
    "shine": SHINE,
    "truncated_neumann": TruncatedNeumann,
    "unrolled": Unrolled,
}


def get(identifier):
    """An `Adjoint` from a name (`"implicit"`, `"jacobian_free"`, `"phantom"`, `"shine"`,
    `"truncated_neumann"`, `"unrolled"`), a configuration or an adjoint.

    Example:

    >>> deq_keras.adjoints.get("phantom")
    Phantom(steps=5, damping=0.5)
    """
    return _config.get(identifier, "adjoint", _BY_NAME, Adjoint)
