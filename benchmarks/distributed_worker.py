"""A process of the suite `distributed`: a `Trainer` that is told when to train.

    python -m benchmarks.distributed_worker

As `worker`, with another server. With a `TF_CONFIG` in its environment it is one of the workers of
`MultiWorkerMirroredStrategy`, and what is asked of it must be asked of all at the same time.
"""

import itertools
import json
import time
from pathlib import Path

import keras
import tensorflow as tf

from benchmarks import worker
from experiments import models, tasks
from experiments.configs import train_demo
from experiments.inverse_problem import InverseProblem, load_images
from trainers.callbacks.metrics_log import NAME
from trainers.cluster import strategy
from trainers.process import exits
from trainers.training import Trainer
from trainers.training.step import Step


class ProcessorTime(keras.callbacks.Callback):
    """Of each step the seconds, and those in which a core worked for this process."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def get_state(self):
        """Nothing that a checkpoint should keep."""

    def set_state(self, state):
        """What was kept is of another round."""

    def on_train_batch_begin(self, batch, logs=None):
        self._begin = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter(), time.process_time()
        self.steps.append(tuple(b - a for a, b in zip(self._begin, now, strict=True)))


class Server:
    """Answers the requests of a `remote.Remote`."""

    def start(self, options):
        """Make model and trainer.

        Args:
            options: `strategy`, `workdir`, `model` (of `experiments.models.MODELS`), `size`,
                `batch` (of all workers together), `filters`, `kernel_size`, `weight` and `seed`.

        Returns:
            The number of float32 numbers that the workers add up in a step.
        """
        self.strategy = strategy.get(options["strategy"])  # before any operation of TensorFlow
        keras.utils.set_random_seed(options["seed"])
        tf.config.experimental.enable_op_determinism()  # as in experiments.train
        config = configuration(options)
        problem = InverseProblem(tasks.get(config.task, config), config, load_images(config))
        build = models.builder(problem, config, config.train.weight)
        self.trainer = Trainer(build, options["workdir"], strategy=self.strategy)
        self.log = Path(options["workdir"]) / NAME
        self.batches = lambda context, step: problem.training(step, input_context=context)
        # The same step for this worker's images, without the others.
        alone = build()
        self.alone = Step(alone, tf.distribute.get_strategy(), self.trainer.options)
        self.exchange = tf.function(self._exchange, autograph=False)
        return self.trainer.stepper.length

    def train(self, epochs, steps):
        """Train up to a number of epochs of `steps` steps each.

        Returns:
            The lines of the last of them in `metrics.jsonl` (of the chief; the others have none),
            and of each of its steps the seconds and the processor time.
        """
        clock = ProcessorTime()
        self.trainer.fit(
            self.batches, epochs=epochs, steps_per_epoch=steps, callbacks=[clock], verbose=0
        )
        if not self.trainer.is_chief:
            return [], clock.steps
        rows = [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]
        first = (epochs - 1) * steps
        rows = [row for row in rows if "epoch" not in row and row["step"] > first]
        return rows, clock.steps

    def dissect(self, steps):
        """Where the time of a step goes; all workers.

        The steps are the next ones of the training. Each is done several times over: by every
        worker alone, when the others rest; by all at once, but each without the others; and
        together, which is the step of the training.

        Returns:
            Lists of seconds: `alone`, `at_once` and `together`.
        """
        trainer = self.trainer
        found = {"alone": [], "at_once": [], "together": []}
        feed = trainer.feed.training(self.batches, trainer.position.step)
        for number, parts in enumerate(itertools.islice(feed, steps)):
            if number == 0:
                self.alone.prepare(parts[0])
            for turn in range(trainer.feed.workers):
                self._meet()
                if turn == trainer.feed.worker:
                    found["alone"].append(self._time_alone(parts))
            self._meet()
            found["at_once"].append(self._time_alone(parts))
            self._meet()
            found["together"].append(_time(lambda parts=parts: trainer.stepper.train(parts, False)))
        return found

    def reduce(self, numbers, repeats):
        """Seconds of each of `repeats` all-reduces of `numbers` float32 numbers; all workers."""
        vector = tf.ones([numbers])
        return self._repeat(lambda: self.exchange(vector, True), repeats)

    def dispatch(self, numbers, repeats):
        """As `reduce`, without an all-reduce: what starting the operation costs."""
        vector = tf.ones([numbers])
        return self._repeat(lambda: self.exchange(vector, False), repeats)

    def _exchange(self, vector, reduce):
        def replica(vector):
            vector = tf.identity(vector)  # an argument of a graph has no device
            if reduce:
                context = tf.distribute.get_replica_context()
                vector = context.all_reduce(tf.distribute.ReduceOp.SUM, vector)
            return vector

        return self.strategy.experimental_local_results(self.strategy.run(replica, (vector,)))[0]

    def _meet(self):
        """Wait for all workers."""
        self.exchange(tf.ones([1]), True).numpy()

    def _repeat(self, run, repeats):
        run().numpy()  # makes the graph
        self._meet()
        return [_time(lambda: run().numpy()) for _ in range(repeats)]

    def _time_alone(self, parts):
        """Seconds of a step on this worker's images, from the weights that all have."""
        pairs = zip(self.alone.trainable, self.trainer.stepper.trainable, strict=True)
        for mine, common in pairs:
            mine.assign(common.value)
        return _time(lambda: self.alone.train(parts, False))


def configuration(options):
    """The configuration of `experiments.train` that the options ask for."""
    config = train_demo.get_config()
    config.model, config.seed = options["model"], options["seed"]
    config.data.patch_size = options["size"]
    config.prior.filters, config.prior.kernel_size = options["filters"], options["kernel_size"]
    config.train.batch_size = options["batch"]
    config.train.weight = options["weight"]
    config.train.decay_steps = 0
    config.train.learning_rate = 0.001  # so that all rounds have about the same work
    return config


def _time(run):
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main():
    worker.main(Server())
    exits.leave(0)  # servers of TensorFlow would wait for those that have gone


if __name__ == "__main__":
    main()
