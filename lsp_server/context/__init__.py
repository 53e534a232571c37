"""What the engine is shown of a project."""
