"""Experiments of Riccio, Ehrhardt and Benning, arXiv:2206.13193, for `experiments.reproduce`."""
