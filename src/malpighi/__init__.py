"""Malpighi builds, examines and runs reasoning pathology co-pilots. Research use; not a medical device."""

__version__ = "0.1.0"
