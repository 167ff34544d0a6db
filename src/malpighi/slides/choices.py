"""Choices that the command line offers by name; importing them costs nothing."""

from enum import StrEnum


class Edges(StrEnum):
    """What becomes of tiles that reach over the right and lower edge."""

    DROP = "drop"  # only whole tiles
    PAD = "pad"  # kept; what lies outside is background
    SHIFT = "shift"  # moved inwards, so that the slide is covered by whole tiles


class Layout(StrEnum):
    """Whose files of coordinates."""

    CLAM = "clam"
    TRIDENT = "trident"
