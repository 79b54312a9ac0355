"""`make image` without Rust: small programs in place of the real ones show the root file system and the archive."""
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import unittest

import chart

PROGRAMS = ("keelson-broker", "keelson-operator", "keelson-bench")


def build(folder):
    """Path of the archive that build.sh makes of the programs in folder/bin."""
    env = {**os.environ, "KEELSON_BINARIES": str(folder / "bin"), "CARGO_TARGET_DIR": str(folder / "target")}
    done = subprocess.run([chart.ROOT / "charts/image/build.sh"], env=env, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(done.stderr)
    return pathlib.Path(done.stdout.strip().splitlines()[-1])


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="keelson-image-"))
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        (folder / "bin").mkdir()
        for program in PROGRAMS:
            shutil.copy(shutil.which("true"), folder / "bin" / program)
        archive = build(folder)
        cls.first = archive.read_bytes()
        cls.second = build(folder).read_bytes()
        with tarfile.open(archive) as tar:
            cls.files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
        index = json.loads(cls.files["index.json"])
        cls.manifest = cls.blob(index["manifests"][0])
        cls.config = json.loads(cls.blob(json.loads(cls.manifest)["config"]))
        [layer] = json.loads(cls.manifest)["layers"]
        with tarfile.open(fileobj=io.BytesIO(cls.blob(layer))) as tar:
            cls.layer = {m.name: m for m in tar}

    @classmethod
    def blob(cls, descriptor):
        """The content that a descriptor names, its size and digest checked."""
        content = cls.files["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]
        assert len(content) == descriptor["size"]
        assert "sha256:" + hashlib.sha256(content).hexdigest() == descriptor["digest"]
        return content

    def test_the_same_programs_give_the_same_archive(self):
        self.assertEqual(self.first, self.second)

    def test_it_runs_as_nobody_special(self):
        self.assertEqual(self.config["config"]["User"], "65532:65532")
        self.assertEqual(set(self.config["config"]["ExposedPorts"]), {"9092/tcp", "9080/tcp", "9081/tcp"})

    def test_it_holds_the_three_programs_and_what_they_need(self):
        for program in PROGRAMS:
            self.assertEqual(self.layer[f"usr/local/bin/{program}"].mode, 0o755)
        self.assertTrue(any(name.endswith("/libc.so.6") for name in self.layer))
        self.assertFalse(any(re.search(r"/(ba|da|)sh$", name) for name in self.layer), "no shell")
        self.assertTrue(all(m.uid == 0 and m.gid == 0 and m.mtime == 0 for m in self.layer.values()))

    def test_the_dockerfile_makes_the_same(self):
        text = (chart.ROOT / "Dockerfile").read_text()
        self.assertIn("charts/image/rootfs.sh", text)
        self.assertIn("FROM scratch", text)
        self.assertIn("USER 65532:65532", text)
        toolchain = re.search(r'channel = "(\d+\.\d+)', (chart.ROOT / "rust-toolchain.toml").read_text())[1]
        self.assertIn(f"FROM rust:{toolchain}-bookworm", text)
        tag = re.search(r"docker build -t keelson:(\S+)", text)[1]
        self.assertIn(f'appVersion: "{tag}"', (chart.CHART / "Chart.yaml").read_text())
