"""The switch of a dead man: a URL that somebody else watches. Silence, not an error, is what alarms there."""

import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit

from edgedr.errors import Unreachable

_SECONDS = 15
_GOOD = range(200, 300)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A portal redirects; a switch does not."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def ping(url: str) -> None:
    """Tell the switch that all is well. Raises ``Unreachable``, which names the host and not the rest of the URL."""
    host = urlsplit(url).hostname
    opener = urllib.request.build_opener(_NoRedirect())
    try:
        with opener.open(url, timeout=_SECONDS) as answer:
            if answer.status not in _GOOD:
                raise Unreachable(f"the dead man's switch at {host} answers {answer.status}")
    except urllib.error.HTTPError as error:
        error.close()
        raise Unreachable(
            f"the dead man's switch at {host} answers {error.code}", hint="look at [heartbeat] ping"
        ) from None
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise Unreachable(
            f"the dead man's switch at {host} does not answer: {reason}", hint="look at the link"
        ) from None
    except (ValueError, HTTPException):  # not shown: it may say the URL
        raise Unreachable(
            f"the dead man's switch at {host} gives no answer of HTTP", hint="look at [heartbeat] ping"
        ) from None
