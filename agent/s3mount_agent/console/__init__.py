"""How people and the agent talk: the table of commands, how command lines are read, and what is
written on the screen."""
