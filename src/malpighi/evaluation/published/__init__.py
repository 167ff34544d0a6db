"""Published numbers as data: recomputed from their rows, and set beside a run of ours."""
