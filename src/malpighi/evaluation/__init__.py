"""The examination wing: predictions, metrics, intervals and tests, tables and the report."""
