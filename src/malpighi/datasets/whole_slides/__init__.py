"""Adapters of data sets of whole slides: what is asked of a slide, and where its answer stands."""
