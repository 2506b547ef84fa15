"""The second floor: one module for each thing outside the agent. Only doors touch the world."""
