"""Reads a multipart upload as it streams in: the file part is hashed and counted, never kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

MAX_FIELD_BYTES = 64 * 1024
"""All form fields of one upload together, names and values."""


class BadUpload(Exception):
    """The body is not a complete, well-formed multipart form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedFile:
    """The file part: its field name and file name as sent, its media type, SHA-256 (hex) and size in bytes."""

    field_name: str
    filename: str
    content_type: str
    sha256: str
    bytes: int


@dataclass(slots=True, kw_only=True)
class Upload:
    """A form as it was sent: its fields and its one file, None when there was none."""

    fields: dict[str, str] = field(default_factory=dict)
    file: UploadedFile | None = None


async def read_upload(request: Request) -> Upload:
    """Read the body to its end in constant memory.

    Raises `BadUpload`, and `ClientDisconnect` when the client cuts the connection.
    """
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if media_type != b"multipart/form-data" or not boundary:
        async for _ in request.stream():
            pass
        raise BadUpload("the body must be multipart/form-data with a boundary")
    form = _Form(boundary)
    async for chunk in request.stream():
        form.feed(chunk)
    return form.finish()


class _Form:
    """One form being parsed. A broken one is read to its end all the same, so that the client gets its answer."""

    def __init__(self, boundary: bytes) -> None:
        self._upload = Upload()
        self._complete = False
        self._broken: str | None = None
        self._field_bytes = 0
        self._begin()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        if self._broken is None and chunk:
            try:
                self._parser.write(chunk)
            except (MultipartParseError, BadUpload) as error:
                self._broken = str(error)

    def finish(self) -> Upload:
        if self._broken is not None or not self._complete:
            raise BadUpload(self._broken or "the form ends before its last boundary")
        return self._upload

    def _begin(self) -> None:
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._filename: str | None = None
        self._value = bytearray()
        self._hash = hashlib.sha256()
        self._size = 0

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise BadUpload("a part has no name")
        self._name = options[b"name"].decode("utf-8", "replace")
        if b"filename" in options:
            if self._upload.file is not None:
                raise BadUpload("the form has more than one file")
            self._filename = options[b"filename"].decode("utf-8", "replace")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._filename is None:
            self._field_bytes += end - start
            if self._field_bytes > MAX_FIELD_BYTES:
                raise BadUpload(f"the form's fields are longer than {MAX_FIELD_BYTES} bytes")
            self._value += data[start:end]
        else:
            self._hash.update(memoryview(data)[start:end])
            self._size += end - start

    def _on_part_end(self) -> None:
        if self._filename is None:
            self._upload.fields[self._name] = self._value.decode("utf-8", "replace")
            self._field_bytes += len(self._name)
        else:
            self._upload.file = UploadedFile(
                field_name=self._name,
                filename=self._filename,
                content_type=self._headers.get(b"content-type", b"").decode("latin-1"),
                sha256=self._hash.hexdigest(),
                bytes=self._size,
            )

    def _on_end(self) -> None:
        self._complete = True
