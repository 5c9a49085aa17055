# ---
# jupyter:
#   jupytext:
#     cell_markers: r"""
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
r"""
# Title of the chapter

What the reader will see, in two or three sentences.

> **In short**
>
> - What is shown, in three to five points.
> - The one formula.
> - For your VAE: what it means for somebody who trains one.

**You need**: what to have read before. **Time to run**: under 10 seconds on a laptop; no GPU needed.

Run it in Colab: not yet, since the book has no public address; [how to give it one](../book/reproduce.md).
"""

# %%
# Where the book's package is missing, as in a fresh Colab, fetch it. What is installed already stays as it is.
import importlib.util
import os
import subprocess
import sys

repository = os.environ.get("BOOK_REPOSITORY", "")
found = importlib.util.find_spec("helpers")
if found is not None and not found.submodule_search_locations:
    raise ImportError(f"{found.origin} is found in place of the book's package `helpers`; rename or move it")
if found is None and not repository:
    raise ModuleNotFoundError(
        "no package `helpers`: run `pip install .` in a clone of the book, or set BOOK_REPOSITORY to its address"
    )
if found is None:
    address = f"git+{repository.removeprefix('git+')}"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", address, "python-flint", "sympy"], check=True)

# %% tags=["parameters"]
profile = "quick"

# %%
import numpy as np

from helpers.ledger import Ledger

ledger = Ledger("NN_name")

# %% [markdown]
r"""
## A section

### Equation 5

**The paper says** …

**Derivation.** …

> **Theorem 5.1** (Its name). *What is true.*

**Proof.** … $\square$
"""

# %% tags=["hide-cell"]
value = np.array([1.0, 2.0]) @ np.array([3.0, 4.0])
ledger.check(5, "what is compared with what", "algebra", value, 11.0, tolerance=1e-12)

# %% [markdown]
r"""
## What we showed

## Exercises

**Exercise 5.1. Its title.** …
"""

# %% tags=["hide-cell"]
# How it is solved, and then a cell that runs.

# %% [markdown]
r"""
## References

[Lucas et al., 2019](../book/references.md)

## Versions
"""

# %% tags=["nbval-ignore-output"]
import platform
from importlib.metadata import version

print("python", platform.python_version())
for name in ("numpy", "scipy", "matplotlib", "scikit-learn"):
    print(name, version(name))
