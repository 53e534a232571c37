"""Corpora: where training texts come from, what is made of them, and how they reach the trainer."""
