"""Training: alignment and supervised stages, reinforcement, and the classifier to compare with."""
