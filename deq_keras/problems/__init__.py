"""Problems `z = f(z)`: what is known of one, and what a solver returns."""

from deq_keras.problems.joined import drop, front, joined
from deq_keras.problems.preconditioner import Preconditioner
from deq_keras.problems.problem import Problem, Step, as_problem
from deq_keras.problems.solution import Solution

__all__ = ["Preconditioner", "Step", "Problem", "Solution", "as_problem", "drop", "front", "joined"]
