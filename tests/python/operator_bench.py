"""What the operator costs: memory with 5,000 topics, requests to the API server, and the time from apply to Ready.

Starts etcd and a real kube-apiserver with an audit log (tests/kube/control-plane.sh, no pods), a broker and the operator from
release binaries, and writes the results between the markers of docs/performance.md. Requests are counted from the audit log, by
the operator's own user. Standard library only; `tests/operator-bench.sh` builds what this calls.
"""

import base64
import collections
import http.client
import json
import math
import os
import platform
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARIES = Path(os.environ.get("KEELSON_BINARIES") or Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release")
TOPICS = int(os.environ.get("KEELSON_BENCH_TOPICS", "5000"))
SAMPLES = int(os.environ.get("KEELSON_BENCH_SAMPLES", "200"))
WATCH_SECONDS = int(os.environ.get("KEELSON_BENCH_WATCH_SECONDS", "180"))
BEGIN, END = "<!-- make operator-bench: begin -->", "<!-- make operator-bench: end -->"
NAMESPACE = "bench"
TOPICS_PATH = f"/apis/keelson.dev/v1alpha1/namespaces/{NAMESPACE}/topics"
RSS_MB_MAX, READY_P99_SECONDS_MAX = 64, 1.0
OPERATOR_USER = "keelson-operator"
AUDIT_POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n"


def wait_for(what, probe, seconds=60):
    end = time.monotonic() + seconds
    while not (value := probe()):
        if time.monotonic() > end:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return value


class ControlPlane:
    """etcd and kube-apiserver, with an audit log of metadata."""

    def __init__(self, home):
        self.home, self.audit = home, home / "audit.log"
        (home / "audit.yaml").write_text(AUDIT_POLICY)
        self.environment = dict(os.environ, KUBE_BENCH_CP=f"operator-bench-{os.getpid()}", KUBE_BENCH_API_FLAGS=(
            f"--audit-policy-file={home}/audit.yaml --audit-log-path={self.audit} --audit-log-maxsize=2000"))
        self.kubeconfig = self.script("up", "--no-kcm").strip()
        text = Path(self.kubeconfig).read_text()
        self.address = re.search(r'server: "https://([^"]+)"', text).group(1)
        self.files = {}
        for name in ("certificate-authority-data", "client-certificate-data", "client-key-data"):
            self.files[name] = home / name
            self.files[name].write_bytes(base64.b64decode(re.search(name + r": ([\w+/=]+)", text).group(1)))
        self.tls = ssl.create_default_context(cafile=self.files["certificate-authority-data"])
        self.tls.load_cert_chain(self.files["client-certificate-data"], self.files["client-key-data"])
        # The operator gets a name of its own in the audit log, with all rights: what is measured here is cost.
        self.operator_kubeconfig = home / "operator.conf"
        self.operator_kubeconfig.write_text(text.replace("{client-certificate-data", f"{{as: {OPERATOR_USER}, as-groups: [system:masters], client-certificate-data"))

    def script(self, *words):
        return subprocess.run([ROOT / "tests/kube/control-plane.sh", *words], env=self.environment, check=True, stdout=subprocess.PIPE,
                              text=True).stdout

    def connection(self):
        return http.client.HTTPSConnection(self.address, context=self.tls, timeout=600)

    def kubectl(self, *words, **more):
        return subprocess.run(["kubectl", "--kubeconfig", self.kubeconfig, *map(str, words)], check=True, capture_output=True, text=True, **more)

    def operator_requests(self, start, end):
        """{(verb, resource): number} of the operator's requests that ended between two places of the audit log. A watch ends late
        and is counted when it starts."""
        counts = collections.Counter()
        with open(self.audit, "rb") as log:
            log.seek(start)
            for line in log.read(end - start).splitlines():
                event = json.loads(line)
                if event.get("impersonatedUser", {}).get("username") != OPERATOR_USER:
                    continue
                if event["verb"] == "watch" and event["stage"] != "ResponseStarted":
                    continue
                reference = event.get("objectRef", {})
                resource = "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))
                counts[event["verb"], resource or event["requestURI"]] += 1
        return counts

    def stop(self):
        self.script("down")


class Process:
    """A broker or an operator, with its log in a file."""

    def __init__(self, home, name, *words, **environment):
        self.home, self.name, self.ready_file = home, name, home / f"{name}.ready"
        self.ready_file.unlink(missing_ok=True)
        with open(home / f"{name}.log", "ab") as log:
            self.process = subprocess.Popen([str(BINARIES / name), *map(str, words), "--ready-file", str(self.ready_file)],
                                            stdout=log, stderr=log, env=dict(os.environ, **environment))
        wait_for(f"{name} is ready", self.is_ready)
        self.facts = json.loads(self.ready_file.read_text())

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError((self.home / f"{self.name}.log").read_text()[-2000:])
        return self.ready_file.exists() and self.ready_file.read_text()

    def memory_mb(self, field):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(field + r":\s+(\d+) kB", status).group(1)) * 1024 / 1e6

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class Watch(threading.Thread):
    """Notes when each Topic was first seen Ready."""

    def __init__(self, plane):
        super().__init__(daemon=True)
        self.plane, self.ready, self.changed = plane, {}, threading.Condition()
        self.stream = wait_for("the API server serves Topics", self.open)

    def open(self):
        connection = self.plane.connection()
        connection.request("GET", f"{TOPICS_PATH}?watch=1&resourceVersion=0&timeoutSeconds=7200", headers={"User-Agent": "bench"})
        answer = connection.getresponse()
        return answer if answer.status == 200 else None

    def run(self):
        for line in self.stream:
            now, topic = time.monotonic(), json.loads(line)["object"]
            conditions = {it["type"]: it["status"] for it in topic.get("status", {}).get("conditions", [])}
            if conditions.get("Ready") == "True":
                with self.changed:
                    self.ready.setdefault(topic["metadata"]["name"], now)
                    self.changed.notify_all()

    def wait(self, name, seconds=60):
        with self.changed:
            if not self.changed.wait_for(lambda: name in self.ready, seconds):
                raise RuntimeError(f"{name} is not Ready after {seconds} s")
            return self.ready[name]

    def wait_number(self, number, seconds):
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.ready) >= number, seconds):
                raise RuntimeError(f"{len(self.ready)} of {number} Topics are Ready after {seconds} s")


