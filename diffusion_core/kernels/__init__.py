"""Forwards and products for CPUs with AMX, compiled on the machine that runs them; without a compiler torch serves."""
