"""Downloads by ``urllib``: proxies and certificates as the environment says (``SSL_CERT_FILE``)."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request
from typing import IO, TYPE_CHECKING

from runsfleet_runtime.agent.errors import PackageError
from runsfleet_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.client import HTTPMessage
    from pathlib import Path

TIMEOUT_SECONDS = 30.0  # of each read, not of the whole
_BLOCK = 1 << 20


class _SameOrSaferRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(  # noqa: PLR0917  urllib's signature
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and urllib.parse.urlsplit(newurl).scheme != "https":
            raise PackageError(f"{req.full_url} redirects to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class UrlDownloads:
    """Downloads over HTTP(S). Satisfies ``DownloadsFiles``."""

    def download(self, url: str, target: Path, *, check: Callable[[], None]) -> None:
        """Write what is at ``url`` to ``target``.

        Args:
            url: An ``https://`` or ``http://`` address; the caller verifies the content.
            target: Is replaced.
            check: Called before each piece; may raise to give up.

        Raises:
            PackageError: The address is of another kind, or the answer was cut.
            OSError: It cannot be reached or answers with an error.
        """
        if urllib.parse.urlsplit(url).scheme not in {"https", "http"}:
            raise PackageError(f"package_url must be an https address, got {url!r}")
        request = urllib.request.Request(  # noqa: S310  the scheme was checked
            url, headers={"User-Agent": f"runsfleet-agent/{__version__}"}
        )
        opener = urllib.request.build_opener(_SameOrSaferRedirect())
        try:
            with opener.open(request, timeout=TIMEOUT_SECONDS) as answer, target.open("wb") as file:
                check()
                while block := answer.read(_BLOCK):
                    check()
                    file.write(block)
                # read() with a size does not complain about a connection that ended early
                if answer.length:
                    raise PackageError(f"{url} ended {answer.length} bytes early")
        except http.client.HTTPException as error:
            raise PackageError(f"the answer of {url} was damaged: {error!r}") from error
