"""The benchmark of deq_keras against other libraries: `python -m benchmarks`."""
