"""Objectives: what one training step minimises, a stage of the recipe each."""
