import json

import pytest

from clipper_agents import exits
from clipper_gateway.keys import KeyRing, read_keys

ENDS = ("revoked_ms", "ends_ms", "used_ms")


def test_a_new_key_is_printed_once_and_alone(ran, tmp_path):
    code, out, err = ran("keys", "create", "shop")
    assert (code, out.count("\n")) == (exits.OK, 1)
    assert out.startswith("cs_")
    assert err == "key shop is in gateway-keys.json; its secret is not shown again\n"
    path = tmp_path / "gateway-keys.json"
    found = KeyRing(path).find(out.strip())
    assert (found.name, found.applications, found.rate) == ("shop", None, None)
    assert found.rights == ["predict", "feedback", "read"]
    assert out.strip() not in ran("keys", "list")[1] + ran("keys", "list", "--json")[1] + path.read_text()


def test_options_bound_what_the_key_may_do(ran, tmp_path):
    options = "--application digits -a sums --right operate --rate 2.5 --file k.json"
    assert ran("keys", "create", "shop", *options.split())[0] == exits.OK
    (found,) = read_keys(tmp_path / "k.json")
    assert (found.applications, found.rights, found.rate) == (["digits", "sums"], ["operate"], 2.5)


def test_keys_are_listed_with_what_they_may_and_without_digests(ran):
    assert ran("keys", "list") == (exits.OK, "no keys in gateway-keys.json\n", "")
    ran("keys", "create", "shop", "--rate", "5")
    ran("keys", "create", "club", "-a", "digits")
    ran("keys", "revoke", "shop")
    _, out, _ = ran("keys", "list")
    heading, shop, club = ([cell.strip() for cell in line.split("  ") if cell] for line in out.splitlines())
    assert heading == ["key", "applications", "rights", "rate", "created", "used", "ends", "state"]
    assert shop[:4] == ["shop", "all", "predict, feedback, read", "5"]
    assert shop[-1].startswith("revoked 20")
    assert (club[:3], club[-1]) == (["club", "digits", "predict, feedback, read"], "in force")
    lines = [json.loads(line) for line in ran("keys", "list", "--json")[1].splitlines()]
    assert [each["name"] for each in lines] == ["shop", "club"]
    assert lines[0]["revoked_ms"] >= lines[0]["created_ms"] > 10**12
    rights, created_ms = ["predict", "feedback", "read"], lines[1].pop("created_ms")
    about = {"name": "club", "applications": ["digits"], "rights": rights, "rate": None, "old_ends_ms": 0}
    assert lines[1] == about | dict.fromkeys(ENDS)
    assert created_ms > 10**12


def test_a_rotated_key_has_a_second_secret_and_one_may_end_by_itself(ran, tmp_path):
    _, first, _ = ran("keys", "create", "shop", "--days", 1)
    code, second, _ = ran("keys", "rotate", "shop")
    ring = KeyRing(tmp_path / "gateway-keys.json")
    assert (code, [ring.find(secret.strip()).name for secret in (first, second)]) == (exits.OK, ["shop", "shop"])
    assert ran("keys", "rotate", "nosuch")[0] == exits.SETUP
    (listed,) = [json.loads(line) for line in ran("keys", "list", "--json")[1].splitlines()]
    assert listed["ends_ms"] - listed["created_ms"] == pytest.approx(86_400_000, abs=60_000)


def test_revoking_ends_a_key_and_an_unknown_name_is_told(ran, tmp_path):
    _, out, _ = ran("keys", "create", "shop")
    assert ran("keys", "revoke", "shop") == (exits.OK, "key shop revoked\n", "")
    assert KeyRing(tmp_path / "gateway-keys.json").find(out.strip()) is None
    code, out, err = ran("keys", "revoke", "shop")
    assert (code, out) == (exits.SETUP, "")
    assert err.startswith("error: no key 'shop' in gateway-keys.json; in force are none")


def test_the_file_is_that_of_the_configuration_or_the_environment_wherever_it_is_called(ran, tmp_path, monkeypatch):
    folder = tmp_path / "deployment"
    folder.mkdir()
    (folder / "clipper.toml").write_text('[gateway]\nkeys_file = "own.json"\n')
    ran("keys", "create", "one", "--config", folder / "clipper.toml")
    monkeypatch.chdir(folder)
    ran("keys", "create", "two")
    assert [key.name for key in read_keys(folder / "own.json")] == ["one", "two"]
    monkeypatch.setenv("CLIPPER_GATEWAY_KEYS_FILE", str(tmp_path / "env.json"))
    ran("keys", "create", "three")
    assert [key.name for key in read_keys(tmp_path / "env.json")] == ["three"]
