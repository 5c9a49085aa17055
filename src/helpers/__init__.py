"""Helpers of the executable book on posterior collapse: small modules named after the mathematics.

Import the module that a chapter is about, for instance ``from helpers import ppca``; this file loads nothing,
so that the linear chapters never wait for a deep-learning library.

The modules stand in layers, and each imports from the layers below its own alone::

    8  cli
    7  studies
    6  experiments  long_runs
    5  train  plans
    4  linear_vae  scorecard  standing  data  lockstep  checkpoint  evaluation  reconstructions
    3  ppca  bernoulli  objective  ledger  records  celeba  ensemble  plots
    2  moments  spectrum  collapse  exact  vae  _files
    1  _validation

A study goes down the right-hand side: `studies` finds its plan in `plans`; `experiments` has `train` train it, an
`ensemble` in `lockstep`, has it measured by `evaluation`, and makes of both what `records` keeps.
"""
