"""A team: PostgreSQL, an MLflow server on it, a Ray cluster of two nodes with their own addresses.

The second node is in a network namespace, so it reaches the first one and the server by the network
alone.
"""

import getpass
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import mlflow
import pytest
import requests
from conftest import ROOT, environment, free_port
from mlflow.tracking import MlflowClient
from study_project import finished, rows, wait_until, write
from test_study import output_at_end, project, start, study

__all__ = ["project"]  # a fixture

pytestmark = pytest.mark.study
SERVER = ROOT / ".venv/server/bin/mlflow"
FIRST, SECOND = "10.213.47.1", "10.213.47.2"
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
NAMESPACE = f"digits-{os.getpid()}"


def command(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def postgres_programs() -> Path:
    """The folder of PostgreSQL's programs, which Debian does not put on PATH."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    return programs[-1].parent


@contextmanager
def postgres() -> Iterator[str]:
    """A database of our own on loopback; its address."""
    programs, port = postgres_programs(), free_port()
    as_user = []
    if getpass.getuser() == "root":  # which PostgreSQL refuses to run as
        as_user = ["runuser", "-u", "postgres", "--"]
    with tempfile.TemporaryDirectory() as folder:
        if as_user:
            shutil.chown(folder, "postgres")
        data = f"{folder}/data"
        command(*as_user, f"{programs}/initdb", "-D", data, "-U", "digits", "--auth=trust")
        options = f"-h 127.0.0.1 -p {port} -k {folder}"
        control = [*as_user, f"{programs}/pg_ctl", "-D", data, "-l", f"{folder}/log", "-w"]
        # Its server would keep our pipe open.
        subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL)
        try:
            yield f"postgresql://digits@127.0.0.1:{port}/postgres"
        finally:
            command(*control, "-m", "immediate", "stop")


@contextmanager
def second_node() -> Iterator[list[str]]:
    """A network namespace beside this one; what a command there begins with."""
    if not shutil.which("ip") or os.geteuid() != 0:
        pytest.skip("needs root and iproute2, to make a network namespace")
    made = subprocess.run(["ip", "netns", "add", NAMESPACE], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
    inside = ["ip", "netns", "exec", NAMESPACE]
    try:
        command(
            "ip", "link", "add", "digits0", "type", "veth", "peer", "digits1", "netns", NAMESPACE
        )
        command("ip", "address", "add", f"{FIRST}/30", "dev", "digits0")
        command("ip", "link", "set", "digits0", "up")
        command(*inside, "ip", "address", "add", f"{SECOND}/30", "dev", "digits1")
        for device in ("digits1", "lo"):
            command(*inside, "ip", "link", "set", device, "up")
        yield inside
    finally:
        command("ip", "netns", "delete", NAMESPACE)


@contextmanager
def running(folder: Path, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the background, and all that it starts, ended at the end."""
    with (folder / f"{name}.log").open("wb") as log:
        started = subprocess.Popen(
            words,
            cwd=folder,
            env=environment(RAY_USAGE_STATS_ENABLED="0", **TOKEN),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        stop(started)


def stop(started: "subprocess.Popen[bytes]") -> None:
    if started.poll() is None:
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()


def answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/health", timeout=1).ok
    except requests.RequestException:
        return False


def node(address: str, *more: str) -> list[str]:
    """The command that starts a node of the cluster."""
    ray = str(Path(sys.executable).parent / "ray")
    return [ray, "start", "--node-ip-address", address, "--num-cpus", "1", "--block", *more]


def nodes(address: str) -> int:
    """How many nodes a cluster has."""
    asked = f"import ray; ray.init(address={address!r}); print(len(ray.nodes()))"
    done = subprocess.run(
        [sys.executable, "-c", asked], env=environment(**TOKEN), capture_output=True, text=True
    )
    return int(done.stdout or 0)


def test_a_study_on_two_nodes_with_a_teams_server(project: Path, tmp_path: Path) -> None:
    if not SERVER.exists():
        pytest.skip("needs the server's environment: `make test-study` makes it")
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        inside = stack.enter_context(second_node())
        port, head = free_port(), free_port()
        server = f"http://{FIRST}:{port}"
        where = ("--host", FIRST, "--port", str(port), "--artifacts-destination", f"{tmp_path}/s3")
        serve = (str(SERVER), "server", "--backend-store-uri", database, *where)
        stack.enter_context(running(tmp_path, "server", *serve))
        first = (*node(FIRST, "--head", "--port", str(head)), "--include-dashboard=false")
        stack.enter_context(running(tmp_path, "first", *first))
        wait_until(lambda: nodes(f"{FIRST}:{head}") == 1)
        second = (*inside, *node(SECOND, "--address", f"{FIRST}:{head}"))
        other = stack.enter_context(running(tmp_path, "second", *second))

        write(project, {"seeds": {"v1": 4, "v2": 2}, "models": True})
        address = ("--address", f"{FIRST}:{head}")
        wait_until(lambda: nodes(f"{FIRST}:{head}") == 2 and answers(server))
        done = study(project, "run", *address, **TOKEN)
        assert "nodes, which cannot share sqlite:///" in done.stderr.splitlines()[-1]
        shutil.rmtree(project / "mlruns", ignore_errors=True)
        (project / "mlflow.db").unlink()
        done = study(project, "run", *address, **TOKEN, MLFLOW_TRACKING_URI=server)
        assert done.returncode == 0, done.stdout + done.stderr
        expected = {*(f"v1-{seed}" for seed in range(1, 5)), "v2-1", "v2-2"}
        assert set(rows(project)) == expected
        mlflow.set_tracking_uri(server)
        client = MlflowClient()
        experiment = client.get_experiment_by_name("mnist")
        runs = client.search_runs([experiment.experiment_id])
        children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
        assert finished(children) == Counter(expected)
        assert {run.data.tags["node"] for run in children} == {FIRST, SECOND}
        for run in children:
            assert {"console.log", "trial.json"} <= {
                file.path for file in client.list_artifacts(run.info.run_id)
            }
            model = run.outputs.model_outputs[0].model_id
            assert mlflow.artifacts.download_artifacts(f"models:/{model}")
        assert not (project / "mlflow.db").exists()

        write(project, {"seeds": {"v1": 4}, "models": False}, epochs=1500)
        driver = start(project, "run", *address, **TOKEN, MLFLOW_TRACKING_URI=server)
        busy = "attributes.status = 'RUNNING' AND tags.node = '{}'"
        of_second = wait_until(
            lambda: client.search_runs([experiment.experiment_id], busy.format(SECOND))
        )
        stop(other)
        output = output_at_end(project, driver, 240)
        assert driver.returncode == 0, output
        (lost,) = of_second
        assert client.get_run(lost.info.run_id).info.status == "FAILED"
        name = lost.data.tags["trial"]
        again = client.search_runs(
            [experiment.experiment_id], f"tags.trial = '{name}'", order_by=["start_time DESC"]
        )[0]
        assert (again.info.status, again.data.tags["node"]) == ("FINISHED", FIRST)
    mlflow.set_tracking_uri(None)
