"""Labelled rows, where they come from, and how they are kept and parted."""
