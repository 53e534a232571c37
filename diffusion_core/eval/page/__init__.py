"""Results as an HTML page, beside what the paper reports."""
