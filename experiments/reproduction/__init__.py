"""The experiments of the paper (arXiv:2206.13193), made again."""
