"""Adapters: public data sets on disk to records, with licence, expected counts, split rule and groups."""
