"""Training: the recipes that make the checkpoints."""
