"""The other commands, and what all have in common: start-up, help, version, exit codes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.answering_engine import EngineServer, command_environment
from helpers.family_fixtures import fixture_folder
from helpers.unmask_process import Unmask


@pytest.fixture
def local(tmp_path: Path) -> Unmask:
    """The command line without a remote engine."""
    return Unmask(tmp_path)


def test_help_lists_the_commands_of_the_contract(local: Unmask) -> None:
    done = local.run("--help")
    assert done.code == 0
    listed = {line.split()[1] for line in done.out.decode().splitlines() if line.startswith("│ ")}
    assert listed >= {"serve", "complete", "edit", "pull", "models", "status", "eval", "bench"}
    assert b"infilling" in local.run("eval", "--help").out
    assert b"decode" in local.run("bench", "--help").out
    assert b"both" in local.run("edit", "--help").out


def processor_seconds(command: list[str], environment: dict[str, str]) -> float:
    """Processor time of a command, the least of three: the machine may be busy."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=environment, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_starts_fast_and_without_torch(local: Unmask) -> None:
    environment = command_environment(local.folder)
    ours = processor_seconds([sys.executable, "-m", "diffusion_core.commands", "--help"], environment)
    # 0.3 s on a fast machine, twice that on a slow one: what torch alone takes there is the measure.
    assert ours < 0.5 * processor_seconds([sys.executable, "-c", "import torch"], environment)
    code = "import json, sys; import diffusion_core.commands as c; c.make_app(); print(json.dumps(list(sys.modules)))"
    listed = subprocess.run([sys.executable, "-c", code], env=command_environment(local.folder), capture_output=True)
    loaded = set(json.loads(listed.stdout))
    assert "typer" in loaded
    assert not loaded & {"torch", "transformers", "numpy", "starlette", "uvicorn", "pygls"}


def test_version_and_unknown_commands(local: Unmask) -> None:
    version = local.run("--version")
    assert version.code == 0 and version.out.startswith(b"unmask ")
    assert local.run("fly").code == 2
    assert local.run("complete").code == 2
    assert local.run("eval", "generation").code == 2


def test_other_packages_add_commands(local: Unmask) -> None:
    folder = local.folder / "site"
    (folder / "extra-1.dist-info").mkdir(parents=True)
    (folder / "extra-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1\n")
    (folder / "extra-1.dist-info" / "entry_points.txt").write_text(
        "[unmask.commands]\nextra = extra_commands:register\nbroken = no_such_module:register\n"
    )
    (folder / "extra_commands.py").write_text(
        "def register(app):\n    @app.command()\n    def extra():\n        print('it works')\n"
    )
    paths = os.pathsep.join((command_environment(local.folder)["PYTHONPATH"], str(folder)))
    process = local.start("extra", PYTHONPATH=paths)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, b"it works\n")
    assert b"no_such_module" in err


def test_models_lists_the_registry(local: Unmask) -> None:
    done = local.run("models", "--json")
    assert done.code == 0
    by_name = {model["name"]: model for model in done.json["models"]}
    assert by_name["qwen2.5-coder-0.5b"]["downloaded"] is False
    assert by_name["qwen2.5-coder-0.5b"]["task"] == "complete"
    assert "qwen2.5-coder-1.5b" in local.run("models").out.decode()


def test_models_show_what_each_needs_and_can_do(local: Unmask) -> None:
    shown = local.run("models", "stable-diffcoder-8b").out.decode()
    for text in ("MIT", "8.3B", "memory, int4", "8192 tokens", "fill in the middle", "nothing of these weights"):
        assert text in shown
    asked = local.run("models", "stable-diffcoder-8b", "--json", "--context", "4096").json
    needs = asked["memory"]["bytes"]
    assert needs["int4"]["total"] < needs["int8"]["total"] < needs["bfloat16"]["total"] < needs["float32"]["total"]
    assert needs["int4"]["total"] < 12e9 < needs["bfloat16"]["weights"]
    assert (asked["context"], asked["block_size"], asked["fill_in_the_middle"], asked["edit"]) == (8192, 4, True, True)
    assert (asked["verified"], asked["downloaded"]) == ([], False)
    folder = fixture_folder("sdar")
    by_path = local.run("models", str(folder), "--json").json
    assert (by_path["family"], by_path["fill_in_the_middle"]) == ("sdar", False)
    unknown = local.run("models", "no-such-model")
    assert unknown.code == 1 and "unknown" in unknown.err


def test_models_show_a_plan_for_several_gpus(local: Unmask) -> None:
    shown = local.run("models", "--plan", "qwen2.5-coder-0.5b")
    assert shown.code == 0
    assert "14 heads over 2 key heads cannot be divided among 4 GPUs" in " ".join(shown.out.decode().split())
    plans = local.run("models", "--plan", "llada-8b", "--json").json["plan"]
    assert [plan["gpus"] for plan in plans] == [1, 2, 4]
    assert [plan["kv_heads"] for plan in plans] == [32, 16, 8]
    assert plans[2]["weight_bytes"]["bfloat16"] == pytest.approx(plans[0]["weight_bytes"]["bfloat16"] / 4, rel=0.01)
    assert local.run("models", "--plan").code == 2


