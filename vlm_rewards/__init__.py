"""Critics: judges of progress that look at frames and an instruction, and what makes a reward of their answers."""
