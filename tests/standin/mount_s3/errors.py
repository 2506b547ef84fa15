"""What goes wrong before the bucket is mounted, in the words of the real program."""

from __future__ import annotations


class UsageError(Exception):
    """The command line is wrong: exit status 2, as the clap library does it."""

    USAGE = "Usage: mount-s3 [OPTIONS] <BUCKET_NAME> <DIRECTORY>"

    def __str__(self) -> str:
        return f"error: {self.args[0]}\n\n{self.USAGE}\n\nFor more information, try '--help'."


class MountError(Exception):
    """The bucket cannot be mounted: what, and its causes, outermost first; exit status 1."""

    def __init__(self, *chain: str) -> None:
        super().__init__(*chain)
        self.chain = chain

    def __str__(self) -> str:
        """Print like Rust's anyhow: several causes are numbered, a single one is not."""
        context, *causes = self.chain
        if not causes:
            return f"Error: {context}"
        numbered = [f"{n}: {cause}" for n, cause in enumerate(causes)] if causes[1:] else causes
        return "\n".join([f"Error: {context}", "", "Caused by:", *(f"    {c}" for c in numbered)])
