"""The program of the workers, in processes that live too shortly to collect garbage."""

import gc
import sys

gc.disable()  # a fifth of the time that TensorFlow takes to start

from tests.trainers.drill.program import main  # noqa: E402

main(*sys.argv[1:])
