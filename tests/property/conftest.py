"""Hypothesis for this folder: no deadline per example, because machines that run tests are busy."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
