"""Numerics that all parts share: rows of a batch, partial functions, small systems, Jacobians."""

from deq_keras.numerics.partial import Partial

__all__ = ["Partial"]
