"""The programs of the live test: broker, operator, API server, Prometheus, each ended by its own process id.

Knows how to start, ask and end them; expects nothing."""
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

import chart

BINARIES = pathlib.Path(os.environ.get("KEELSON_BINARIES", chart.ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug"))
DEADLINE_S = 60


def wait(what, condition, seconds=DEADLINE_S):
    """The first true answer of condition(), asked again and again; what is in the message when there is none in time."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            last = condition()
            if last:
                return last
        except (OSError, ValueError, KeyError) as error:
            last = repr(error)
        time.sleep(0.1)  # the pause between two looks, not an assumption about time
    raise AssertionError(f"waited {seconds} s for {what}; last seen: {last}")


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def free_port():
    with contextlib.closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Process:
    """A program with its output in a file; ended with the test."""

    def __init__(self, folder, name, args, env=None):
        self.log = folder / f"{name}.log"
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen([str(a) for a in args], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                          env={**os.environ, **(env or {})})

    def end(self, how=signal.SIGTERM, seconds=20):
        if self.child.poll() is None:
            self.child.send_signal(how)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        return self.child.returncode

    def tail(self):
        return "".join(self.log.read_text(errors="replace").splitlines(keepends=True)[-30:])


def ready(folder, name, args, **more):
    """Starts a program that writes a ready file; (process, content of the file)."""
    file = folder / f"{name}.ready"
    file.unlink(missing_ok=True)
    process = Process(folder, name, [*args, "--ready-file", file], **more)

    def there():
        if process.child.poll() is not None:
            raise AssertionError(f"{name} ended with {process.child.returncode}:\n{process.tail()}")
        return file.exists() and json.loads(file.read_text())
    return process, wait(f"{name} to be ready", there)


def with_values(args, values):
    """The chart's own arguments with other values, so that a flag that is gone is noticed."""
    missing = [flag for flag in values if not any(a.startswith(flag + "=") for a in args)]
    if missing:
        raise AssertionError(f"the chart does not pass {missing}: {args}")
    return [f"{flag}={values[flag]}" if (flag := a.split("=")[0]) in values else a for a in args]


class Broker:
    """A broker with the chart's configuration, on loopback and free ports."""

    def __init__(self, folder, *settings):
        self.folder, self.data, self.settings = folder, folder / "data", settings
        self.container = chart.pod_container(chart.case_objects("default"), "StatefulSet", "demo-broker")
        (folder / "broker.properties").write_text(
            chart.find(chart.case_objects("default"), "ConfigMap", "demo-broker")["data"]["broker.properties"])

    def command(self, http="127.0.0.1:0"):
        args = with_values(self.container["args"], {
            "--data-dir": self.data, "--config": self.folder / "broker.properties",
            "--set": "advertised.listeners=PLAINTEXT://127.0.0.1:0"})
        words = [BINARIES / self.container["command"][0], *args]
        for setting in ("listeners=PLAINTEXT://127.0.0.1:0", f"http.listen={http}",
                        f"keelson.termination.message.path={self.folder / 'termination'}", *self.settings):
            words += ["--set", setting]
        return words

    def start(self):
        self.process, answer = ready(self.folder, "broker", self.command())
        self.kafka, self.http = answer["kafka"][0], answer["http"]
        return self

    def log_state(self):
        return json.loads(get(f"http://{self.http}/admin/v1/log"))

    def flip_byte_after(self, marker, under="wal"):
        """Changes one byte right behind the last place in the files below `under` that holds marker."""
        for path in sorted((p for p in (self.data / under).rglob("*") if p.is_file()), reverse=True):
            content = path.read_bytes()
            at = content.rfind(marker)
            if at >= 0:
                with open(path, "r+b") as file:
                    file.seek(at + len(marker))
                    byte = file.read(1)
                    file.seek(at + len(marker))
                    file.write(bytes([byte[0] ^ 0x01]))
                return path
        raise AssertionError(f"{marker!r} is in no file below {under}")


class Strace(Process):
    """What a slow or broken disk does to a running program, or to one thread of it: `inject` by system call, as strace takes it."""

    def __init__(self, folder, pid, inject, thread=None):
        words = [word for calls, what in inject.items() for word in ("-e", f"inject={calls}:{what}")]
        tasks = pathlib.Path(f"/proc/{pid}/task")
        if thread is None:
            who, traced = ["-f", "-p", pid], tasks.iterdir
        else:
            [task] = [t for t in tasks.iterdir() if (t / "comm").read_text().strip() == thread]
            who, traced = ["-p", task.name], lambda: [task]
        super().__init__(folder, "strace", ["strace", "-o", "/dev/null", "-e", "trace=" + ",".join(inject), *words, *who])
        wait("strace", lambda: not tasks.exists() or all("TracerPid:\t0\n" not in (t / "status").read_text() for t in traced()))


class ControlPlane:
    """etcd and the API server of tests/kube, without pods."""

    def __init__(self):
        self.env = {**os.environ, "KUBE_BENCH_CP": f"chart-live-{os.getpid()}"}
        done = subprocess.run([chart.ROOT / "tests/kube/control-plane.sh", "up", "--no-kcm"], env=self.env,
                              capture_output=True, text=True)
        if done.returncode:
            self.end()
            raise AssertionError(done.stderr)
        self.kubeconfig = done.stdout.strip().splitlines()[-1]

    def install(self, release, namespace):
        """The chart, for its CRDs, roles and accounts: without nodes no pod starts."""
        self.kubectl("create", "namespace", namespace)
        self.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        done = subprocess.run(["helm", "--kubeconfig", self.kubeconfig, "--namespace", namespace, "install", release, str(chart.CHART)],
                              capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(done.stderr)
        self.kubectl("wait", "--for=condition=Established", "crd/topics.keelson.dev", "crd/consumergroups.keelson.dev")

    def kubeconfig_of(self, folder, namespace, account):
        """Access with the rights of a service account, as its pods have it."""
        config = yaml.safe_load(pathlib.Path(self.kubeconfig).read_text())
        config["users"] = [{"name": account, "user": {"token": self.kubectl("-n", namespace, "create", "token", account).strip()}}]
        config["contexts"] = [{"name": "c", "context": {
            "cluster": config["clusters"][0]["name"], "user": account, "namespace": namespace}}]
        config["current-context"] = "c"
        path = folder / f"{account}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def kubectl(self, *args, stdin=None):
        return subprocess.run(["kubectl", "--kubeconfig", self.kubeconfig, *args], input=stdin, check=True,
                              capture_output=True, text=True).stdout

    def try_kubectl(self, *args, stdin=None):
        """Exit code and standard error, warnings of the API server among it."""
        done = subprocess.run(["kubectl", "--kubeconfig", self.kubeconfig, *args], input=stdin, capture_output=True, text=True)
        return done.returncode, done.stderr

    def end(self):
        subprocess.run([chart.ROOT / "tests/kube/control-plane.sh", "down"], env=self.env, capture_output=True)


def operator(folder, cluster, broker):
    """With the chart's arguments, and with the rights of its service account, so that its roles are shown to be enough."""
    container = chart.pod_container(chart.case_objects("default"), "Deployment", "demo-operator")
    args = with_values(container["args"], {
        "--bootstrap": broker.kafka, "--broker-http-port": broker.http.rsplit(":", 1)[1], "--http": "127.0.0.1:0"})
    process, answer = ready(folder, "operator", [BINARIES / container["command"][0], *args],
                            env={"KUBECONFIG": str(cluster.kubeconfig_of(folder, "streams", "demo-operator"))})
    return process, answer["http"]


class Prometheus:
    """Debian's Prometheus with the rules of the chart, looking every second."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.targets, self.lock = {}, threading.Lock()
        self._write_targets()
        (folder / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(chart.RULES)],
            "scrape_configs": [{"job_name": "keelson", "file_sd_configs": [{"files": [str(folder / "targets.json")]}]}],
        }))
        self.process = Process(folder, "prometheus", [
            "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"])
        wait("Prometheus", lambda: get(self.url("/-/ready")))

    def url(self, path, **query):
        return f"http://127.0.0.1:{self.port}{path}" + ("?" + urllib.parse.urlencode(query) if query else "")

    def scrape(self, **jobs):
        """Job to address. The instance is the job's name, so that a restart on another port goes on with its series."""
        with self.lock:
            self.targets.update(jobs)
            self._write_targets()

    def _write_targets(self):
        new = self.folder / "targets.json.new"
        new.write_text(json.dumps([{"targets": [address], "labels": {"job": job, "instance": job}}
                                   for job, address in self.targets.items()]))
        new.rename(self.folder / "targets.json")

    def query(self, expression, time=None):
        return self._ask("/api/v1/query", query=expression, **({"time": time} if time else {}))

    def range(self, expression, start, end, step):
        return self._ask("/api/v1/query_range", query=expression, start=start, end=end, step=step)

    def _ask(self, path, **query):
        try:
            answer = json.loads(get(self.url(path, **query)))
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from error
        return answer["data"]["result"]

    def firing_for(self, instance):
        """Names of the alerts that fire for a broker; those of whole jobs have no instance."""
        answer = json.loads(get(self.url("/api/v1/alerts")))
        return {a["labels"]["alertname"] for a in answer["data"]["alerts"]
                if a["state"] == "firing" and a["labels"].get("instance") == instance}

    def firing(self):
        answer = json.loads(get(self.url("/api/v1/alerts")))
        return {a["labels"]["alertname"]: a for a in answer["data"]["alerts"] if a["state"] == "firing"}
