"""What a bad disk, or a hand in the wrong folder, does to the files of a RocksDB database."""

import os
from pathlib import Path


def newest(folder: Path, pattern: str) -> Path:
    """The largest of the files with the highest numbers: one that has something in it."""
    return max(folder.glob(pattern), key=lambda path: (path.stat().st_size > 0, path.name))


def oldest(folder: Path, pattern: str) -> Path:
    return min(folder.glob(pattern), key=lambda path: path.name)


def all_files(folder: Path, suffix: str) -> list[Path]:
    """Those below a folder, of which some may vanish meanwhile."""
    return [Path(at, name) for at, _, names in os.walk(folder) for name in sorted(names) if name.endswith(suffix)]


def flip(path: Path, share: float, count: int = 64) -> None:
    """Turn over bytes from a share of the file's length on."""
    try:
        content = bytearray(path.read_bytes())
    except FileNotFoundError:  # its database was set aside, or merged it, a moment ago
        return
    start = int(len(content) * share)
    for place in range(start, min(start + count, len(content))):
        content[place] ^= 0xFF
    path.write_bytes(content)


def cut(path: Path, share: float) -> None:
    """Keep this share of the file."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def folder_in_place_of(path: Path) -> None:
    path.unlink()
    path.mkdir()


ON_TABLES = {
    "a table file cut in the middle": lambda folder: cut(oldest(folder, "*.sst"), 0.5),
    "a table file of length zero": lambda folder: cut(oldest(folder, "*.sst"), 0),
    "a table file that is gone": lambda folder: oldest(folder, "*.sst").unlink(),
    "a table file that is a folder": lambda folder: folder_in_place_of(oldest(folder, "*.sst")),
    "bytes flipped in a table file": lambda folder: flip(oldest(folder, "*.sst"), 0.3),
    "bytes flipped in the index of a table file": lambda folder: flip(oldest(folder, "*.sst"), 0.99, 16),
    "bytes flipped at the end of a table file": lambda folder: flip(oldest(folder, "*.sst"), 1 - 1e-9 - 0.0005, 8),
    "CURRENT full of garbage": lambda folder: (folder / "CURRENT").write_bytes(b"garbage"),
    "CURRENT of length zero": lambda folder: cut(folder / "CURRENT", 0),
    "CURRENT that is gone": lambda folder: (folder / "CURRENT").unlink(),
    "a manifest full of garbage": lambda folder: newest(folder, "MANIFEST-*").write_bytes(b"garbage" * 100),
    "a manifest of length zero": lambda folder: cut(newest(folder, "MANIFEST-*"), 0),
    "a manifest that is gone": lambda folder: newest(folder, "MANIFEST-*").unlink(),
    "a manifest that has lost its end": lambda folder: cut(newest(folder, "MANIFEST-*"), 0.7),
    "a manifest with a wrong length in it": lambda folder: flip(newest(folder, "MANIFEST-*"), 0.34, 4),
}
"""Each makes a database, flushed to at least two table files, one that must not be read on."""

ON_LOGS = {
    "a write-ahead log that has lost its end": lambda folder: cut(newest(folder, "*.log"), 0.6),
    "a write-ahead log of length zero": lambda folder: cut(newest(folder, "*.log"), 0),
    "a write-ahead log that is gone": lambda folder: newest(folder, "*.log").unlink(),
    "bytes flipped in a write-ahead log": lambda folder: flip(newest(folder, "*.log"), 0.4),
}
"""Each costs the newest writes at most."""

HARMLESS = {
    "a foreign file": lambda folder: (folder / "foo").write_text("not ours"),
    "OPTIONS of length zero": lambda folder: [cut(path, 0) for path in folder.glob("OPTIONS-*")],
    "IDENTITY of length zero": lambda folder: cut(folder / "IDENTITY", 0),
    "a LOG that is gone": lambda folder: (folder / "LOG").unlink(),
}
