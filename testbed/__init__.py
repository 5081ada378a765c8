"""The known-answer machine: numabench on simulated NUMA hardware whose latencies are given, and held against them.

Development only: numabench never imports it and knows nothing of it. docs/testbed.md is the manual.
"""
