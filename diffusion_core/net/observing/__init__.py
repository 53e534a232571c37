"""What an administrator sees of the server: log lines, metrics, live load, traces."""
