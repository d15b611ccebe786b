"""The upper level of bilevel learning, where what is known of a solution is certified."""

from deq_keras.bilevel.lower_level import Hypergradient, LowerLevel, Solved
from deq_keras.bilevel.maid import MAID, Learned, Record

__all__ = ["MAID", "Hypergradient", "Learned", "LowerLevel", "Record", "Solved"]
