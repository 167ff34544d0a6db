"""Synthetic cells, regions and slides whose ground truth is measured, not promised."""
