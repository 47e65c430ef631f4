"""A folder or a bucket, through pyarrow.fs: objects are written whole or not at all.

``s3://bucket/prefix`` (and what speaks S3, at AWS_ENDPOINT_URL), ``gs://``, ``abfs://``, or a
folder of this machine. Credentials are those of the usual environment (AWS_PROFILE,
AWS_ACCESS_KEY_ID, an instance's role, …) and are never kept.
"""

from __future__ import annotations

import os
import random
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from pageowner.errors import PageownerError
from pageowner.storage.whole_file import TEMPORARY, output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Store", "StoreAway", "StoredObject"]

_ATTEMPTS = 4
_FIRST_WAIT = 0.5  # seconds; doubled each time
_LONGEST_REASON = 200
_CONNECT_S, _REQUEST_S = 5, 30
_NEVER = re.compile(r"ACCESS_DENIED|AccessDenied|NO_SUCH_BUCKET|NoSuchBucket|INVALID_ACCESS_KEY"
                    r"|InvalidAccessKeyId|SIGNATURE_DOES_NOT_MATCH|SignatureDoesNotMatch"
                    r"|Forbidden|No such file|Permission denied|Not a directory")
"""What another attempt does not change."""


class StoreAway(PageownerError):
    """The store cannot be reached, or refuses; the reason is in one line."""


class StoredObject(NamedTuple):
    """``path`` below the store's place, ``size`` in bytes, ``changed``: seconds since 1970 by the
    store's clock."""

    path: str
    size: int
    changed: float


class Store:
    """What lies below ``place``, a URL or a folder's name."""

    def __init__(self, place: str) -> None:
        """Raises PageownerError for a URL of no known kind."""
        self.place = place.rstrip("/") or "/"
        self.is_local = "://" not in place
        self.files: Any
        if self.is_local:
            from pyarrow.fs import LocalFileSystem

            self.files, self.base = LocalFileSystem(), os.path.abspath(place)
        else:
            self.files, self.base = _opened(self.place)

    def name(self, path: str) -> str:
        """The path as the file system has it."""
        return f"{self.base}/{path}"

    def put(self, path: str, content: bytes) -> None:
        """Write an object, whole or not at all. Raises StoreAway."""
        if self.is_local:
            # who may read is for the umask and the store's folder: readers are often others
            try:
                os.makedirs(os.path.dirname(self.name(path)), exist_ok=True)
                with output(self.name(path), sync=True, keeps_mode=True) as file:
                    file.write(content)
            except OSError as error:
                raise StoreAway(f"{self.place}: cannot write: {error.strerror}") from error
            return

        def write() -> None:
            # a stream that fails while it is written to is never closed: closing completes it
            stream = self.files.open_output_stream(self.name(path), compression=None)
            stream.write(content)
            stream.close()

        self._try(write, "write")

    def get(self, path: str) -> bytes:
        """The bytes of an object. Raises StoreAway."""
        def read() -> bytes:
            with self.files.open_input_stream(self.name(path), compression=None) as stream:
                content: bytes = stream.read()
            return content

        found: bytes = self._try(read, "read")
        return found

    def open(self, path: str) -> Any:
        """An object as a random-access file of Arrow's. Raises StoreAway."""
        return self._try(lambda: self.files.open_input_file(self.name(path)), "read")

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is no error. Raises StoreAway."""
        def remove() -> None:
            with suppress(FileNotFoundError):
                self.files.delete_file(self.name(path))

        self._try(remove, "remove")

    def remove_folder(self, prefix: str) -> None:
        """Remove a folder without files; buckets have none."""
        if self.is_local:
            for folder, _, _ in os.walk(self.name(prefix), topdown=False):
                with suppress(OSError):
                    os.rmdir(folder)

    def changed(self, path: str) -> float | None:
        """When an object was written, by the store's clock; None if it is not there or the store
        does not say."""
        found = self._try(lambda: self.files.get_file_info(self.name(path)), "read")
        return None if found.mtime is None else found.mtime.timestamp()

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """The objects below a prefix, in order. Raises StoreAway."""
        from pyarrow.fs import FileSelector, FileType

        found = self._try(lambda: self.files.get_file_info(FileSelector(
            self.name(prefix), allow_not_found=True, recursive=True)), "list")
        cut = len(self.base) + 1
        for info in sorted(found, key=lambda info: info.path):
            if info.type == FileType.File and not info.base_name.startswith((TEMPORARY, "_")):
                yield StoredObject(info.path[cut:], info.size,
                                   0.0 if info.mtime is None else info.mtime.timestamp())

    def folders(self, prefix: str) -> list[str]:
        """The names of folders right below a prefix, in order. Raises StoreAway."""
        from pyarrow.fs import FileSelector, FileType

        found = self._try(lambda: self.files.get_file_info(FileSelector(
            self.name(prefix).rstrip("/"), allow_not_found=True)), "list")
        return sorted(info.base_name for info in found if info.type == FileType.Directory)

    def days(self, prefix: str) -> list[str]:
        """The days, as 2026-11-26, that have a folder below a prefix. Raises StoreAway."""
        return [name[4:] for name in self.folders(prefix)
                if re.fullmatch(r"day=\d{4}-\d\d-\d\d", name)]

    def _try(self, work: Callable[[], Any], what: str) -> Any:
        for attempt in range(_ATTEMPTS):
            try:
                return work()
            except OSError as error:
                text = " ".join(str(error).split())
                if attempt == _ATTEMPTS - 1 or self.is_local or _NEVER.search(text):
                    raise StoreAway(f"{self.place}: cannot {what}: {_reason(error, text)}"
                                    ) from error
            time.sleep(_FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.5))
        raise AssertionError


def _reason(error: OSError, text: str) -> str:
    if error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def _opened(place: str) -> tuple[Any, str]:
    from pyarrow import ArrowException
    from pyarrow import fs as arrow_fs

    scheme, _, rest = place.partition("://")
    try:
        if scheme == "s3":
            bucket = rest.partition("/")[0]
            return arrow_fs.S3FileSystem(
                retry_strategy=arrow_fs.AwsStandardS3RetryStrategy(max_attempts=2),
                connect_timeout=_CONNECT_S, request_timeout=_REQUEST_S, background_writes=False,
                allow_delayed_open=True, **_where(bucket)), rest
        opened: tuple[Any, str] = arrow_fs.FileSystem.from_uri(place)
        return opened
    except (ArrowException, OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise StoreAway(f"{place}: cannot open: {text[:_LONGEST_REASON]}") from error


def _where(bucket: str) -> dict[str, str]:
    """The server and region of a bucket: as the environment says, which Arrow itself heeds for
    some calls only; the region of one of AWS is asked where nothing says it."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:
        scheme, _, server = endpoint.rpartition("://")
        return {"scheme": scheme or "https", "endpoint_override": server.rstrip("/"),
                "region": region or "us-east-1"}
    if region:
        return {"region": region}
    from pyarrow.fs import resolve_s3_region

    with suppress(OSError):
        return {"region": resolve_s3_region(bucket)}
    return {}
