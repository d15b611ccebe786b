"""Hooks of mkdocs: pages that are not in docs/, links out of it, and llms.txt.

- `index.md` is README.md, and CONTRIBUTING.md, CHANGELOG.md and the pages of docker/ are taken in.
- `api/` has a page for each public module, with what its `__all__` names.
- `gallery/` has the pages that `python -m docs.build_gallery` has written into build/gallery.
- A link to a file of the repository that is no page becomes its name.
"""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
GALLERY = ROOT / "build" / "gallery"
TAKEN_IN = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docker/README.md": "docker.md",
    "docker/serving/README.md": "docker-serving.md",
}
_ORIGIN = {page: origin for origin, page in TAKEN_IN.items()}
_FENCE = re.compile(r"(^```.*?^```$)", re.S | re.M)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_config(config):
    """Puts the pages that are made where the nav says `api/` and `gallery/`."""
    names = (ROOT / "docs" / "gallery" / "order.txt").read_text("utf-8").split()
    made = {
        "api/": [{f"dk.{name}": f"api/{name}.md"} for name in public_modules()],
        "gallery/": [f"gallery/{name}.md" for name in names],
    }
    for entry in config.nav:
        ((title, pages),) = entry.items()
        if isinstance(pages, str) and pages in made:
            entry[title] = [f"{pages}index.md", *made[pages]]
    return config


def on_files(files, config):
    """Adds the pages that are made."""
    for origin, page in TAKEN_IN.items():
        text = (ROOT / origin).read_text("utf-8")
        files.append(File.generated(config, page, content=text))
    for name, text in reference().items():
        files.append(File.generated(config, f"api/{name}.md", content=text))
    made = sorted(GALLERY.glob("*.*"))
    if not (GALLERY / "index.md").exists():
        raise PluginError("There is no gallery yet: run python -m docs.build_gallery.")
    for path in made:
        if path.suffix in (".md", ".png"):
            files.append(File.generated(config, f"gallery/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Takes links as the repository has them to where the site has what they lead to."""
    uri = page.file.src_uri
    origin = _ORIGIN.get(uri, f"docs/{uri}")
    parts = _FENCE.split(markdown)

    def moved(match):
        mark, text, target = match.groups()
        path, hash_, heading = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return match.group()
        named = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        there = TAKEN_IN.get(named, named.removeprefix("docs/"))
        if files.get_file_from_path(there):
            there = posixpath.relpath(there, posixpath.dirname(uri) or ".")
            return f"{mark}[{text}]({there}{hash_}{heading})"
        if (ROOT / named).exists():
            return f"`{named}`" if text == posixpath.basename(named) else f"{text} (`{named}`)"
        return match.group()  # mkdocs says that it leads nowhere

    outside = [_LINK.sub(moved, part) if i % 2 == 0 else part for i, part in enumerate(parts)]
    return "".join(outside)


def on_post_build(config):
    """Writes llms.txt, a list of the pages with what each is about, and llms-full.txt."""
    site = Path(config.site_dir)
    listed, full = [], []
    for title, uri in _pages(config.nav):
        origin = _ORIGIN.get(uri, f"docs/{uri}")
        path = GALLERY / Path(uri).name if uri.startswith("gallery/") else ROOT / origin
        if uri.startswith("gallery/") and path.exists():
            title = path.read_text("utf-8").split("\n", 1)[0].removeprefix("# ")
        if uri.startswith("api/") or not path.exists():
            listed.append(f"- [{title}]({uri.removesuffix('.md')}.html)")
            continue
        text = path.read_text("utf-8")
        listed.append(f"- [{title}]({uri.removesuffix('.md')}.html): {_first_sentence(text)}")
        full.append(f"<!-- {uri} -->\n\n{text.strip()}\n")
    head = f"# {config.site_name}\n\n> {config.site_description}.\n\n"
    (site / "llms.txt").write_text(head + "\n".join(listed) + "\n", "utf-8")
    (site / "llms-full.txt").write_text(head + "\n".join(full), "utf-8")


def public_modules():
    """The public modules of the library, in the order of its `__all__`."""
    return [name for name in _all_of(ROOT / "deq_keras" / "__init__.py") if name[0] != "_"]


def reference():
    """The pages of the reference: from a name to the text."""
    pages = {}
    lines = []
    for module in public_modules():
        folder = ROOT / "deq_keras" / module
        path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        head = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        sentence = head.splitlines()[0]
        members = sorted(_all_of(path), key=str.lower)
        blocks = [f"::: deq_keras.{module}.{member}" for member in members]
        pages[module] = f"# deq_keras.{module}\n\n{sentence}\n\n" + "\n\n".join(blocks) + "\n"
        lines.append(f"| [`dk.{module}`]({module}.md) | {sentence.replace('|', chr(92) + '|')} |")
    pages["index"] = (
        "# Reference\n\nEvery public name, from the docstrings, whose examples the tests run. "
        "`dk` is `import deq_keras as dk`.\n\n| Module | |\n|---|---|\n" + "\n".join(lines) + "\n"
    )
    return pages


def _all_of(path):
    """The names in `__all__` of a file, or if it has none its public classes and functions."""
    body = ast.parse(path.read_text("utf-8")).body
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    defined = ast.ClassDef | ast.FunctionDef
    return [node.name for node in body if isinstance(node, defined) and node.name[0] != "_"]


def _pages(nav):
    """The pages of a nav as `(title, page)`, in order."""
    for entry in nav:
        if isinstance(entry, str):
            path = Path(entry)
            name = path.parent.name if path.stem == "index" else path.stem
            yield name.capitalize().replace("_", " "), entry
            continue
        ((title, inside),) = entry.items()
        if isinstance(inside, str):
            yield title, inside
        else:
            yield from _pages(inside)


def _first_sentence(text):
    """What a page is about: its first paragraph up to the first full stop."""
    for paragraph in re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M).split("\n\n"):
        paragraph = " ".join(paragraph.split())
        if re.match(r"[A-Za-z`*]", paragraph):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
            return re.split(r"(?<=[.:])\s", plain)[0].rstrip(":.") + "."
    return ""
