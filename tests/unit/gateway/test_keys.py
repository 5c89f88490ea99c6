import hashlib
import json
import logging
import stat
import threading
import time

import pytest
from unit.gateway.rig import key_in, refuses, sent

from clipper_gateway.access import Access
from clipper_gateway.keys import NOTED_S, ApiKey, KeyRing, read_keys, read_uses, revoke_key, rotate_key
from clipper_stream.errors import InvalidSetting, UnknownName


# --- the file -------------------------------------------------------------------------------------------------------
def test_the_file_holds_the_digest_and_not_the_secret_for_its_owner_alone(keys_file):
    (keys_file.parent / f".{keys_file.name}.partial").write_text("[")  # of a broken write
    given = {"applications": ["digits"], "rights": ["predict", "operate"], "rate": 2.5}
    secret = key_in(keys_file, **given)
    assert (secret[:3], len(secret), secret in keys_file.read_text()) == ("cs_", 3 + 43, False)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    assert read_keys(keys_file) == [ApiKey(name="shop", digest=digest, created_ms=7, **given)]
    key_in(keys_file, "other")
    assert stat.S_IMODE(keys_file.stat().st_mode) == 0o600
    assert [*keys_file.parent.iterdir()] == [keys_file]


def test_a_link_to_the_file_stays_one(keys_file, tmp_path):
    link = tmp_path / "link.json"
    key_in(keys_file)
    link.symlink_to(keys_file)
    key_in(link, "other")
    assert link.is_symlink()
    assert [key.name for key in read_keys(keys_file)] == ["shop", "other"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_may_use_is_refused_with_the_command_to_run(keys_file, mode):
    key_in(keys_file)
    keys_file.chmod(mode)
    for use in (read_keys, KeyRing, lambda keys_file: key_in(keys_file, "other")):
        with pytest.raises(InvalidSetting, match=f"mode {mode:o}, .*: chmod 600 {keys_file}"):
            use(keys_file)


MISSPELT = [{"name": "shop", "digest": "0" * 64, "rights": ["read"], "created_ms": 7, "revoked": 5}]


@pytest.mark.parametrize("content", ["", "{", "{}", '[{"name": "a"}]', "[1]", "\x80", json.dumps(MISSPELT)])
def test_a_file_of_something_else_is_refused(keys_file, content):
    keys_file.write_bytes(content.encode("latin-1"))
    keys_file.chmod(0o600)
    with pytest.raises(InvalidSetting, match=r"keys\.json: .*`clipper-stream keys create`"):
        read_keys(keys_file)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(name="Shop"), "name = 'Shop'"),
        (dict(name=""), "name = ''"),
        (dict(applications=["a b"]), r"applications\[0\] = 'a b'"),
        (dict(rights=["delete"]), r"rights\[0\] = 'delete': .*use one of feedback, operate, predict, read"),
        *((dict(rate=rate), f"rate = {rate}") for rate in (0.0, float("inf"), float("nan"))),
    ],
)
def test_a_value_outside_its_bound_makes_no_key(keys_file, changes, said):
    with pytest.raises(InvalidSetting, match=said):
        key_in(keys_file, **changes)
    assert not keys_file.exists()


def test_a_name_is_free_again_after_its_key_was_revoked(keys_file):
    with pytest.raises(UnknownName, match="in force are none"):
        revoke_key(keys_file, "shop", 9)
    key_in(keys_file)
    with pytest.raises(InvalidSetting, match="has a key 'shop'"):
        key_in(keys_file)
    with pytest.raises(UnknownName, match=r"no key 'stop' in .*; in force are shop"):
        revoke_key(keys_file, "stop", 9)
    revoke_key(keys_file, "shop", 9)
    key_in(keys_file)
    assert [key.revoked_ms for key in read_keys(keys_file)] == [9, None]
    revoke_key(keys_file, "shop", 11)
    assert [key.revoked_ms for key in read_keys(keys_file)] == [9, 11]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidSetting, match=r"nowhere/keys\.json: No such file or directory"):
        key_in(tmp_path / "nowhere/keys.json")


