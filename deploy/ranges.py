"""An answer's bytes, whole or the part that a `Range` header asks for (RFC 9110, section 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastapi.responses import Response

from deploy.errors import ApiError

_RANGE = re.compile(r"bytes=\s*(?:(\d{1,15})-(\d{0,15})|-(\d{1,15}))\s*", re.I)


def part_of(content: bytes, media_type: str, tag: str, asked: Mapping[str, str]) -> Response:
    """Return the answer to a request for `content`: 200 with all of it, or 206 with a part.

    Several ranges, and what is no range, get all of it, as the standard allows.

    Args:
        tag: names these bytes and no others.
        asked: the request's headers; none where it may have no part, as for HEAD.

    Raises:
        ApiError: 416 where no byte is in the range.
    """
    own = {"Accept-Ranges": "bytes", "ETag": f'"{tag}"', "Cache-Control": "no-store"}
    match = _RANGE.fullmatch(asked.get("range", ""))
    if match is None or asked.get("if-range", own["ETag"]) != own["ETag"]:
        return Response(content, media_type=media_type, headers=own)
    size = len(content)
    first, last, final = match.groups()
    start = int(first) if first else max(0, size - int(final))
    end = min(size, int(last) + 1) if last else size
    if first and last and int(last) < int(first):  # no range
        return Response(content, media_type=media_type, headers=own)
    if start >= size:
        size_header = {"Content-Range": f"bytes */{size}"}
        raise ApiError(416, f"the answer has {size} bytes", "range_not_satisfiable", more_headers=size_header)
    own["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return Response(content[start:end], 206, media_type=media_type, headers=own)
