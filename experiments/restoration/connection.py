"""From `--server` and `--protocol` to a model at that server."""

import importlib
import sys
import time

from experiments.restoration.errors import Refused, Unavailable
from experiments.restoration.patience import Patience
from trainers.process.errors import ConfigurationError

# In the order in which a server is asked.
PROTOCOLS = {
    "tensorflow-grpc": ("tensorflow_grpc", "TensorFlowGrpcModel"),
    "kserve-grpc": ("kserve", "KserveGrpcModel"),
    "tensorflow-rest": ("tensorflow_rest", "TensorFlowRestModel"),
    "kserve-rest": ("kserve", "KserveRestModel"),
}
_QUESTION = 5.0  # seconds; a server that is there needs milliseconds
_PAUSE = 0.5


def connect(server, name, protocol="auto", timeout=60.0):
    """A model at a server.

    Args:
        server: `HOST:PORT`; with `grpc://`, `http://` or `https://` in front it is this way alone.
        name: The model's name there.
        protocol: One of `PROTOCOLS`. `auto` asks the server for the model in each of them, in their
            order, and takes the first that it answers. Where nothing answers at all, it is asked
            again until the time is over.
        timeout: Seconds, here and for each request later on.

    Returns:
        A `Model`.

    Raises:
        Unavailable: Nothing answers there.
        ConfigurationError: The address or the protocol is wrong, there is no such model, or it has
            no signature `diagnose`.
    """
    address, names = _ways(server, protocol)
    end = time.monotonic() + timeout
    said = False
    while True:
        refusals, silence, seconds = [], [], min(_QUESTION, timeout)
        for known in names:
            try:
                patience = Patience(seconds, address, once=True)
                model = _model(known, address, name, patience)
                patience.extend(timeout)
                return model
            except Refused as error:
                refusals.append(f"{known}: {error}")
            except Unavailable as error:
                silence.append(f"{known}: {error}")
        if refusals:
            raise ConfigurationError(
                f"No model {name!r} at {server} (--name, --protocol).\n  "
                + "\n  ".join([*refusals, *silence])
            )
        if time.monotonic() + _PAUSE >= end:
            raise Unavailable(f"No answer from {server}.\n  " + "\n  ".join(silence))
        if not said:
            print(f"Waiting for {server}: {silence[0]}", file=sys.stderr)
            said = True
        time.sleep(_PAUSE)


def _ways(server, protocol):
    """The address as the models take it, and the names of the protocols to try."""
    scheme, _, rest = server.rpartition("://")
    ways = {"": "", "grpc": "-grpc", "http": "-rest", "https": "-rest"}
    if scheme not in ways or not rest:
        raise ConfigurationError(
            "Expected --server as HOST:PORT, maybe with grpc://, http:// or https:// in front. "
            f"Received: {server!r}."
        )
    asked = list(PROTOCOLS) if protocol == "auto" else [protocol]
    names = [known for known in asked if known.endswith(ways[scheme])]
    if not names:
        raise ConfigurationError(
            f"--protocol={protocol} does not go over {scheme}://. Leave one of the two out."
        )
    return (server if scheme.startswith("http") else rest), names


def _model(protocol, address, name, patience):
    module, kind = PROTOCOLS[protocol]
    module = importlib.import_module(f"experiments.restoration.{module}")
    return getattr(module, kind)(address, name, patience)
