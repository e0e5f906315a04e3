"""Domain randomisation: what may vary, how it is drawn, and how it reaches the worlds; `sim.randomize` is the front."""
