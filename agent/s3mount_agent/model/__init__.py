"""The first floor: what a mount is and what should happen to it. No I/O."""
