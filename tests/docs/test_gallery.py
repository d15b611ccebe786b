"""The gallery: its examples compile and are listed, and run as they stand (slow)."""

import subprocess
import sys
from pathlib import Path

import pytest

from docs import build_gallery, check_site

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = build_gallery.scripts()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example_is_well_formed(script):
    source = script.read_text("utf-8")
    title, introduction = build_gallery.docstring(source)
    assert title
    assert introduction
    cells = build_gallery.cells(source)
    assert "".join(text for _, kind, text in cells if kind == "code")
    for line, kind, text in cells:
        assert source.splitlines()[line:][:1] == ["# " + text.splitlines()[0]] or kind == "code"
        if kind == "code":
            compile(text, str(script), "exec")
            assert "savefig" not in text or ".png" in text
    assert "savefig" in source  # each has a figure
    for link in ("http:", "https:"):
        assert link not in source


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example_runs(script, tmp_path):
    assert build_gallery.build(script, tmp_path)
    page = (tmp_path / f"{script.stem}.md").read_text("utf-8")
    figures = sorted(tmp_path.glob("*.png"))
    assert figures
    for figure in figures:
        assert f"]({figure.name})" in page
    # With the same code and library it is not run again.
    assert not build_gallery.build(script, tmp_path)


def test_an_example_that_fails_is_named_with_its_line(tmp_path):
    script = build_gallery.EXAMPLES / "broken.py"
    text = '"""Broken\n\nOn purpose.\n"""\n\n# %%\nfine = 1\n\n# %%\nprint(missing)\n'
    folder = tmp_path / "docs"
    folder.mkdir()
    script = folder / "broken.py"
    script.write_text(text)
    with pytest.raises(SystemExit, match=r"broken.py failed:[\s\S]*line 10[\s\S]*missing"):
        build_gallery.build(script, tmp_path)


PAGE = '<html><body><h1 id="top">x</h1>{}</body></html>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('<a href="other.html#there">x</a>', None),
        ('<a href="https://example.org">x</a>', None),
        ('<img src="data:image/png;base64,AA==">', None),
        ('<img src="https://example.org/a.png">', "index.html loads https://example.org/a.png"),
        ('<script src="//cdn.example.org/x.js"></script>', "loads //cdn.example.org/x.js"),
        ('<link rel="stylesheet" href="//fonts.example.org/x.css">', "loads //fonts.example.org"),
        ('<img src="missing.png">', "loads missing.png, which is not there"),
        ('<a href="gone.html">x</a>', "leads to gone.html, which is not there"),
        ('<a href="other.html#gone">x</a>', "where there is no such heading"),
        ('<a href="#gone">x</a>', "where there is no such heading"),
    ],
)
def test_pages_that_load_or_lead_elsewhere_are_found(tmp_path, content, message):
    (tmp_path / "index.html").write_text(PAGE.format(content))
    (tmp_path / "other.html").write_text(PAGE.format('<p id="there"></p>'))
    pages, found = check_site.check(tmp_path)
    assert len(pages) == 2
    if message is None:
        assert found == []
    else:
        assert len(found) == 1
        assert message in found[0]


def test_the_example_of_the_readme_is_printed():
    command = [sys.executable, str(ROOT / "docs" / "readme_example.py")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "import deq_keras as dk" in text
    assert "```" not in text
    compile(text, "README.md", "exec")
