"""The photographs that ship with scikit-image, as a TensorFlow Datasets builder."""

from trainers.datasets.photographs.photographs import (
    PHOTOGRAPHS,
    Photographs,
    prepare,
    read_splits,
)

__all__ = ["PHOTOGRAPHS", "Photographs", "prepare", "read_splits"]
