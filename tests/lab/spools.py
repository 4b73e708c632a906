"""Spools for what a source writes by itself."""


class SizeOnly:
    """A spool that keeps nothing but its size."""

    size = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        pass

    def restart(self) -> None:
        self.size = 0
