"""The calls of docker/serving/README.md for Triton, run as they are but for ports and the name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

README = Path(__file__).resolve().parents[2] / "docker" / "serving" / "README.md"


def blocks():
    """`(language, text)` of each block of the section that calls a server that runs."""
    section = README.read_text("utf-8").split("## NVIDIA Triton\n")[1].split("## Kubernetes")[0]
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.M | re.S):
        if language == "python" or "/infer" in text:
            yield language, text


def run_all(server, model, folder):
    """Runs each block in a folder; returns what was wrong with it, a line each.

    Args:
        server: A `TritonServer` that is ready.
        model: The name of a model of grey images, in place of the README's.
        folder: An empty folder, which gets `noisy.png`.
    """
    image = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    Image.fromarray(image).save(folder / "noisy.png")
    environment = {
        **os.environ,
        "PYTHONWARNINGS": "error",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    programs = {"python": [sys.executable, "-c"], "sh": ["bash", "-euc"]}
    problems, count = [], 0
    for language, text in blocks():
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.http_port}")
        text = text.replace("127.0.0.1:8001", f"127.0.0.1:{server.grpc_port}")
        done = subprocess.run(
            [*programs[language], text.replace("denoiser", model)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        count += 1
        if done.returncode or not done.stdout.strip():
            first = text.splitlines()[0]
            problems.append(f"README: {first} … ended with {done.returncode}: {done.stderr[-400:]}")
    restored = folder / "restored.png"
    if not restored.is_file() or Image.open(restored).size != (64, 48):
        problems.append("README: no restored.png of the size of noisy.png")
    if count < 3:
        problems.append(f"README: expected three calls or more, found {count}")
    return problems
