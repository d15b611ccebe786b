"""The upper level of bilevel learning, where what is known of a solution is certified."""

from deq_keras.bilevel.inexact import Learned, Record
from deq_keras.bilevel.isgd import ISGD
from deq_keras.bilevel.lower_level import Hypergradient, LowerLevel, Solved
from deq_keras.bilevel.maid import MAID

__all__ = ["ISGD", "MAID", "Hypergradient", "Learned", "LowerLevel", "Record", "Solved"]
