"""Caches: answers that may be dropped at any time, in this process, on this machine, or shared by machines."""
