"""Public data sets of cytology: one file per data set, and a lexicon of their Chinese terms."""
