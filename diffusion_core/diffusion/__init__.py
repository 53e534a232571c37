"""The forward process, its losses and its bounds: free functions over tensors, no model."""
