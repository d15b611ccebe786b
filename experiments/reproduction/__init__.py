"""Reproduction of a paper's experiments: grids of trainings, and a page of what came out."""
