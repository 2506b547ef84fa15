"""The options of one mount, as they reach mount-s3's command line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Flags of mount-s3 by their long names, each with its value or None, in the order given."""

    flags: tuple[tuple[str, str | None], ...] = ()

    def __contains__(self, name: str) -> bool:
        return any(name == flag for flag, _ in self.flags)

    def value(self, name: str) -> str | None:
        """The value of a flag, or None where it is absent or takes none."""
        return next((value for flag, value in self.flags if flag == name), None)

    def without(self, name: str) -> Options:
        """The same options, one flag less."""
        return Options(tuple(row for row in self.flags if row[0] != name))

    def extended(self, **defaults: str | None) -> Options:
        """The same options, with flags appended that are not there yet (``_`` stands for ``-``)."""
        added = ((name.replace("_", "-"), value) for name, value in defaults.items())
        return Options(self.flags + tuple(row for row in added if row[0] not in self))

    def arguments(self) -> tuple[str, ...]:
        """The options as mount-s3's argument list."""
        words: list[str] = []
        for name, value in self.flags:
            words += [f"--{name}"] if value is None else [f"--{name}={value}"]
        return tuple(words)
