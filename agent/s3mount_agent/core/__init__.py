"""The words of the house: mounts, options, roles, states, errors. No I/O, no clock."""