def test_a_licence_that_restricts_use_is_named_and_refused_where_nobody_can_answer(local: Unmask) -> None:
    refused = local.run("pull", "diffucoder-7b")
    assert refused.code == 1
    assert "apple-amlr (research only)" in refused.err and "--accept-licence apple-amlr" in refused.err
    wrong = local.run("pull", "diffucoder-7b", "--accept-licence", "MIT")
    assert wrong.code == 1 and "not MIT" in wrong.err
    folder = local.run("pull", "mine", "--path", fixture_folder("coda"), "--accept-licence", "CC-BY-NC-4.0")
    assert folder.code == 0
    assert local.run("models", "mine", "--json").json["accepted_licence"] == "CC-BY-NC-4.0"


def test_pull_refuses_what_cannot_be_pulled(local: Unmask) -> None:
    unknown = local.run("pull", "no-such-model")
    assert unknown.code == 1 and "qwen2.5-coder-0.5b" in unknown.err
    assert local.run("pull", "own", "--source", "path").code == 2
    assert local.run("pull", "own", "--source", "moon").code == 2
    assert local.run("pull", "own", "--source", "hub", "--path", "x").code == 2
    missing = local.run("pull", "own", "--path", local.folder / "absent")
    assert missing.code == 1 and "absent" in missing.err and "Traceback" not in missing.err


def test_status_of_a_remote_engine(unmask: Unmask) -> None:
    done = unmask.run("status", "--json")
    assert done.code == 0
    assert (done.json["status"], done.json["device"], done.json["dtype"]) == ("ready", "cpu", "float32")
    assert done.json["models"][0]["name"] == "scripted-model"
    shown = unmask.run("status")
    assert shown.code == 0
    shares = ("load: 0 active, 0 waiting", "of prompt tokens reused")
    for text in ("ready", "scripted-model", "1.00 GiB", "cpu", "a small model serves both tasks", *shares):
        assert text in shown.out.decode()
    nobody = unmask.run("status", "--url", "http://127.0.0.1:9")
    assert nobody.code == 1 and nobody.err.startswith("error: ")


def test_status_never_starts_a_local_engine(local: Unmask) -> None:
    assert local.run("status", "--json").json["status"] == "stopped"
    done = local.run("status")
    assert done.code == 0 and b"No local engine" in done.out
    assert not list((local.folder / "state").glob("*.json"))


def test_options_may_stand_before_or_after_the_command(server: EngineServer, local: Unmask) -> None:
    (local.folder / "f.py").write_text("x")
    token = server.folder / "token"
    tail = ("complete", local.folder / "f.py", "--line", 0, "--character", 1, "--json")
    before = local.run("--url", server.url, "--token-file", token, "--model", "outer", *tail)
    assert before.json["model"] == "outer"
    after = local.run("--model", "outer", *tail, "--url", server.url, "--token-file", token, "--model", "inner")
    assert after.json["model"] == "inner"
    by_variable = local.run(*tail, UNMASK_CLIENT_URL=server.url, UNMASK_CLIENT_TOKEN=token.read_text())
    assert by_variable.code == 0


def test_ctrl_c_ends_a_request_with_130(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    server.script(delay_s=30)
    (tmp_path / "f.py").write_text("x")
    process = unmask.start("complete", tmp_path / "f.py", "--line", 0, "--character", 0)
    while not server.requests:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and b"Traceback" not in err


def test_a_reader_that_leaves_is_no_error_message(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    server.script(x="y" * 200_000)
    (tmp_path / "f.py").write_text("x")
    process = unmask.start("complete", tmp_path / "f.py", "--line", 0, "--character", 1)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait(20)
    assert process.returncode == 1 and err == b""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[engine]\nmodell = 'x'", "modell"),
        ("[engine]\nnum_threads = 'two'", "num_threads"),
        ("[motor]\n", "motor"),
        ("engine = 3", "engine"),
        ("[engine", "cannot be read"),
        ("[server]\nport = 70000", "port"),
    ],
)
def test_serve_refuses_a_wrong_configuration(local: Unmask, content: str, message: str) -> None:
    path = local.folder / "unmask.toml"
    path.write_text(content)
    done = local.run("serve", "--config", path)
    assert done.code == 2 and message in " ".join(done.err.split())


def test_serve_reports_a_model_that_is_not_there(local: Unmask) -> None:
    path = local.folder / "unmask.toml"
    path.write_text("[engine]\nmodel = 'no-such-model'\n[server]\nport = 0\nidle_exit_s = 60\n")
    process = local.start("serve", "--config", path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"no-such-model" in err and b"Traceback" not in err


def test_flags_and_variables_win_over_the_file(tmp_path: Path) -> None:
    from diffusion_core.cli.serve import merge_config, read_config_file
    from diffusion_core.config import EngineConfig, ServerConfig

    path = tmp_path / "unmask.toml"
    path.write_text("[engine]\nmodel = 'of-file'\nnum_threads = 3\n[server]\nhost = 'h'\nidle_exit_s = 5\n")
    tables = read_config_file(path)
    os.environ["UNMASK_ENGINE_NUM_THREADS"] = "4"
    try:
        engine = merge_config(EngineConfig, "engine", tables, model="of-flag")
        assert (engine.model, engine.num_threads) == ("of-flag", 4)
        assert merge_config(EngineConfig, "engine", tables).model == "of-file"
        server = merge_config(ServerConfig, "server", tables, host=None, port=1)
        assert (server.host, server.port, server.idle_exit_s) == ("h", 1, 5.0)
    finally:
        del os.environ["UNMASK_ENGINE_NUM_THREADS"]
