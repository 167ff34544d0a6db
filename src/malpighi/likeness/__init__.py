"""Likeness: fingerprints of pictures, words and sources, and the search for those that are the same."""
