"""`clipper-stream keys`: the file is that of the settings, and the secret is printed once, alone."""

import json

import pytest
from typer.testing import CliRunner

from clipper_agents import exits
from clipper_agents.cli import main as program
from clipper_agents.cli.keys import keys
from clipper_gateway.keys import KeyRing, read_keys


@pytest.fixture(autouse=True)
def _in_a_folder_without_settings(monkeypatch, tmp_path):
    monkeypatch.delenv("CLIPPER_GATEWAY_KEYS_FILE", raising=False)
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ran(capsys):
    """Run a command of `keys`; its exit code, standard output and standard error."""

    def run(*arguments):
        code = program.main(list(arguments), program=lambda given: keys(given, prog_name="keys"))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_new_key_is_printed_once_and_alone(ran, tmp_path):
    code, out, err = ran("create", "shop")
    assert (code, out.count("\n")) == (exits.OK, 1)
    assert out.startswith("cs_")
    assert err == "key shop is in gateway-keys.json; its secret is not shown again\n"
    path = tmp_path / "gateway-keys.json"
    found = KeyRing(path).find(out.strip())
    assert (found.name, found.applications, found.rate) == ("shop", None, None)
    assert found.rights == ["predict", "feedback", "read"]
    assert out.strip() not in ran("list")[1] + ran("list", "--json")[1] + path.read_text()


def test_options_bound_what_the_key_may_do(ran, tmp_path):
    options = ("--application", "digits", "-a", "sums", "--right", "operate", "--rate", "2.5", "--file", "k.json")
    assert ran("create", "shop", *options)[0] == exits.OK
    (found,) = read_keys(tmp_path / "k.json")
    assert (found.applications, found.rights, found.rate) == (["digits", "sums"], ["operate"], 2.5)


def test_keys_are_listed_with_what_they_may_and_without_digests(ran):
    assert ran("list") == (exits.OK, "no keys in gateway-keys.json\n", "")
    ran("create", "shop", "--rate", "5")
    ran("create", "club", "-a", "digits")
    ran("revoke", "shop")
    _, out, _ = ran("list")
    heading, shop, club = ([cell.strip() for cell in line.split("  ") if cell] for line in out.splitlines())
    assert heading == ["key", "applications", "rights", "rate", "created", "state"]
    assert shop[:4] == ["shop", "all", "predict, feedback, read", "5"]
    assert shop[-1].startswith("revoked 20")
    assert (club[:3], club[-1]) == (["club", "digits", "predict, feedback, read"], "in force")
    lines = [json.loads(line) for line in ran("list", "--json")[1].splitlines()]
    assert [each["name"] for each in lines] == ["shop", "club"]
    assert lines[0]["revoked_ms"] >= lines[0]["created_ms"] > 10**12
    assert lines[1] == {
        "name": "club",
        "applications": ["digits"],
        "rights": ["predict", "feedback", "read"],
        "rate": None,
        "created_ms": lines[1]["created_ms"],
        "revoked_ms": None,
    }


def test_revoking_ends_a_key_and_an_unknown_name_is_told(ran, tmp_path):
    _, out, _ = ran("create", "shop")
    assert ran("revoke", "shop") == (exits.OK, "key shop revoked\n", "")
    assert KeyRing(tmp_path / "gateway-keys.json").find(out.strip()) is None
    code, out, err = ran("revoke", "shop")
    assert (code, out) == (exits.SETUP, "")
    assert err.startswith("error: no key 'shop' in gateway-keys.json; in force are none")


def test_the_file_is_that_of_the_configuration_wherever_it_is_called(ran, tmp_path, monkeypatch):
    folder = tmp_path / "deployment"
    folder.mkdir()
    (folder / "clipper.toml").write_text('[gateway]\nkeys_file = "own.json"\n')
    assert ran("create", "one", "--config", str(folder / "clipper.toml"))[0] == exits.OK
    monkeypatch.chdir(folder)
    assert ran("create", "two")[0] == exits.OK
    assert [key.name for key in read_keys(folder / "own.json")] == ["one", "two"]


def test_the_environment_names_the_file_as_well(ran, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPPER_GATEWAY_KEYS_FILE", str(tmp_path / "env.json"))
    assert ran("create", "shop")[0] == exits.OK
    assert len(read_keys(tmp_path / "env.json")) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "Shop"), "error: API key: name = 'Shop': expected str of lower case letters"),
        (("create", "shop", "--right", "fly"), "use one of feedback, operate, predict, read"),
        (("create", "shop", "--rate", "0"), "rate = 0.0"),
        (("create", "shop", "--file", "no/keys.json"), "error: no/keys.json: No such file or directory"),
        (("list", "--config", "no.toml"), "error: no.toml: No such file or directory"),
    ],
)
def test_a_wrong_value_makes_no_key_and_is_one_line(ran, arguments, said):
    code, out, err = ran(*arguments)
    assert (code, out, err.count("\n")) == (exits.SETUP, "", 1)
    assert said in err


def test_the_help_of_each_command_has_an_example():
    for command in ("create", "list", "revoke"):
        shown = CliRunner().invoke(keys, [command, "--help"])
        assert f"Example: clipper-stream keys {command}" in " ".join(shown.output.split())
