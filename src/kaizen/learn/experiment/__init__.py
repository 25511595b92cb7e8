"""Experiments: two versions side by side on live traffic, judged by a test that may be looked at at any time."""
