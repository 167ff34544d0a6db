"""Slides: readers, tissue, tiles, the view through a token budget, cells, formats of others."""
