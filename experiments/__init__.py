"""Programs that train, compare and export; the mathematics is in `deq_keras`."""
