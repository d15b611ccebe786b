"""Picture of README.md: a photograph, denoised by the models of `make demo`.

    python -m docs.picture --workdir=runs/demo --output=docs/images/denoising.png

What the demo has trained is loaded, and what it has not is trained first: some minutes.
"""

import argparse
from pathlib import Path

from experiments import command_line  # noqa: F401  It chooses Keras's backend, so it comes first.

# isort: split
import keras
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from experiments import comparison, inverse_problem, tasks
from experiments.configs import demo
from experiments.workspace import Workspace

PHOTOGRAPH = "camera"
TOP, LEFT, SIDE = 16, 70, 104  # of the detail that is shown, in pixels
ENLARGE, GAP, CAPTION = 2, 8, 44


def restored(workdir):
    """What is shown: from a title to `(picture, PSNR of the whole photograph or None)`."""
    config = demo.get_config()
    keras.utils.set_random_seed(config.seed)
    images = inverse_problem.load_images(config)
    task = tasks.get("denoising", config)
    work = comparison.Comparison(task, config, images, Workspace(workdir, config.to_dict()))
    start, _ = work.bilevel_first()
    layers = {
        "Noisy": None,
        "Total variation": work.total_variation_tuned()[0],
        "Bilevel": work.bilevel_further(start)[0],
        "Equilibrium": work.equilibrium_further(start)[0],
    }
    number = list(images["test"].names).index(PHOTOGRAPH)
    found = {}
    for title, layer in layers.items():
        row, estimates, _ = work.evaluate(layer)
        found[title] = estimates[number][..., 0], row["images"][number]["psnr"]
    found["Truth"] = work.test[number][1].numpy()[0, ..., 0], None
    return found


def draw(found):
    """The details side by side, each with its title, as an image in grey levels."""
    panel = SIDE * ENLARGE
    sheet = Image.new("L", (len(found) * (panel + GAP) - GAP, panel + CAPTION), 255)
    pen, font = ImageDraw.Draw(sheet), _font(16)
    for place, (title, (picture, psnr)) in enumerate(found.items()):
        detail = picture[TOP : TOP + SIDE, LEFT : LEFT + SIDE]
        pixels = np.uint8(np.round(255 * np.clip(detail, 0.0, 1.0)))
        pixels = pixels.repeat(ENLARGE, axis=0).repeat(ENLARGE, axis=1)
        left = place * (panel + GAP)
        sheet.paste(Image.fromarray(pixels), (left, 0))
        lines = title if psnr is None else f"{title}\n{psnr:.2f} dB"
        middle = (left + panel // 2, panel + 4)
        pen.multiline_text(middle, lines, fill=0, font=font, anchor="ma", align="center")
    return sheet


def _font(size):
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), size)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", default="runs/demo", help="what make demo has written")
    parser.add_argument("--output", default="docs/images/denoising.png")
    arguments = parser.parse_args()
    draw(restored(arguments.workdir)).save(arguments.output, optimize=True)
    print(arguments.output)


if __name__ == "__main__":
    main()
