"""Public data sets of regions whose question is a class: one file per data set."""
