"""One file a request: adapters from LSP parameters to the parts that do the work."""
