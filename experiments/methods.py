"""The methods that are compared: one table of what each is called, and how it is drawn."""

from typing import NamedTuple


class Method(NamedTuple):
    """A method of the comparison.

    Attributes:
        key: Its name in `results.json`, in the report's style sheet and in the workspace.
        label: Its name in tables and legends.
        phrase: Its name in a sentence.
        colours: Of its curves and marks, on light and on dark paper.
        dashes: Of its curves, in units of the line's width; empty for a full line. Colour is not
            all that tells the methods apart.
        marker: At the end of its curves, as matplotlib calls it; empty if it has no curves.
    """

    key: str
    label: str
    phrase: str
    colours: tuple[str, str]
    dashes: tuple[float, ...] = ()
    marker: str = ""


_BILEVEL = Method("bilevel", "Bilevel", "the bilevel regulariser", ("#0067b0", "#62b1f2"), (), "o")

METHODS = {
    method.key: method
    for method in (
        Method("measurement", "Measurement", "the measurement", ("#85817a", "#98948c")),
        Method(
            "total_variation",
            "Total variation (tuned)",
            "total variation",
            ("#00825f", "#2bbf94"),
            (4, 1.6),
            "s",
        ),
        _BILEVEL,
        Method(
            "equilibrium",
            "Equilibrium",
            "the equilibrium model",
            ("#cc4e00", "#ff8a4a"),
            marker="D",
        ),
    )
}
# The bilevel model trained as long as the equilibrium model: it has curves, and no results.
FURTHER = _BILEVEL._replace(
    key="bilevel_further", label=f"{_BILEVEL.label}, trained further", dashes=(1.2, 1.2)
)
RECONSTRUCTIONS = tuple(key for key in METHODS if key != "measurement")
CURVES = {key: METHODS[key] for key in RECONSTRUCTIONS} | {FURTHER.key: FURTHER}
