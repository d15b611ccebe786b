"""Solvers on one problem

The same energy, minimised by six solvers: how the residual falls with the evaluations of the
map. The default for an energy is L-BFGS with a preconditioner.
"""

# %%
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

photograph = datasets.load("photographs", max_side=96)["test"].images[0]
truth = tf.constant(photograph[None] / 255.0, tf.float32)
noisy = dk.operators.GaussianNoise(0.1)(truth, tf.constant([0], tf.int64))
prior, weight = dk.presets.load("foe_bsd400"), dk.presets.card("foe_bsd400")["weight"]

# %%
solvers = {
    "L-BFGS, preconditioned": dk.solvers.LBFGS(tolerance=1e-4),
    "L-BFGS": dk.solvers.LBFGS(tolerance=1e-4, precondition=False),
    "Anderson": dk.solvers.Anderson(tolerance=1e-4, precondition=False),
    "Newton-Krylov": dk.solvers.NewtonKrylov(tolerance=1e-4),
    "Nesterov": dk.solvers.Nesterov(tolerance=1e-4),
    "Picard": dk.solvers.Picard(tolerance=1e-4, max_steps=300),
}
solutions = {}
for name, solver in solvers.items():
    layer = dk.layers.Variational(dk.operators.Identity(), prior, weight=weight, solver=solver)
    solve = tf.function(lambda y, layer=layer: layer.solve(y, return_history=True))
    solutions[name] = solution = solve(noisy)
    steps, converged = int(solution.steps[0]), bool(solution.converged[0])
    print(f"{name:24} {steps:4} evaluations and products, converged: {converged}")

# %% [markdown]
# Newton-Krylov's line is short, for the axis counts evaluations alone: it took 68 evaluations and
# products with the Jacobian together.

# %%
dk.plot.residuals(solutions, tolerance=1e-4).savefig("residuals.png")
