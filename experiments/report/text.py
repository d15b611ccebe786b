"""Text of the report: names and numbers as a reader wants them; what is missing is a dash."""

import html
import math

from experiments.methods import METHODS

DASH = "–"
MINUS = "−"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def escape(value):
    """`value` as text that is safe between tags and in a quoted attribute."""
    return html.escape(str(value), quote=True)


def label(task, method):
    """What a reader calls `method`: the task's own label, or the usual name."""
    own = (task.get("methods", {}).get(method) or {}).get("label")
    return own or (METHODS[method].label if method in METHODS else method.capitalize())


def finite(value):
    """`value` as a float, and None if it is missing, not a number or infinite."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def decimals(value, digits=2, scale=1.0):
    """`value * scale` with `digits` decimals, or a dash."""
    value = finite(value)
    return DASH if value is None else f"{value * scale:.{digits}f}".replace("-", MINUS)


def significant(value, digits=3, scale=1.0):
    """`value * scale` with `digits` significant digits, in powers of ten if it is far from 1."""
    value = finite(value)
    if value is None:
        return DASH
    value *= scale
    size = abs(value)
    if size and not 1e-3 <= size < 1e6:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}×10{str(int(power)).translate(_SUPERSCRIPT)}".replace("-", MINUS)
    places = max(0, digits - 1 - math.floor(math.log10(size))) if size else 0
    return f"{value:.{places}f}".replace("-", MINUS)


def tick(value, powers=False):
    """A short label for an axis: 0.02 or, with `powers` or far from 1, 2×10⁻²."""
    if value == 0 or (1e-3 <= abs(value) < 1e4 and not powers):
        return f"{value:.6g}".replace("-", MINUS)
    mantissa, power = f"{value:.3e}".split("e")
    mantissa = f"{float(mantissa):g}"
    head = "" if mantissa == "1" else f"{mantissa}×"
    return f"{head}10{str(int(power)).translate(_SUPERSCRIPT)}".replace("-", MINUS)


def percent(value):
    """A share on [0, 1] as a percentage; only what is complete is 100 %."""
    value = finite(value)
    if value is None:
        return DASH
    rounded = round(100 * value)
    return f"{99 if rounded == 100 and value < 1 else rounded} %"


def integer(value):
    """A count with thin spaces between the thousands, or a dash."""
    value = finite(value)
    return DASH if value is None else f"{round(value):,}".replace(",", "\u202f")


def duration(seconds):
    """A length of time in the unit that suits it."""
    seconds = finite(seconds)
    if seconds is None:
        return DASH
    for size, unit in ((7200, 3600), (120, 60), (1, 1)):
        if seconds >= size:
            return f"{significant(seconds / unit)} { {3600: 'h', 60: 'min', 1: 's'}[unit] }"
    return f"{significant(1000 * seconds)} ms"


def lowered(title):
    """A title inside a sentence: "denoising", but "MRI"."""
    title = str(title)
    return title if title[1:2].isupper() else title[:1].lower() + title[1:]


def listing(words):
    """`["a", "b", "c"]` as "a, b and c"."""
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
