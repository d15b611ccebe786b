"""The demo: both methods on the photographs that scikit-image ships, in some minutes.

python -m experiments.compare --config=experiments/configs/demo.py --workdir=runs/demo

Takes about 5 minutes on two cores. Reached (PSNR in dB; total variation, bilevel, equilibrium):
denoising 29.24, 29.53, 29.79; inpainting 29.58, 30.18, 30.37; deconvolution 30.43, 30.62, 30.61.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.tasks = ("denoising", "inpainting", "deblurring")
    config.seed = 0

    config.data = data = ConfigDict()
    data.data_dir = ""  # a folder of PNG or JPEG images; empty: the photographs of scikit-image
    data.channels = 1
    data.max_side = 256  # larger photographs are shrunk
    data.patch_size = 64

    config.denoising = ConfigDict()
    config.denoising.noise = 0.1  # standard deviation on [0, 1]

    config.inpainting = ConfigDict()
    config.inpainting.keep = 0.5  # share of pixels that are measured
    config.inpainting.noise = 0.05

    config.deblurring = ConfigDict()
    config.deblurring.kernel_size = 9
    config.deblurring.stddev = 1.6  # of the Gaussian kernel, in pixels
    config.deblurring.noise = 0.02

    config.total_variation = ConfigDict()
    config.total_variation.smoothing = 0.01

    config.prior = prior = ConfigDict()
    prior.filters = 24
    prior.kernel_size = 5
    prior.padding = "reflect"  # how filters see the boundary; "circular", "zero" and "valid" too
    prior.activation = "tanh"
    prior.sharpness = 500.0
    prior.max_sharpness = 2000.0
    prior.filters_initializer = "dct"

    config.train = train = ConfigDict()
    train.steps = 60  # of the bilevel model
    train.further_steps = 60  # of the equilibrium model, and of the bilevel model once more
    train.batch_size = 8
    train.learning_rate = 0.03
    train.further_learning_rate = 0.01
    train.tolerance = 1e-4  # of forward solves: ||grad E(u)|| <= tolerance ||K^T y||
    train.adjoint_tolerance = 1e-2
    train.equilibrium_solver = "anderson"

    config.evaluate = ConfigDict()
    # Fixed training patches: weights are tuned on them, and training losses compared.
    config.evaluate.training_batches = 4
    config.evaluate.pictures = 3
    return config
