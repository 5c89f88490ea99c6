"""API keys: what their file holds, who may read it, and how soon a change of it counts."""

import hashlib
import json
import logging
import stat
import threading

import pytest

from clipper_gateway.errors import Refusal
from clipper_gateway.keys import ApiKey, KeyRing, make_key, read_keys, revoke_key
from clipper_stream.errors import InvalidSetting, UnknownName


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture
def clock():
    return Clock()


def made(path, name="shop", **changes):
    settings = dict(applications=None, rights=["predict"], rate=None, now_ms=7)
    return make_key(path, name, **(settings | changes))


def test_the_file_holds_the_digest_and_not_the_secret(path):
    secret = made(path, applications=["digits"], rights=["predict", "operate"], rate=2.5)
    assert secret.startswith("cs_")
    assert len(secret) == len("cs_") + 43
    assert secret not in path.read_text()
    assert read_keys(path) == [
        ApiKey(
            name="shop",
            digest=hashlib.sha256(secret.encode()).hexdigest(),
            applications=["digits"],
            rights=["predict", "operate"],
            rate=2.5,
            created_ms=7,
        )
    ]


def test_only_the_owner_may_read_the_file_and_nothing_stays_beside_it(path):
    made(path)
    made(path, "other")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [*path.parent.iterdir()] == [path]


def test_a_partial_file_of_a_broken_write_is_no_obstacle(path):
    (path.parent / f".{path.name}.partial").write_text("[")
    made(path)
    assert len(read_keys(path)) == 1


def test_a_link_to_the_file_stays_one(path, tmp_path):
    link = tmp_path / "link.json"
    made(path)
    link.symlink_to(path)
    made(link, "other")
    assert link.is_symlink()
    assert [key.name for key in read_keys(path)] == ["shop", "other"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_may_use_is_refused_with_the_command_to_run(path, mode):
    made(path)
    path.chmod(mode)
    with pytest.raises(InvalidSetting, match=f"mode {mode:o}, .*: chmod 600 {path}"):
        read_keys(path)
    with pytest.raises(InvalidSetting, match="chmod 600"):
        made(path, "other")


@pytest.mark.parametrize("content", ["", "{", "{}", '[{"name": "a"}]', "[1]", "\x80"])
def test_a_file_of_something_else_is_refused(path, content):
    path.write_bytes(content.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(InvalidSetting, match=r"keys\.json: .*; give a file that `clipper-stream keys create` made"):
        read_keys(path)


def test_a_misspelt_field_is_refused_instead_of_ignored(path):
    made(path)
    content = json.loads(path.read_text())
    content[0]["revoked"] = 5
    path.write_text(json.dumps(content))
    with pytest.raises(InvalidSetting, match="revoked"):
        read_keys(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(name="Shop"), "name = 'Shop': expected str of lower case letters, digits and dashes"),
        (dict(name=""), "name = ''"),
        (dict(applications=["a b"]), r"applications\[0\] = 'a b'"),
        (dict(rights=["delete"]), r"rights\[0\] = 'delete': .*use one of feedback, operate, predict, read"),
        (dict(rate=0.0), "rate = 0.0"),
        (dict(rate=float("inf")), "rate = inf"),
        (dict(rate=float("nan")), "rate = nan"),
    ],
)
def test_a_value_outside_its_bound_makes_no_key(path, changes, said):
    with pytest.raises(InvalidSetting, match=said):
        made(path, **changes)
    assert not path.exists()


def test_a_name_is_free_again_after_its_key_was_revoked(path):
    made(path)
    with pytest.raises(InvalidSetting, match="has a key 'shop': take another name"):
        made(path)
    revoke_key(path, "shop", 9)
    made(path)
    assert [key.revoked_ms for key in read_keys(path)] == [9, None]
    revoke_key(path, "shop", 11)
    assert [key.revoked_ms for key in read_keys(path)] == [9, 11]


def test_revoking_what_is_not_in_force_names_what_is(path):
    with pytest.raises(UnknownName, match="in force are none"):
        revoke_key(path, "shop", 9)
    made(path)
    with pytest.raises(UnknownName, match=r"no key 'stop' in .*; in force are shop"):
        revoke_key(path, "stop", 9)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidSetting, match=r"nowhere/keys\.json: No such file or directory; give a file in a folder"):
        made(tmp_path / "nowhere/keys.json")


