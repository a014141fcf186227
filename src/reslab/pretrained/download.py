"""Download a file of published weights, and verify its digest."""

import hashlib
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

from reslab.runtime.text import without_secrets
from reslab.runtime.writing import atomic_write

PATIENCE = 30.0  # seconds without an answer or any data
CHUNK = 2**17  # bytes


def download(
    address: str, to: Path, accepts: Callable[[str], bool], patience: float = PATIENCE
) -> None:
    """Download a file of at most a few hundred megabytes to `to`, with a progress bar.

    `accepts` decides from the SHA-256 whether it is the right file. The file appears complete or
    not at all, however the process ends. Raise ValueError, with the reason, if the file cannot be
    downloaded or is another one.
    """
    content = fetch(address, patience)
    digest = hashlib.sha256(content).hexdigest()
    if not accepts(digest):
        raise ValueError(
            f"{without_secrets(address)} returned {len(content):,} bytes with the SHA-256 "
            f"{digest[:16]}..., which is not the published one"
        )
    atomic_write(to, content)


def fetch(address: str, patience: float) -> bytes:
    """Return the content at a URL; raise ValueError, with the reason, if that fails."""
    import pooch
    from requests import ConnectionError, HTTPError, RequestException, Timeout

    shows = sys.stderr is not None and sys.stderr.isatty()
    fetcher = pooch.HTTPDownloader(progressbar=shows, chunk_size=CHUNK, timeout=patience)
    content, host = BytesIO(), urlsplit(address).hostname
    try:
        fetcher(address, content, None)
    except HTTPError as error:
        answer = error.response
        assert answer is not None
        raise ValueError(f"{host} answered {answer.status_code} {answer.reason}") from None
    except Timeout:
        raise ValueError(f"{host} sent nothing for {patience:g} seconds") from None
    except ConnectionError:
        raise ValueError(f"the connection to {host} failed") from None
    except RequestException as error:
        raise ValueError(f"{host} sent no complete file ({type(error).__name__})") from None
    return content.getvalue()
