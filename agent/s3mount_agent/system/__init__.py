"""Adapters: one module for each thing outside of the agent, but for files and mounts, which have a
room of their own (filesystem/). Nothing else touches the world."""
