"""What a user can mend: told in one line, without a traceback."""


class Mistake(Exception):
    """Wrong usage, or a file that cannot be read: what is wrong and what to do."""


class Ended(Exception):
    """A command ends with an exit status of its own, its reason told by the message."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)
