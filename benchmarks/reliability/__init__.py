"""Reliability: what a server endures, and what its good clients notice of it.

``python -m benchmarks.reliability`` has a command for each promise; what each prints is a Markdown table for
``docs/reliability.md``, and its exit status is 1 if a promise was broken.  They run on Linux.
"""
