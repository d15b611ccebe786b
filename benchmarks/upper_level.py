"""MAID and ISGD with certified bounds against Adam with fixed tolerances, on the same problem.

    python -m benchmarks.upper_level --output=runs/upper_level.json

Denoising (noise 0.1) of one fixed batch of photographs, float64: of total variation its weight and
smoothing are learned, of fields of experts all weights. MAID is used with its defaults. Adam takes
hypergradients to one relative tolerance, with the same solvers and the same warm starts, and as
many evaluations and products; its learning rate is the best of several, which it is not charged
for. ISGD draws one image a step, for Adam with a rate that falls from the best of the same ones.
Nothing is compiled within the time. After the runs the losses along each path are evaluated
accurately. Writes a JSON file and a plot next to it: what is left of the loss, above the least one
that any of them reached, against seconds, and against evaluations and products.
"""

import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from absl import app, flags

import deq_keras as dk
from benchmarks import problems

_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.", required=True)
_STEPS = flags.DEFINE_integer("steps", 60, "Of MAID.", 1)
_DRAWS = flags.DEFINE_integer("draws", 300, "Of ISGD, at most.", 1)
_SIZE = flags.DEFINE_integer("size", 48, "Side of the images.", 11)
_IMAGES = flags.DEFINE_integer("images", 4, "Images of the batch.", 1)
_PROBLEMS = flags.DEFINE_list("problems", ["total variation", "fields of experts"], "Which.")

RATES, TOLERANCES = (0.01, 0.03, 0.1, 0.3), (1e-2, 1e-4)
DTYPE, NOISE = "float64", 0.1


def total_variation():
    """Two parameters."""
    return dk.priors.TotalVariation(0.1, train_smoothing=True, dtype=DTYPE), 0.02


def experts():
    """209 parameters: 8 filters of 5 x 5, their sharpness and the weight."""
    options = {"sharpness": 20.0, "max_sharpness": None, "padding": "circular"}
    return dk.priors.FieldsOfExperts(8, 5, dtype=DTYPE, **options), 0.05


PROBLEMS = {"total variation": total_variation, "fields of experts": experts}


def level_of(make, noisy, truth):
    """The problem as it is before the training, compiled."""
    prior, weight = make()
    operator = dk.operators.Identity(dtype=DTYPE)
    layer = dk.layers.Variational(operator, prior, weight, dtype=DTYPE)
    level = dk.bilevel.LowerLevel(layer, noisy, truth)
    level.hypergradient(level.solve(0.5), 0.5)
    return level


def by_maid(level, steps):
    """The path of MAID: a row for each step."""
    learned = dk.bilevel.MAID().minimize(level, steps=steps)
    names = ("seconds", "evaluations", "products", "tolerance", "weights")
    rows = [{name: getattr(record, name) for name in names} for record in learned.history]
    return rows, learned.reason


def by_isgd(level, rate, draws, work):
    """The path of ISGD, one image a step, within a number of evaluations and products."""
    schedule = keras.optimizers.schedules.InverseTimeDecay(rate, 30, 1.0)
    method = dk.bilevel.ISGD(keras.optimizers.Adam(schedule), batch_size=1)
    share = 1.0 / len(level.truth)  # those of the others were not solved for
    history = method.minimize(level, steps=draws).history
    before = zip([None, *history], history, strict=False)
    rows = [
        {
            "seconds": 0.0 if last is None else last.seconds,
            "evaluations": 0.0 if last is None else share * last.evaluations,
            "products": 0.0 if last is None else share * last.products,
            "tolerance": record.tolerance,
            "weights": record.weights,
        }
        for last, record in before
    ]
    return [row for row in rows if row["evaluations"] + row["products"] <= work]


def by_adam(level, tolerance, rate, work):
    """The path of Adam within a number of evaluations and products."""
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(level.variables)
    rows, near, state, begin = [], None, None, time.perf_counter()
    evaluations = products = 0.0
    while evaluations + products < work:
        now = time.perf_counter() - begin
        row = {"seconds": now, "evaluations": evaluations, "products": products}
        weights = [variable.numpy() for variable in level.variables]
        rows.append({**row, "tolerance": tolerance, "weights": weights})
        solved = level.solve(tolerance, near)
        slope = level.hypergradient(solved, tolerance, state)
        near, state = solved.value, slope.state
        evaluations += float(solved.evaluations)
        products += float(slope.products)
        optimizer.apply(slope.value, level.variables)
    return rows


