"""Optimizers: searches over a program's params, each within a budget and resumable, that keep what they tried."""
