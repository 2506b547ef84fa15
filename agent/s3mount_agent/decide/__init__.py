"""What is decided: the plan, a mount's life, when it hangs, when it is tried again, what is told.
Pure functions: no I/O, no clock."""
