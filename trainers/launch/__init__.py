"""Several workers of one training on this machine, watched and started again when one is lost.

`python -m trainers.launch --num_workers=2 -- COMMAND ARGS...` is the program; `Launcher` is the
same for other programs. Neither imports TensorFlow.
"""

from trainers.launch.launcher import Launcher

__all__ = ["Launcher"]
