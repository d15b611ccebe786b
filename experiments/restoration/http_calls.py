"""Calls over HTTP: retries, and the errors of a server as ours."""

import http.client
import json
import urllib.error
import urllib.request

from experiments.restoration.errors import Refused, TooLarge, Unavailable, plain

_UNAVAILABLE = (502, 503, 504)
_TOO_LARGE = 413
_LATE = "no answer in time; --timeout sets how long to wait."


class Site:
    """What lies below an address of HTTP.

    Args:
        address: `HOST:PORT`, or an address with `http://` or `https://` and maybe a path.
        patience: A `Patience`: how long to wait, and whether to ask again.
    """

    def __init__(self, address, patience):
        self._base = (address if "://" in address else f"http://{address}").rstrip("/")
        self._patience = patience

    def __call__(self, path, body=None, headers=None):
        """The answer to a GET, or to a POST if there is a body.

        Args:
            path: From the address on.
            body: Bytes.
            headers: A dict.

        Returns:
            The bytes of the answer, and its headers. An error is one of `restoration.errors`.
        """
        request = urllib.request.Request(self._base + path, body, headers or {})

        def attempt(seconds):
            try:
                with urllib.request.urlopen(request, timeout=seconds) as answer:
                    return answer.read(), answer.headers
            except urllib.error.HTTPError as error:
                raise _translate(error) from None
            except TimeoutError:
                raise Unavailable(_LATE) from None
            except urllib.error.URLError as error:
                late = isinstance(error.reason, TimeoutError)
                raise Unavailable(_LATE if late else str(error.reason)) from None
            except ConnectionError as error:
                raise Unavailable(str(error)) from None
            except http.client.HTTPException as error:
                raise Refused(f"It does not speak HTTP ({type(error).__name__}).") from None

        return self._patience(attempt)

    def json(self, path, content=None):
        """The JSON that comes from a GET, or from a POST if there is content."""
        body = None if content is None else json.dumps(content).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        return parse(self(path, body, headers)[0])


def parse(text):
    """The JSON of an answer; raises `Refused` if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        raise Refused("Its answer is not JSON: another protocol?") from None


def _translate(error):
    text = error.read(20_000).decode("utf-8", "replace")
    try:
        text = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        pass
    text = plain(text) or error.reason
    if error.code in _UNAVAILABLE:
        return Unavailable(text)
    if error.code == _TOO_LARGE:
        return TooLarge(text)
    return Refused(f"The server refuses it: {text} ({error.code})")
