"""One small module per command, imported only when it is called."""