def test_no_key_is_lost_when_several_are_made_at_once(keys_file):
    threads = [threading.Thread(target=key_in, args=(keys_file, f"key-{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in read_keys(keys_file)} == {f"key-{n}" for n in range(8)}


# --- the ring -------------------------------------------------------------------------------------------------------
@pytest.fixture
def secret(keys_file):
    return key_in(keys_file)


@pytest.fixture
def ring(keys_file, secret, clock):
    return KeyRing(keys_file, clock)


def test_a_secret_finds_its_key_and_no_other_does(keys_file, ring, secret):
    assert ring.find(secret).name == "shop"
    for other in (secret[:-1], "", "cs_é", read_keys(keys_file)[0].digest):
        assert ring.find(other) is None


CHANGES = {"revoked": lambda file: revoke_key(file, "shop", 9), "removed": lambda file: file.unlink()}


@pytest.mark.parametrize("change", CHANGES)
def test_a_key_that_goes_is_refused_within_a_second_and_one_that_comes_counts(keys_file, ring, secret, clock, change):
    CHANGES[change](keys_file)
    clock.now_s += 0.999
    assert ring.find(secret) is not None
    clock.now_s += 0.001
    assert ring.find(secret) is None
    again = key_in(keys_file)
    clock.now_s += 1.0
    assert ring.find(again).name == "shop"


def test_a_changed_file_that_cannot_be_used_keeps_the_keys_and_warns_once(keys_file, ring, secret, clock, caplog):
    content = keys_file.read_bytes()
    keys_file.write_text("[")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.now_s += 1.0
            assert ring.find(secret) is not None
    assert [record.getMessage() for record in caplog.records] == ["API keys stay those of before"]
    assert "keys.json" in str(caplog.records[0].fields["error"])
    keys_file.write_bytes(content.replace(b'"shop"', b'"club"'))
    clock.now_s += 1.0
    assert ring.find(secret).name == "club"


def test_a_chmod_alone_makes_a_refused_file_count(keys_file, ring, secret, clock):
    revoke_key(keys_file, "shop", 9)
    for mode, counts in ((0o644, False), (0o600, True)):
        keys_file.chmod(mode)
        clock.now_s += 1.0
        assert (ring.find(secret) is None) == counts


def test_a_key_ends_by_itself(keys_file, clock):
    over, lasts = [key_in(keys_file, name, ends_ms=ends_ms) for name, ends_ms in (("a", 1), ("b", 2**50))]
    ring = KeyRing(keys_file, clock)
    assert (ring.find(over), ring.find(lasts).name) == (None, "b")


@pytest.mark.parametrize(("overlap_s", "works"), [(3_600.0, True), (0.0, False)])
def test_a_rotated_key_has_two_secrets_for_a_while(keys_file, clock, overlap_s, works):
    first = key_in(keys_file)
    second = rotate_key(keys_file, "shop", overlap_s, int(time.time() * 1000))
    ring = KeyRing(keys_file, clock)
    assert (ring.find(second).name, ring.find(first) is not None) == ("shop", works)
    third = rotate_key(keys_file, "shop", 3_600.0, int(time.time() * 1000))
    clock.now_s += 1.0
    assert [ring.find(secret) is not None for secret in (first, second, third)] == [False, True, True]
    revoke_key(keys_file, "shop", 9)
    clock.now_s += 1.0
    assert [ring.find(secret) for secret in (second, third)] == [None, None]
    with pytest.raises(UnknownName):
        rotate_key(keys_file, "shop", 0.0, 9)


def test_the_last_use_of_a_key_is_noted_beside_the_file(keys_file, clock):
    used, _ = key_in(keys_file), key_in(keys_file, "other")
    ring = KeyRing(keys_file, clock)
    began_ms = int(time.time() * 1000)
    ring.find(used)
    assert read_uses(keys_file) == {}
    clock.now_s += NOTED_S
    ring.find(used)
    ring.find("cs_wrong")
    (found,) = read_uses(keys_file).items()
    assert (found[0], found[1] >= began_ms) == ("shop", True)
    KeyRing(keys_file, clock).note_uses()
    assert read_uses(keys_file) == dict([found]), "another gateway's uses stay"


def test_keys_that_are_made_and_revoked_are_in_the_log(keys_file, ring, clock, caplog):
    caplog.set_level(logging.INFO)
    key_in(keys_file, "other")
    clock.now_s += 1.0
    ring.find("cs_wrong")
    revoke_key(keys_file, "shop", 9)
    clock.now_s += 1.0
    ring.find("cs_wrong")
    said = [(one.getMessage(), one.fields["key"]) for one in caplog.records if "key" in one.fields]
    assert said == [("an API key is made", "other"), ("an API key is gone", "shop")]


async def test_no_message_and_no_log_holds_a_secret(keys_file, clock, caplog):
    secret = key_in(keys_file, rate=0.01)
    with caplog.at_level(logging.DEBUG):
        ring = KeyRing(keys_file, clock)
        access = Access(keys=ring)
        await access.identify(sent(None, secret))
        with refuses(429) as refused:
            await access.identify(sent(None, secret))
        key_in(keys_file, "other")
        clock.now_s += 1.0
        ring.find("cs_wrong")
    said = str(refused.value) + caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert not any(part in said for part in (secret, secret[3:], "cs_wrong"))
    assert "API keys read" in said
