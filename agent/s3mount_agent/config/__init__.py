"""The configuration: the file and its keys, the Args, where it comes from, what is in force."""
