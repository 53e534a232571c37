"""Measurements of speed for `unmask bench`: decoding, latency and throughput, each beside what the memory allows."""
