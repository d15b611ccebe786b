"""Calls over gRPC: a channel, retries, and the errors of a server as ours."""

import grpc

from experiments.restoration.errors import Refused, TooLarge, Unavailable, plain

# The server's limit is what counts; the client's own, of 4 MiB, would be the smaller one.
_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


class Service:
    """A gRPC service at a server.

    Args:
        address: `HOST:PORT`. The connection is not encrypted.
        service: The service, with its package.
        messages: A namespace with the classes `METHODRequest` and `METHODResponse`.
        patience: A `Patience`: how long to wait, and whether to ask again.
    """

    def __init__(self, address, service, messages, patience):
        self._service, self._messages, self._patience = service, messages, patience
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)

    def __call__(self, method, request):
        """The response to a request; an error is one of `restoration.errors`."""
        call = self._channel.unary_unary(
            f"/{self._service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=getattr(self._messages, f"{method}Response").FromString,
        )

        def attempt(seconds):
            try:
                return call(request, timeout=seconds)
            except grpc.RpcError as error:
                raise translate(error.code(), error.details()) from None

        return self._patience(attempt)


def translate(code, details):
    """The error for one of gRPC.

    Args:
        code: A `grpc.StatusCode`.
        details: What the server says.
    """
    text = plain(details or "") or code.name
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(text)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable("no answer in time; --timeout sets how long to wait.")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return TooLarge(text)
    return Refused(f"The server refuses it: {text} ({code.name})")
