"""Helpers of the executable book on posterior collapse: small modules named after the mathematics.

Import the module that a chapter is about, for instance ``from helpers import ppca``; this file loads nothing,
so that the linear chapters never wait for a deep-learning library.
"""
