"""What a client did wrong on the wire."""


class ProtocolError(Exception):
    """The client broke a rule of AMQP: its connection, and only that, is closed."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(description)
        self.condition = condition
