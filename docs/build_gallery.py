"""Runs the examples of docs/gallery, and writes a page of each with its figures.

    python -m docs.build_gallery [NAME...] [--output=build/gallery]

An example is a Python file: its docstring is the title and the introduction, lines after
`# %% [markdown]` are text, and lines after `# %%` are code. It also runs by itself. Each runs in a
process and a folder of its own; what a cell prints, and the PNG files that it writes, are shown
below it. One that has run before with the same code and the same library is not run again.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "gallery"
ORDER = "order.txt"  # of the gallery's page


def cells(source):
    """The parts of an example after its docstring: `(line, kind, text)`, kind "code" or "text"."""
    found = []
    for match in re.finditer(r"^# %%(.*)\n((?:(?!# %%).*\n?)*)", source, re.M):
        line = source.count("\n", 0, match.start(2))
        body = match.group(2)
        if "[markdown]" in match.group(1):
            text = re.sub(r"^# ?", "", body, flags=re.M)
            found.append((line, "text", text.strip()))
        else:
            found.append((line, "code", body.strip("\n")))
    return found


def docstring(source):
    """`(title, introduction)`."""
    text = re.match(r'"""(.*?)"""', source, re.S).group(1).strip()
    title, _, rest = text.partition("\n")
    return title.rstrip("."), rest.strip()


def execute(script, folder):
    """Runs the cells of an example in a folder; returns the page and the names of its pictures."""
    source = script.read_text("utf-8")
    title, introduction = docstring(source)
    parts, pictures = [f"# {title}", introduction], []
    namespace = {"__name__": "__main__", "__file__": str(script)}
    os.chdir(folder)
    begin = time.process_time()
    for line, kind, text in cells(source):
        if kind == "text":
            parts.append(text)
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            # Empty lines in front, so that an error names the line of the file.
            exec(compile("\n" * line + text, str(script), "exec"), namespace)
        parts.append(f"```python\n{text}\n```")
        if printed.getvalue().strip():
            parts.append(f"```text\n{printed.getvalue().rstrip()}\n```")
        for path in sorted(Path().glob("*.png"), key=lambda p: p.stat().st_mtime_ns):
            if path.name not in pictures:
                pictures.append(path.name)
                parts.append(f"![{title}: {path.stem}]({script.stem}-{path.name})")
    seconds = time.process_time() - begin
    parts.append(
        f"*`{script.relative_to(ROOT).as_posix()}`, {max(seconds, 1):.0f} s of processor time.*"
    )
    return "\n\n".join(part for part in parts if part) + "\n", pictures


def build(script, output):
    """Makes the page of an example, unless it is there already; returns whether it ran.

    Raises:
        SystemExit: If the example fails, with what it said.
    """
    digest = _digest(script)
    record = output / f"{script.stem}.json"
    if record.exists() and json.loads(record.read_text("utf-8"))["digest"] == digest:
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "docs.build_gallery", "--execute", str(script)]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", **os.environ}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        command += ["--output", folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise SystemExit(f"{script.name} failed:\n{done.stdout}\n{done.stderr[-6000:]}")
        made = json.loads((Path(folder) / "page.json").read_text("utf-8"))
        for name in made["pictures"]:
            (output / f"{script.stem}-{name}").write_bytes((Path(folder) / name).read_bytes())
    (output / f"{script.stem}.md").write_text(made["page"], "utf-8")
    kept = {"digest": digest, "pictures": made["pictures"]}
    record.write_text(json.dumps(kept), "utf-8")
    return True


def _digest(script):
    """A number for an example and the library that it runs with."""
    digest = hashlib.sha256(script.read_bytes())
    for path in (Path(__file__), *sorted((ROOT / "deq_keras").rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def scripts():
    """The examples, in the order of the gallery."""
    names = (EXAMPLES / ORDER).read_text("utf-8").split()
    found = {path.stem for path in EXAMPLES.glob("*.py")}
    if found != set(names):
        raise SystemExit(f"docs/gallery/{ORDER} and the examples differ: {found ^ set(names)}")
    return [EXAMPLES / f"{name}.py" for name in names]


def index(output):
    """Writes the page of the gallery: each example with its first figure."""
    cards = []
    for script in scripts():
        title, introduction = docstring(script.read_text("utf-8"))
        made = json.loads((output / f"{script.stem}.json").read_text("utf-8"))
        first = made["pictures"][:1]
        image = f'<img src="{script.stem}-{first[0]}" alt="">' if first else ""
        about = " ".join(introduction.split("\n\n")[0].split()).replace("`", "")
        cards.append(f'<a href="{script.stem}.html">{image}<b>{title}</b><span>{about}</span></a>')
    text = "# Gallery\n\nExamples that run as they stand, each in a minute at most on two cores, "
    text += "most in some seconds. The tests run them, and the figures are of the last run.\n\n"
    text += '<div class="gallery">\n' + "\n".join(cards) + "\n</div>\n"
    (output / "index.md").write_text(text, "utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="examples; all if none is named")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "gallery")
    parser.add_argument("--execute", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.execute:
        page, pictures = execute(arguments.execute, arguments.output)
        Path("page.json").write_text(json.dumps({"page": page, "pictures": pictures}), "utf-8")
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    for script in scripts():
        if not arguments.names or script.stem in arguments.names:
            print(
                script.stem, "ran" if build(script, arguments.output) else "as it was", flush=True
            )
    if not arguments.names:
        index(arguments.output)


if __name__ == "__main__":
    main()
