"""HOW it is measured: clocks, memory, ceilings, contamination, environment."""
