"""Numerics that all rooms share: rows of a batch, small dense systems, products of a Jacobian."""
