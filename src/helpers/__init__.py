"""Helpers of the executable book on posterior collapse: small modules named after the mathematics.

Import the module that a chapter is about, for instance ``from helpers import ppca``; this file loads nothing,
so that the linear chapters never wait for a deep-learning library.

The modules stand in layers, and each imports from the layers below its own alone::

    8  cli
    7  studies  diagnose_cli  monitor
    6  experiments  long_runs  diagnose  report
    5  train  plans  residual  verdict
    4  linear_vae  scorecard  standing  data  lockstep  checkpoint  evaluation  reconstructions  plots  forecast  codes
    3  ppca  bernoulli  objective  ledger  records  celeba  ensemble  collapse  _models
    2  moments  spectrum  exact  vae  _files  _networks
    1  _validation

A study goes down the right-hand side: `studies` finds its plan in `plans`; `experiments` has `train` train it, an
`ensemble` in `lockstep`, has it measured by `evaluation`, and makes of both what `records` keeps.
"""
