"""Priors that are made of another one and a number that is fitted."""

import keras
import numpy as np

from deq_keras.checks import positive
from deq_keras.config import deserialise, serialise
from deq_keras.priors.base import Prior


class OfAnother(Prior):
    """Base class of priors that are made of another one and a number > 0, kept as a logarithm.

    A subclass names the number: its arguments are `prior`, `<number>` and `train_<number>`, and its
    variable is `log_<number>`.

    Args:
        prior: A `deq_keras.priors.Prior` of the same dtype.
        number: Initial value.
        trained: Whether it is trained.
        **kwargs: As for any Keras layer.

    Raises:
        ValueError: If `prior` is none, or of another dtype.
    """

    number = ""

    def __init__(self, prior, number, trained, **kwargs):
        super().__init__(**kwargs)
        name = type(self).__name__
        if not isinstance(prior, Prior):
            raise ValueError(
                f"{name} expected `prior` to be a `deq_keras.priors.Prior`. Received {prior!r}."
            )
        if prior.variable_dtype != self.variable_dtype:
            raise ValueError(
                f"{name} expected a `prior` of its own dtype {self.variable_dtype}. Received "
                f"{prior.variable_dtype}. Give both the same."
            )
        self.prior = prior
        setattr(self, self.number, positive(self.number, number))
        setattr(self, f"train_{self.number}", bool(trained))

    @property
    def has_energy(self):
        return self.prior.has_energy

    @property
    def is_convex(self):
        return self.prior.is_convex

    @property
    def certified(self):
        return self.prior.certified

    def build(self, input_shape):
        if not self.prior.built:
            self.prior.build(input_shape)
        variable = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(np.log(getattr(self, self.number))),
            trainable=getattr(self, f"train_{self.number}"),
            name=f"log_{self.number}",
        )
        setattr(self, f"log_{self.number}", variable)
        self.built = True

    def pictures(self):
        return self.prior.pictures()

    def get_config(self):
        names = self.number, f"train_{self.number}"
        own = {"prior": serialise(self.prior), **{name: getattr(self, name) for name in names}}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "prior"))
