"""Checks the pages of a built site: that they load nothing from elsewhere, and lead somewhere.

    python -m docs.check_site build/site

mkdocs has checked the links of Markdown; this reads the HTML that browsers get, with what the theme
and the reference have added.
"""

import argparse
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes from which a browser loads without being asked. (`a` and `form` wait for a click.)
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
LOADING = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "manifest"}


class Page(HTMLParser):
    """The ids of a page, what it loads and where it leads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.loads, self.links = set(), [], []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        """Takes down the start of an element."""
        attributes = dict(attrs)
        self.ids |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        if attributes.get(LOADS.get(tag)):
            self.loads.append(attributes[LOADS[tag]])
        if tag == "link" and LOADING & set((attributes.get("rel") or "").split()):
            self.loads.append(attributes.get("href") or "")
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])


def check(site):
    """`(pages, wrong)`: the pages of a site, and what is wrong with them, a line each."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        if name == "404.html":  # its links begin with the address of the site
            continue
        for load in page.loads:
            parts = urlsplit(load)
            if parts.scheme not in ("", "data") or parts.netloc:
                found.append(f"{name} loads {load}")
            elif not parts.scheme and not (path.parent / unquote(parts.path)).exists():
                found.append(f"{name} loads {load}, which is not there")
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not there.exists():
                found.append(f"{name} leads to {link}, which is not there")
            elif parts.fragment and there in pages:
                if unquote(parts.fragment) not in pages[there].ids:
                    found.append(f"{name} leads to {link}, where there is no such heading")
    for path in site.rglob("*.css"):
        if "//fonts." in path.read_text("utf-8"):
            found.append(f"{path.relative_to(site)} loads fonts from elsewhere")
    return pages, found


def main():
    """Prints what is wrong, and ends with 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    pages, found = check(parser.parse_args().site.resolve())
    print(
        "\n".join(found) or f"{len(pages)} pages: all links lead somewhere, nothing from elsewhere"
    )
    sys.exit(bool(found) or not pages)


if __name__ == "__main__":
    main()
