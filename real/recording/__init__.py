"""Recording episodes as MCAP while they happen, reading and recovering them, and turning them into datasets."""
