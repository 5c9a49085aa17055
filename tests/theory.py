"""Run the tests of the modules that need no torch and no Jupyter, with whatever versions are installed here.

For the oldest and the newest releases of what the package needs, where the book's own tools are not at hand:
``python tests/theory.py``, with torch, pytest, hypothesis, mpmath, pandas, dask and IPython beside the package.
"""

import os
import sys
from pathlib import Path

import pytest

THEORY = ("validation", "moments", "ppca", "linear_vae", "spectrum", "bernoulli", "exact", "plots")

if __name__ == "__main__":
    folder = Path(__file__).parent
    sys.exit(
        pytest.main(["-q", "-c", os.devnull, "--noconftest", *(str(folder / f"test_{name}.py") for name in THEORY)])
    )
