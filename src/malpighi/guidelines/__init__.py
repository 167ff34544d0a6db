"""Observations of a cell, guidelines as data, and the engine that reasons from the ones to the others."""
