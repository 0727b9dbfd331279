"""The errors that Service Bus answers, by the AMQP condition that clients tell them apart with.

Source: "AMQP errors in Azure Service Bus", Microsoft Learn.
"""


class ServiceBusError(Exception):
    """A refusal of one operation.

    `condition` is the AMQP error condition, `status` the code that `$cbs` and `$management` give.
    """

    condition = "amqp:internal-error"
    status = 500


class EntityNotFoundError(ServiceBusError):
    """There is no queue, topic or subscription of this name in the configuration."""

    condition = "amqp:not-found"
    status = 404


class MessageNotFoundError(ServiceBusError):
    """No message with this sequence number is in the state that the operation needs."""

    condition = "com.microsoft:message-not-found"
    status = 404


class NotAllowedError(ServiceBusError):
    """The entity's kind or settings rule the operation out."""

    condition = "amqp:not-allowed"
    status = 400


class NotImplementedHereError(ServiceBusError):
    """Service Bus can do this, this broker cannot."""

    condition = "amqp:not-implemented"
    status = 501


class UnauthorizedError(ServiceBusError):
    """The shared access signature is missing, wrong or has expired."""

    condition = "amqp:unauthorized-access"
    status = 401


class MessageTooLargeError(ServiceBusError):
    """The message or batch is larger than the link allows."""

    condition = "amqp:link:message-size-exceeded"
    status = 413


class InvalidFieldError(ServiceBusError):
    """A request lacks a field or has one of a wrong type."""

    condition = "com.microsoft:argument-error"
    status = 400


class MessageLockLostError(ServiceBusError):
    """The lock has expired or its message is settled; the message may be with another receiver."""

    condition = "com.microsoft:message-lock-lost"
    status = 410


class SessionLockLostError(ServiceBusError):
    """The session's lock has expired or is held by another receiver."""

    condition = "com.microsoft:session-lock-lost"
    status = 410


class SessionCannotBeLockedError(ServiceBusError):
    """Another receiver holds the session."""

    condition = "com.microsoft:session-cannot-be-locked"
    status = 410


class WaitTimeoutError(ServiceBusError):
    """No session became free in the time that the client gave."""

    condition = "com.microsoft:timeout"
    status = 408


class ServerBusyError(ServiceBusError):
    """The service asks the client to try again later."""

    condition = "com.microsoft:server-busy"
    status = 503

    def __init__(self) -> None:
        super().__init__("The request was terminated because the entity is busy.")