def evaluate(level, rows, most=80):
    """The same rows, at most so many of them, with accurate losses in the place of the weights."""
    chosen = np.unique(np.geomspace(1, len(rows), most).round().astype(int)) - 1
    kept, near = [], None
    for row in (rows[number] for number in chosen):
        assign(level, row["weights"])
        solved = level.solve(1e-9, near)
        near = solved.value
        kept.append({**row, "weights": None, "loss": float(solved.loss)})
    return kept


def measure(name, noisy, truth, steps, draws):
    """All paths on a problem: from a label to its rows, and why MAID ended."""
    make = PROBLEMS[name]
    rows, reason = by_maid(level_of(make, noisy, truth), steps)
    work, judge = rows[-1]["evaluations"] + rows[-1]["products"], level_of(make, noisy, truth)
    level = level_of(make, noisy, truth)
    start = [variable.numpy() for variable in level.variables]
    paths = {"MAID, certified": evaluate(judge, rows)}
    for tolerance in TOLERANCES:
        found = {}
        for rate in RATES:
            assign(level, start)
            path = by_adam(level, tolerance, rate, work)
            found[rate] = evaluate(judge, path)
            print(f"{name}, Adam {tolerance:g}, rate {rate:g}: {found[rate][-1]['loss']:.6e}")
        best = min(found, key=lambda rate: found[rate][-1]["loss"])
        paths[f"Adam, tolerance {tolerance:g}, rate {best:g}"] = found[best]
    found = {}
    part = level.of([0])  # compiled for one image
    part.hypergradient(part.solve(0.5), 0.5)
    for rate in RATES:
        assign(level, start)
        found[rate] = evaluate(judge, by_isgd(level, rate, draws, work))
        print(f"{name}, ISGD, rate {rate:g}: {found[rate][-1]['loss']:.6e}")
    best = min(found, key=lambda rate: found[rate][-1]["loss"])
    paths[f"ISGD, certified, rate {best:g}"] = found[best]
    for label, path in paths.items():
        last = path[-1]
        work = last["evaluations"] + last["products"]
        print(f"{name}, {label}: loss {last['loss']:.6e}, {last['seconds']:.1f} s, work {work:.0f}")
    return {"paths": paths, "reason": reason, "work": work}


def assign(level, weights):
    """Gives the variables some values."""
    for variable, value in zip(level.variables, weights, strict=True):
        variable.assign(value)


def plot(path, results):
    """Loss above the least against seconds and against work, a row for each problem."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (10, 3.6 * len(results))
    figure, axes = pyplot.subplots(len(results), 2, figsize=size, squeeze=False)
    for row, (name, result) in zip(axes, results.items(), strict=True):
        least = min(p["loss"] for rows in result["paths"].values() for p in rows)
        for label, rows in result["paths"].items():
            gaps = [max(point["loss"] / least - 1.0, 1e-7) for point in rows]
            work = [point["evaluations"] + point["products"] for point in rows]
            row[0].loglog([max(point["seconds"], 1e-2) for point in rows], gaps, label=label)
            row[1].loglog([max(w, 1.0) for w in work], gaps, label=label)
        row[0].set(xlabel="seconds", ylabel="loss, relative to the least, minus 1", title=name)
        row[1].set(xlabel="evaluations and products, for each image", title=name)
        row[1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(argv):
    """Everything, from the flags to the plot."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}. Options begin with --.")
    # Every fourth pixel: of crops as small as this most show nothing.
    large = problems.photographs(_IMAGES.value, None, 4 * _SIZE.value, 4 * _SIZE.value)
    truth = tf.constant(large[:, ::4, ::4], DTYPE)
    noise = tf.random.stateless_normal(truth.shape, (0, 0), dtype=DTYPE)
    noisy = truth + NOISE * noise
    if unknown := set(_PROBLEMS.value) - set(PROBLEMS):
        raise app.UsageError(f"Expected --problems of {list(PROBLEMS)}. Received {unknown}.")
    results = {
        name: measure(name, noisy, truth, _STEPS.value, _DRAWS.value) for name in _PROBLEMS.value
    }
    path = Path(_OUTPUT.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    plot(path.with_suffix(".png"), results)
    print(f"Results: {path}\nPlot:    {path.with_suffix('.png')}")


if __name__ == "__main__":
    app.run(main)
