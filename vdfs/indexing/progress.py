"""Progress: what scanner and identifier have done so far, for `status`."""


class Progress:
    """Figures that only grow, but for those of the walk that runs."""

    def __init__(self) -> None:
        self.current: str | None = None
        self.dirs = 0
        self.entries = 0
        self.files_identified = 0
        self.bytes_identified = 0
        self.errors = 0
