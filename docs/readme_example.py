"""Prints the Python code of README.md: `python docs/readme_example.py > example.py`."""

import re
from pathlib import Path


def main():
    """Prints the blocks, one after the other."""
    text = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
    print("\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M)))


if __name__ == "__main__":
    main()
