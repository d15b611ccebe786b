"""How hard a solve is: conditioning

The equations of a solve and of its derivative have the matrix I − J. How it is conditioned
decides how many steps they take, and training makes it worse. `dk.conditioning` estimates it,
at a solution.
"""

# %%
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

photograph = datasets.load("photographs", max_side=96)["test"].images[0]
truth = tf.constant(photograph[None] / 255.0, tf.float32)
noisy = dk.operators.GaussianNoise(0.1)(truth, tf.constant([0], tf.int64))

# %% [markdown]
# The sharper the experts, the nearer their potential is to the absolute value, and the worse
# the condition. A solver without a preconditioner pays for that.

# %%
print("sharpness   condition   steps without and with a preconditioner")
for sharpness in (50.0, 500.0, 5000.0):
    prior = dk.priors.FieldsOfExperts(filters=24, kernel_size=5, sharpness=sharpness)
    steps = []
    for precondition in (False, True):
        solver = dk.solvers.LBFGS(tolerance=1e-4, precondition=precondition)
        layer = dk.layers.Variational(dk.operators.Identity(), prior, solver=solver)
        solution = layer.solve(noisy)
        steps.append(int(solution.steps[0]))
    found = dk.conditioning.estimate(layer.cell.bind(noisy), solution.value)
    print(f"{sharpness:9.0f} {float(found.condition[0]):11.1f} {steps[0]:9} {steps[1]:6}")

# %% [markdown]
# Of an equilibrium of untied experts the matrix is not symmetric: the norm of its skew part
# says how far from a gradient the learned map is.

# %%
card = dk.presets.card("untied_foe_bsd400")
cell = dk.layers.GradientStep(
    dk.operators.Identity(), dk.presets.load("untied_foe_bsd400"), card["weight"]
)
layer = dk.layers.Equilibrium(cell)
solution = layer.solve(noisy, return_history=True)
found = dk.conditioning.estimate(cell.bind(noisy), solution.value)
print(f"smallest eigenvalue of the symmetric part {float(found.smallest[0]):.2e}")
print(f"norm of the skew part {float(found.skew[0]):.2e}, of the whole {float(found.norm[0]):.2e}")
dk.plot.residuals(solution, tolerance=1e-5).savefig("residuals.png")
