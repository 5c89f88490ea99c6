"""An archive of a model's directory, unpacked so that no member leaves it.

Rules of this file:
- A member is a plain file or a folder, and its name stays inside: no absolute path, no `..`, no link, no device.
- What an archive grows to is bounded, by bytes and by members, as it is unpacked and not as it says.
"""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

MAX_BYTES = 16 << 30
MAX_MEMBERS = 100_000
_CHUNK_BYTES = 1 << 20
Member = tuple[str, IO[bytes]]


def unpack(content: bytes, folder: Path, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS) -> None:
    """Write the files of a zip or tar archive, which may be compressed, into an empty folder.

    Raises:
        ValueError: no archive, a member that would leave the folder, or too much; the folder may have a part of it.
    """
    left = max_bytes
    for count, (name, source) in enumerate(_members(content)):
        if count >= max_members:
            raise ValueError(f"the archive has more than {max_members} members")
        target = folder / _inside(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:
                    raise ValueError(f"the archive grows to more than {max_bytes} bytes")
                file.write(chunk)


def _members(content: bytes) -> Iterator[Member]:
    if zipfile.is_zipfile(io.BytesIO(content)):
        yield from _zipped(content)
        return
    try:
        yield from _tarred(content)
    except tarfile.TarError as error:
        raise ValueError(f"neither a zip nor a tar archive: {error}") from error


def _zipped(content: bytes) -> Iterator[Member]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                with archive.open(member) as file:
                    yield member.filename, file


def _tarred(content: bytes) -> Iterator[Member]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member.name, file
            elif not member.isdir():
                raise ValueError(f"member {member.name!r} is a link or a device: pack plain files")


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise ValueError(f"member {name!r} would leave the archive's folder: pack relative names")
    return path
