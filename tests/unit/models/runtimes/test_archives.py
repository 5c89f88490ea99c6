import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from clipper_stream.models.runtimes.archives import unpack


def zipped(*members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def tarred(*members, **fields):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            for field, value in {"size": len(content), **fields}.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


packers = pytest.mark.parametrize("pack", [zipped, tarred])
LINK = zipfile.ZipInfo("link")
LINK.external_attr = 0o120777 << 16


@pytest.mark.parametrize("kind", ["zip", "gztar", "tar"])
def test_files_and_folders_are_written_from_what_tools_pack(tmp_path, kind):
    files = {"model/MLmodel": b"a", "model/data/x.bin": b"b", "top": b""}
    for name, content in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    unpack(Path(shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "in")).read_bytes(), tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")): path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == files


@packers
@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", "/tmp/escaped-of-a-test", "a\\..\\..\\escaped"])
def test_a_member_that_would_leave_the_folder_is_refused(tmp_path, pack, name):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="would leave the archive's folder"):
        unpack(pack(("fine", b""), (name, b"out")), tmp_path / "in")
    assert not [path for path in tmp_path.rglob("*") if "escaped" in path.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_a_device_is_refused(tmp_path, kind):
    with pytest.raises(ValueError, match="is a link or a device"):
        unpack(tarred(("link", b""), type=kind, linkname="/etc/passwd"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_symbolic_link_in_a_zip_becomes_a_plain_file(tmp_path):
    unpack(zipped((LINK, "/etc")), tmp_path)
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_bytes() == b"/etc"


@packers
def test_what_an_archive_grows_to_is_bounded(tmp_path, pack):
    bomb = pack(("zeros", b"\0" * (8 << 20)))
    assert len(bomb) < 20_000
    with pytest.raises(ValueError, match="grows to more than 1048576 bytes"):
        unpack(bomb, tmp_path, max_bytes=1 << 20)
    with pytest.raises(ValueError, match="more than 2 members"):
        unpack(pack(*((str(each), b"") for each in range(3))), tmp_path / "many", max_members=2)


def test_a_file_twice_is_refused(tmp_path):
    with pytest.raises(FileExistsError), pytest.warns(UserWarning, match="Duplicate"):
        unpack(zipped(("a", b"1"), ("a", b"2")), tmp_path)


def test_what_is_no_archive_is_refused(tmp_path):
    for content in (b"", b"text", b"PK\x03\x04 cut"):
        with pytest.raises(ValueError, match="neither a zip nor a tar archive"):
            unpack(content, tmp_path)
    with pytest.raises(EOFError):
        unpack(tarred(("a", b"x" * 100))[:60], tmp_path)
