"""Engines: three ways to run a plan, with the same results."""
