"""The distributions' packages: which Linux systems there are, and their package managers."""
