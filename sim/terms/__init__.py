"""Terms: pure functions of channels, one quantity each."""
