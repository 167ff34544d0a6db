"""Grading: (sample, completion) -> Grade, pure; rewards and evaluation call the same functions."""
