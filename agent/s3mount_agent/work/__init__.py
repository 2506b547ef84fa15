"""The third floor: what the agent does, told in terms of the model and through the doors."""
