"""The Unmask language server: it turns key strokes and instructions into requests for an engine.

It never imports torch, and importing this package imports nothing else: start-up is a promise (half a second).
"""