def test_no_key_is_lost_when_several_are_made_at_once(path):
    threads = [threading.Thread(target=made, args=(path, f"key-{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in read_keys(path)} == {f"key-{n}" for n in range(8)}


def test_a_secret_finds_its_key_and_no_other_does(path, clock):
    secret = made(path)
    ring = KeyRing(path, clock)
    assert ring.find(secret).name == "shop"
    assert ring.find(secret[:-1]) is None
    assert ring.find("") is None
    assert ring.find("cs_é") is None
    assert ring.find(read_keys(path)[0].digest) is None


def test_a_revoked_key_is_refused_within_a_second_by_a_ring_that_runs(path, clock):
    secret = made(path)
    ring = KeyRing(path, clock)
    revoke_key(path, "shop", 9)
    clock.now_s += 0.999
    assert ring.find(secret) is not None
    clock.now_s += 0.001
    assert ring.find(secret) is None


def test_keys_that_are_made_later_count_even_in_a_file_that_was_missing(path, clock):
    ring = KeyRing(path, clock)
    assert ring.find("cs_x") is None
    secret = made(path)
    clock.now_s += 1.0
    assert ring.find(secret).name == "shop"


def test_a_file_that_is_removed_lets_nobody_in(path, clock):
    secret = made(path)
    ring = KeyRing(path, clock)
    path.unlink()
    clock.now_s += 1.0
    assert ring.find(secret) is None


def test_a_changed_file_that_cannot_be_used_keeps_the_keys_and_warns_once(path, clock, caplog):
    secret = made(path)
    ring = KeyRing(path, clock)
    content = path.read_bytes()
    path.write_text("[")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.now_s += 1.0
            assert ring.find(secret) is not None
    assert [record.getMessage() for record in caplog.records] == ["API keys stay those of before"]
    assert "keys.json" in str(caplog.records[0].fields["error"])
    path.write_bytes(content.replace(b'"shop"', b'"club"'))
    clock.now_s += 1.0
    assert ring.find(secret).name == "club"


def test_a_chmod_alone_makes_a_refused_file_count(path, clock):
    secret = made(path)
    ring = KeyRing(path, clock)
    revoke_key(path, "shop", 9)
    path.chmod(0o644)
    clock.now_s += 1.0
    assert ring.find(secret) is not None
    path.chmod(0o600)
    clock.now_s += 1.0
    assert ring.find(secret) is None


def test_a_ring_does_not_start_with_a_file_that_others_may_read(path):
    made(path)
    path.chmod(0o644)
    with pytest.raises(InvalidSetting, match="chmod 600"):
        KeyRing(path)


def test_a_key_sends_as_many_requests_a_second_as_its_rate_says(path, clock):
    secret = made(path, rate=2.0)
    ring = KeyRing(path, clock)
    assert [ring.find(secret).name for _ in range(2)] == ["shop", "shop"]
    with pytest.raises(Refusal, match=r"key 'shop' may send 2 requests a second: wait 0\.500 s") as refused:
        ring.find(secret)
    assert (refused.value.status, refused.value.headers) == (429, {"retry-after": "1"})
    clock.now_s += 0.5
    assert ring.find(secret) is not None
    with pytest.raises(Refusal):
        ring.find(secret)
    clock.now_s += 3600.0
    assert [ring.find(secret).name for _ in range(2)] == ["shop", "shop"]
    with pytest.raises(Refusal):
        ring.find(secret)


def test_a_rate_below_one_lets_one_request_pass_at_a_time(path, clock):
    secret = made(path, rate=0.1)
    ring = KeyRing(path, clock)
    ring.find(secret)
    with pytest.raises(Refusal) as refused:
        ring.find(secret)
    assert refused.value.headers["retry-after"] == "10"
    clock.now_s += 10.0
    assert ring.find(secret) is not None


def test_keys_have_rates_of_their_own_and_a_reload_fills_none(path, clock):
    first, second = made(path, rate=0.01), made(path, "other", rate=0.01)
    ring = KeyRing(path, clock)
    ring.find(first)
    ring.find(second)
    made(path, "third")
    clock.now_s += 1.0
    with pytest.raises(Refusal):
        ring.find(first)


def test_no_message_and_no_log_holds_a_secret(path, clock, caplog):
    secret = made(path, rate=0.01)
    with caplog.at_level(logging.DEBUG):
        ring = KeyRing(path, clock)
        ring.find(secret)
        with pytest.raises(Refusal) as refused:
            ring.find(secret)
        made(path, "other")
        clock.now_s += 1.0
        ring.find("cs_wrong")
    said = str(refused.value) + caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert secret not in said
    assert secret[3:] not in said
    assert "cs_wrong" not in said
    assert "API keys read" in said
