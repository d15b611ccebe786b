"""A page of HTML as tests look at it."""

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "img"}


class Page(HTMLParser):
    """The elements and the text of a page; fails if a tag is not closed where it should be."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.source, self.open, self.elements, self.text = text, [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def words(self):
        return " ".join("".join(self.text).split())

    def check_complete(self):
        """Fails if the page needs anything that is not in it, or links to a place it lacks."""
        for image in self.all("img"):
            assert image["src"].startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
            assert image["alt"].strip()
        for name, attrs in self.elements:
            for key in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                link = attrs.get(key)
                if link and not link.startswith(("data:", "#")):
                    assert (name, link) == ("a", "https://arxiv.org/abs/2206.13193")
        assert not re.search(r"url\((?!#)|@import", self.source)
        assert "link" not in {name for name, _ in self.elements}
        ids = [attrs["id"] for _, attrs in self.elements if "id" in attrs]
        assert len(set(ids)) == len(ids)
        targets = [a["href"][1:] for a in self.all("a") if a["href"].startswith("#")]
        targets += [u["xlink:href"][1:] for u in self.all("use")]
        targets += re.findall(r"url\(#([^)]*)\)", self.source)
        assert set(targets) <= set(ids)
        assert "nan" not in self.words.lower().split()
