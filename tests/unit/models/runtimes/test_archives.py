import io
import shutil
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from clipper_stream.models.runtimes.mlflow_pyfunc import unpack


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


LINK = zipfile.ZipInfo("link")
LINK.external_attr = 0o120777 << 16


@pytest.mark.parametrize("kind", ["zip", "gztar", "tar"])
def test_files_and_folders_are_written_from_what_tools_pack(tmp_path, kind):
    files = {"model/MLmodel": b"a", "model/data/x.bin": b"b", "top": b""}
    for name, content in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    unpack(
        Path(shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "in")).read_bytes(), str(tmp_path / "out")
    )
    found = {str(path.relative_to(tmp_path / "out")): path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == files


ESCAPES = ["../escaped", "a/../../escaped", "/tmp/escaped-of-a-test", "a\\..\\..\\escaped"]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_no_member_leaves_the_folder(tmp_path, pack, name):
    (tmp_path / "in").mkdir()
    with suppress(ValueError):
        unpack(pack((name, b"out")), str(tmp_path / "in"))
    found = [path for path in tmp_path.rglob("*") if "escaped" in path.name]
    assert all(path.is_relative_to(tmp_path / "in") for path in found)
    assert not Path("/tmp/escaped-of-a-test").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_out_of_the_folder_or_a_device_is_refused(tmp_path, kind):
    with pytest.raises(ValueError, match="no zip or tar archive of plain files"):
        unpack(tarred(("link", b""), type=kind, linkname="/etc/passwd"), str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_symbolic_link_in_a_zip_becomes_a_plain_file(tmp_path):
    unpack(zipped((LINK, "/etc")), str(tmp_path))
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_bytes() == b"/etc"


def test_what_is_no_archive_is_refused(tmp_path):
    for content in (b"", b"text", b"PK\x03\x04 cut"):
        with pytest.raises(ValueError, match="no zip or tar archive"):
            unpack(content, str(tmp_path))
    with pytest.raises(EOFError):
        unpack(tarred(("a", b"x" * 100))[:60], str(tmp_path))