def topic(name):
    return json.dumps({"apiVersion": "keelson.dev/v1alpha1", "kind": "Topic", "metadata": {"name": name}, "spec": {
        "clusterRef": {"name": "bench"}, "partitions": 1, "config": {"retention.ms": 604800000}, "deletionPolicy": "Delete"}})


def create(connection, name):
    connection.request("POST", TOPICS_PATH, topic(name), {"Content-Type": "application/json", "User-Agent": "bench"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 201:
        raise RuntimeError(body.decode())


def percentile(values, share):
    return sorted(values)[math.ceil(len(values) * share) - 1]


def by_request(plane, watch, prefix):
    """Seconds from sending the request that creates a Topic until it is seen Ready, one after the other."""
    connection, times = plane.connection(), []
    for number in range(SAMPLES):
        begun = time.monotonic()
        create(connection, f"{prefix}-{number}")
        times.append(watch.wait(f"{prefix}-{number}") - begun)
    return times


def by_kubectl(plane, watch, prefix):
    """The same from the start of the process `kubectl apply -f -`."""
    times = []
    for number in range(SAMPLES):
        begun = time.monotonic()
        plane.kubectl("-n", NAMESPACE, "apply", "-f", "-", input=topic(f"{prefix}-{number}"))
        times.append(watch.wait(f"{prefix}-{number}") - begun)
    return times


def fill(plane, watch, number):
    """So many Topics at once, from eight connections. Seconds until all are Ready."""
    begun = time.monotonic()

    def some(first):
        connection = plane.connection()
        for it in range(first, number, 8):
            create(connection, f"many-{it}")

    before = len(watch.ready)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(some, range(8)))
    watch.wait_number(before + number, 1200)
    return time.monotonic() - begun


def steady(plane, operator):
    """The operator's requests per minute, and its share of a core, while nothing changes."""
    time.sleep(WATCH_SECONDS / 2)  # what the last changes have set going ends first
    start, cpu = plane.audit.stat().st_size, operator.cpu_seconds()
    time.sleep(WATCH_SECONDS)
    counts = plane.operator_requests(start, plane.audit.stat().st_size)
    minutes = WATCH_SECONDS / 60
    return {key: number / minutes for key, number in counts.items()}, (operator.cpu_seconds() - cpu) / WATCH_SECONDS


def row(name, times):
    return f"| {name} | {len(times)} | {percentile(times, 0.5):.3f} | {percentile(times, 0.99):.3f} | {max(times):.3f} |"


def verdict(met, text):
    return f"- {'met' if met else 'NOT met'}: {text}"


def report(found):
    requests = sorted(found["requests"].items(), key=lambda it: -it[1])
    # Those of the lease are written by design; every other write would be one that says nothing new.
    writes = sum(n for (verb, resource), n in requests if verb in ("patch", "create", "update", "delete") and resource != "leases")
    lines = [
        f"{date.today()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, kube-apiserver and etcd on the same machine, {TOPICS:,} Topics of one "
        f"partition with `deletionPolicy: Delete`. A sample begins when the request is sent (or `kubectl` is started) and ends when a watch says Ready. "
        f"Load average of the machine when it began and ended: {found['load'][0]:.1f}, {found['load'][1]:.1f}.", "",
        "| From apply to Ready, seconds | Samples | p50 | p99 | Longest |", "|---|---:|---:|---:|---:|",
        row("the request, few Topics", found["few"]), row("`kubectl apply` as a whole, few Topics", found["kubectl"]),
        row(f"the request, {TOPICS:,} Topics", found["many"]), "",
        "| Measure | Result |", "|---|---:|",
        f"| {TOPICS:,} Topics at once, until all are Ready | {found['fill']:.0f} s |",
        f"| Operator RSS with {TOPICS:,} Topics | {found['rss']:.0f} MB |",
        f"| Its peak | {found['peak']:.0f} MB |",
        f"| RSS of a new operator that finds them all there | {found['rss_restarted']:.0f} MB |",
        f"| Its peak | {found['peak_restarted']:.0f} MB |",
        f"| Operator's share of a core, nothing changing | {found['cpu'] * 100:.1f} % |",
        f"| Its requests to the API server per minute | {sum(n for _, n in requests):.1f} |",
    ] + [f"| of these, {verb} {resource} | {n:.1f} |" for (verb, resource), n in requests] + [
        "", verdict(found["rss"] < RSS_MB_MAX and found["rss_restarted"] < RSS_MB_MAX, f"operator RSS {max(found['rss'], found['rss_restarted']):.0f} MB (below {RSS_MB_MAX})"),
        verdict(percentile(found["kubectl"], 0.99) < READY_P99_SECONDS_MAX, f"p99 from `kubectl apply` to Ready {percentile(found['kubectl'], 0.99):.3f} s (below {READY_P99_SECONDS_MAX:.0f})"),
        verdict(writes == 0, f"{writes:.1f} writes per minute when nothing changes, but for the lease (none)"),
    ]
    return lines


def measure(home):
    plane, load = ControlPlane(home), os.getloadavg()[0]
    running = []
    try:
        plane.kubectl("apply", "-f", ROOT / "crds")
        plane.kubectl("create", "namespace", NAMESPACE)
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        broker = Process(home, "keelson-broker", "start", "--data-dir", home / "data", "--set", "listeners=PLAINTEXT://127.0.0.1:0",
                         "--set", "http.listen=127.0.0.1:0")
        running.append(broker)

        def operator():
            return Process(home, "keelson-operator", "run", "--cluster", "bench", "--namespace", NAMESPACE, "--bootstrap",
                           broker.facts["kafka"][0], "--broker-http-port", broker.facts["http"].rsplit(":", 1)[1], "--http",
                           "127.0.0.1:0", KUBECONFIG=str(plane.operator_kubeconfig))

        running.append(operator())
        watch = Watch(plane)
        watch.start()
        create(plane.connection(), "first")
        watch.wait("first")  # the operator leads from here on
        found = {"few": by_request(plane, watch, "few"), "kubectl": by_kubectl(plane, watch, "kubectl")}
        print(row("few", found["few"]), row("kubectl", found["kubectl"]), flush=True)
        found["fill"] = fill(plane, watch, TOPICS - 3 * SAMPLES)
        found["many"] = by_request(plane, watch, "late")
        print(row("many", found["many"]), f"filled in {found['fill']:.0f} s", flush=True)
        found["requests"], found["cpu"] = steady(plane, running[-1])
        found["rss"], found["peak"] = running[-1].memory_mb("VmRSS"), running[-1].memory_mb("VmHWM")
        running.pop().stop()
        running.append(operator())
        time.sleep(WATCH_SECONDS / 2)
        found["rss_restarted"], found["peak_restarted"] = running[-1].memory_mb("VmRSS"), running[-1].memory_mb("VmHWM")
        found["load"] = load, os.getloadavg()[0]
        return found
    finally:
        try:
            for process in reversed(running):
                process.stop()
        finally:
            plane.stop()


def main():
    home = Path(tempfile.mkdtemp(prefix="operator-bench-"))
    try:
        lines = report(measure(home))
    except BaseException:
        print(f"logs: {home}", file=sys.stderr)
        raise
    shutil.rmtree(home)
    print("\n".join(lines))
    if "--no-write" not in sys.argv:
        path = ROOT / "docs/performance.md"
        text = path.read_text()
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        path.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after)
    sys.exit(any(line.startswith("- NOT met") for line in lines))


if __name__ == "__main__":
    main()
