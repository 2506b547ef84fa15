"""The pure core: mounts, options, states, the plan, the errors. No I/O, no clock."""
