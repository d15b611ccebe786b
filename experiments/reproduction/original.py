"""Losses of the authors' code on the same digits, to compare with.

Their code is at https://github.com/reacho/deep-equilibrium-vs-bilevel (commit e269d13). It was run
on 10,000 digits, 9,000 to train and 1,000 to test, with batches of 100: the mean squared error on
[-1, 1] before training and after each epoch. What is random there (weights, noise, order) is not
what is random here, so a few per cent are no difference.
"""

COUNTS = (9000, 1000)  # images to train and to test on
_TAU, _GAMMA = 0.1, 0.5

# (task, noise, activation, model) -> (train, test) before training, after epoch 1, after epoch 2.
_LOSSES = {
    ("denoising", 0.5, "relu", "bilevel"): ((0.2304, 0.2299), (0.1965, 0.1783), (0.1625, 0.1475)),
    ("denoising", 0.5, "soft_shrinkage", "bilevel"): ((0.2198, 0.2195), (0.1880, 0.1650)),
    ("denoising", 0.5, "identity", "bilevel"): (
        (0.2192, 0.2189),
        (0.1805, 0.1563),
        (0.1360, 0.1176),
    ),
    ("denoising", 0.5, "relu", "equilibrium"): (
        (0.2658, 0.2651),
        (0.2500, 0.2482),
        (0.2474, 0.2471),
    ),
    ("denoising", 0.5, "soft_shrinkage", "equilibrium"): ((0.2761, 0.2756), (0.2308, 0.2045)),
    ("inpainting", 0.1, "relu", "bilevel"): ((0.4830, 0.4822), (0.0784, 0.0570)),
    ("inpainting", 0.1, "relu", "equilibrium"): ((0.3772, 0.3764), (0.2124, 0.0574)),
    ("deblurring", 0.1, "relu", "bilevel"): ((0.3801, 0.3794),),
    ("deblurring", 0.1, "relu", "equilibrium"): ((0.2724, 0.2718),),
}

CASES = [
    {"task": task, "noise": noise, "tau": _TAU, "gamma": _GAMMA, "activation": activation}
    for task, noise, activation in dict.fromkeys(key[:3] for key in _LOSSES)
]


def losses(settings):
    """`(epoch, train, test)` of the authors' code for some settings, empty if they are not known.

    Args:
        settings: Those of a run; see `experiments.reproduction.grid`.
    """
    if (settings.get("tau"), settings.get("gamma"), settings["start"]) != (_TAU, _GAMMA, "random"):
        return []
    key = tuple(settings[name] for name in ("task", "noise", "activation", "model"))
    return [(epoch, *pair) for epoch, pair in enumerate(_LOSSES.get(key, ()))]
