"""Adapters: one module for each thing outside of the agent. Nothing else touches the world."""
