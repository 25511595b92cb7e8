"""Adapters to models. They import core only; the composition root imports each when it is first used."""
