"""The units fit the program, and systemd takes them."""

import os
import shutil
import subprocess

import pytest
import typer.main
from builders.systemd import CONFIG, NAMES, PROGRAM, UNITS, command, environment, settings
from sources import ROOT

from clipper_agents import exits
from clipper_agents.cli.main import app
from clipper_agents.settings import load_settings

PAGE = (ROOT / "docs/how-to/three-machines.md").read_text()


@pytest.mark.parametrize("unit", NAMES)
def test_a_unit_runs_the_program_under_a_name_of_its_machine_and_is_on_the_page(unit):
    words = command(unit, "a.example")
    taken = typer.main.get_command(app)
    while hasattr(taken, "commands"):
        taken = taken.commands[words.pop(0)]
    context = taken.make_context(taken.name, words)  # raises what the command line would say
    assert str(context.params["config"]) == CONFIG
    assert "a.example" in context.params["instance"]
    assert unit.removesuffix(".service").removesuffix("@") in PAGE


def test_units_of_a_machine_have_their_metrics_at_ports_of_their_own_which_the_page_names():
    variables = [one for unit in NAMES for number in {0, "@" in unit} for one in environment(unit, int(number)).items()]
    settings_of = load_settings(ROOT / "deploy/clipper.toml", dict(variables))
    assert settings_of.router.metrics_port == 9101
    ports = [port for _, port in variables]
    assert len({*ports}) == len(ports) == 6
    assert all(port in PAGE for port in ports if port != "9101")


def test_a_service_is_started_again_unless_somebody_has_to_change_something_first():
    for found in map(settings, NAMES):
        assert (found["Restart"], found["StartLimitIntervalSec"]) == ("always", "0")
        assert found["RestartPreventExitStatus"] == str(exits.SETUP)
        assert int(found["TimeoutStopSec"]) > 30, "a worker has 25 s to drain, a gateway 25"


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    if shutil.which("systemd-analyze") is None:
        return  # what the tests above read has to do
    shutil.copytree(UNITS, tmp_path / "units")
    for unit in NAMES:
        path = tmp_path / "units" / unit
        path.write_text(path.read_text().replace(PROGRAM, "/bin/true"))
    names = [unit.replace("@", "@0") for unit in NAMES]
    done = subprocess.run(
        ["systemd-analyze", "verify", *names], capture_output=True, text=True, check=False,
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path / 'units'}:"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
