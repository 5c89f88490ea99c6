import hashlib
import json
import logging
import stat
import threading

import pytest
from unit.gateway.rig import key_in, refuses

from clipper_gateway.keys import ApiKey, KeyRing, read_keys, revoke_key
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


@pytest.mark.parametrize(
    ("rate", "at_once", "wait_s", "retry_after"), [(2.0, 2, 0.5, "1"), (0.1, 1, 10.0, "10"), (1.0, 1, 1.0, "1")]
)
def test_a_key_sends_as_many_requests_a_second_as_its_rate_says(keys_file, clock, rate, at_once, wait_s, retry_after):
    secret = key_in(keys_file, rate=rate)
    ring = KeyRing(keys_file, clock)

    def sends(requests):
        for _ in range(requests):
            assert ring.find(secret).name == "shop"
        with refuses(429, rf"{rate:g} requests a second: wait {wait_s:.3f} s") as refused:
            ring.find(secret)
        assert refused.value.headers == {"retry-after": retry_after}

    sends(at_once)
    clock.now_s += wait_s
    sends(1)
    clock.now_s += 3600.0
    sends(at_once)


def test_keys_have_rates_of_their_own_and_a_reload_fills_none(keys_file, clock):
    first, second = key_in(keys_file, rate=0.01), key_in(keys_file, "other", rate=0.01)
    ring = KeyRing(keys_file, clock)
    ring.find(first)
    ring.find(second)
    key_in(keys_file, "third")
    clock.now_s += 1.0
    with refuses(429):
        ring.find(first)


def test_no_message_and_no_log_holds_a_secret(keys_file, clock, caplog):
    secret = key_in(keys_file, rate=0.01)
    with caplog.at_level(logging.DEBUG):
        ring = KeyRing(keys_file, clock)
        ring.find(secret)
        with refuses(429) as refused:
            ring.find(secret)
        key_in(keys_file, "other")
        clock.now_s += 1.0
        ring.find("cs_wrong")
    said = str(refused.value) + caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert not any(part in said for part in (secret, secret[3:], "cs_wrong"))
    assert "API keys read" in said
