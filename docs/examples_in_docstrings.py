"""Examples of docstrings as blocks of code: Markdown would take their `>>>` for quotations."""

import re

import griffe

_EXAMPLE = re.compile(r"^(>>> .*(?:\n(?!\s*$).*)*)", re.M)


def fenced(text):
    """A docstring with each of its examples in a block of code."""
    text = _EXAMPLE.sub(r"```pycon\n\1\n```", text)
    text = re.sub(r"  # doctest: .*$", "", text, flags=re.M)
    return re.sub(r"^Example:$", "**Example**", text, flags=re.M)


class ExamplesInDocstrings(griffe.Extension):
    """Changes docstrings as they are read, before they are split into sections."""

    def on_instance(self, *, obj, **kwargs):
        if not obj.is_alias and obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
