"""Each check of the doctor can say no: what is broken, missing or too small is found, and named with its remedy."""

import errno
import fcntl
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import kernels
from pipeline.cache.shard import ShardData
from pipeline.config import CacheConfig
from pipeline.doctor import cpu, disk, gpu, nf4
from pipeline.doctor.backbones import BLOCKS_WEIGHTS, EMBEDDINGS, check_embedded, judge_eight_billion
from pipeline.doctor.examine import meanwhile
from pipeline.doctor.finding import Finding, findings_of
from pipeline.doctor.glue_folder import check_glue
from pipeline.doctor.limits import Limits, read_limits
from pipeline.doctor.versions import judge_packages, judge_python
from pipeline.errors import CacheError
from pipeline.glue_rows import GLUE_ROWS


def by_name(findings) -> dict[str, Finding]:
    return {each.name: each for each in findings}


# --- a check that fails ---


def test_a_check_that_fails_is_a_finding_beside_what_it_found_until_then():
    def check():
        yield Finding("first", "ok", "fine")
        raise RuntimeError("the driver\nis on fire")

    first, failed = findings_of("card", check)
    assert (first.name, failed.name, failed.status) == ("first", "card", "problem")
    assert "RuntimeError: the driver" in failed.found
    assert "on fire" not in failed.found


def test_errors_of_this_project_and_packages_that_are_missing_keep_their_remedies():
    def refuse():
        raise CacheError("the cache is odd", where="there", found="a link", remedy="mend it")
        yield

    def lack():
        raise ModuleNotFoundError("No module named 'torch'", name="torch._C")
        yield

    def bug():
        raise ModuleNotFoundError("No module named 'pipeline.odd'", name="pipeline.odd")
        yield

    (refused,), (lacking,), (broken,) = (findings_of("x", check) for check in (refuse, lack, bug))
    assert (refused.status, refused.found, refused.remedy) == ("problem", "the cache is odd; there; a link", "mend it")
    assert (lacking.status, lacking.remedy) == ("note", "make setup-cpu")
    assert "torch is not installed" in lacking.found
    assert broken.status == "problem"


def test_what_does_not_answer_is_not_waited_for():
    import threading

    never = threading.Event()

    def hang():
        never.wait(30)
        yield Finding("Hub", "ok", "at last")

    (finding,) = meanwhile("Hub", hang, patience=0.05)()
    assert (finding.status, finding.found) == ("note", "no answer within 0.05 seconds")
    (answered,) = meanwhile("Hub", lambda: iter([Finding("Hub", "ok", "here")]), patience=30)()
    assert answered.found == "here"
    never.set()


# --- the GPU ---


@pytest.mark.parametrize(
    ("cards", "cuda", "visible", "status", "words"),
    [
        ([], None, None, "ok", "none"),
        (["NVIDIA H100"], None, None, "problem", "built without CUDA"),
        (["NVIDIA H100"], "13.0", None, "problem", "torch (CUDA 13.0) cannot use it: driver too old"),
        (["NVIDIA H100"], "13.0", "", "note", "hidden by CUDA_VISIBLE_DEVICES"),
        (["NVIDIA H100"], "13.0", "0", "problem", "cannot use it"),
    ],
)
def test_a_card_that_torch_cannot_use_is_a_problem(monkeypatch, cards, cuda, visible, status, words):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    finding = gpu.without_cuda(cards, cuda, "driver too old")
    assert finding.status == status
    assert words in finding.found
    assert bool(finding.remedy) == bool(cards)


def test_cards_are_found_without_torch_in_the_drivers_files_or_by_its_program(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert gpu.nvidia_cards(tmp_path) == []
    assert gpu.driver_version(tmp_path) == "unknown"
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    (tmp_path / "gpus" / "0000:01:00.0" / "information").write_text("Model: \t NVIDIA T4\nIRQ: 1\n")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n")
    assert gpu.nvidia_cards(tmp_path) == ["NVIDIA T4"]
    assert gpu.driver_version(tmp_path) == "535.104.05"
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA L4 (UUID: GPU-1)'\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    assert gpu.nvidia_cards(tmp_path / "empty") == ["NVIDIA L4"]
    monkeypatch.setattr(subprocess, "run", lambda *args, **kw: (_ for _ in ()).throw(subprocess.TimeoutExpired("x", 5)))
    assert gpu.nvidia_cards(tmp_path / "empty") == []


@pytest.fixture
def pretend_card(monkeypatch):
    """A CUDA device as torch would describe it; its products are the CPU's, times `skew`."""

    def pretend(capability=(9, 0), bfloat16=True, built_for=("sm_80", "sm_90"), skew=1.0):
        answers = {
            "is_available": True,
            "device_count": 1,
            "get_device_name": "NVIDIA H100",
            "get_device_capability": capability,
            "mem_get_info": (70 * 10**9, 80 * 10**9),
            "is_bf16_supported": bfloat16,
            "get_arch_list": list(built_for),
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, lambda *args, _answer=answer, **kw: _answer)
        monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor * skew)
        return by_name(gpu.check_gpu())

    return pretend


def test_a_card_is_described_and_its_products_are_tried(pretend_card):
    findings = pretend_card()
    assert {each.status for each in findings.values()} == {"ok"}
    assert "70 GB of 80 GB free, compute capability 9.0" in findings["cuda:0"].found
    assert findings["CUDA products in float32"].facts["relative_error"] < 1e-5


def test_a_card_that_this_torch_does_not_serve_that_emulates_or_is_not_exact_is_said(pretend_card):
    old = pretend_card(capability=(6, 1), bfloat16=False)["cuda:0"]
    assert (old.status, "no kernels for it" in old.means) == ("problem", True)
    assert pretend_card(capability=(10, 0))["cuda:0"].status == "problem"
    assert pretend_card(capability=(10, 0), built_for=("sm_80", "compute_90"))["cuda:0"].status == "ok"
    emulates = pretend_card(capability=(7, 5), bfloat16=False, built_for=("sm_75",))["cuda:0"]
    assert (emulates.status, "--compute-dtype float32" in emulates.remedy) == ("note", True)
    assert pretend_card(skew=1.0002)["CUDA products in float32"].status == "problem"


@pytest.mark.parametrize(
    ("device", "dtype", "free", "status", "words"),
    [
        ("cuda", "bfloat16", 80e9, "ok", "dequantised once"),
        ("cuda", "bfloat16", 16e9, "ok", "every pass"),
        ("cuda", "bfloat16", 5e9, "note", "does not fit"),
        ("cpu", "float32", 64e9, "ok", "dequantised once"),
        ("cpu", "float32", 24e9, "note", "does not fit"),
        ("cpu", "float32", None, "note", "not known"),
    ],
)
def test_whether_the_8b_backbone_fits(device, dtype, free, status, words):
    finding = judge_eight_billion(device, dtype, free and int(free))
    assert finding.status == status
    assert words in finding.means
    assert ("--compute-dtype bfloat16" in finding.remedy) == (free == 24e9)


def test_the_8b_estimate_is_of_the_real_shape():
    """The weights of the blocks, embeddings and LM head, and 65 norms, are all that the model's page counts."""
    assert BLOCKS_WEIGHTS + 2 * EMBEDDINGS + 65 * 4096 == 8_030_261_248


# --- bitsandbytes ---


class Wrong:
    """bitsandbytes' functions with one thing changed."""

    def __init__(self, **settings):
        self.settings = settings

    def quantize_4bit(self, matrix, **settings):
        import bitsandbytes.functional as honest

        return honest.quantize_4bit(matrix, **{**settings, **self.settings})

    def dequantize_4bit(self, packed, state):
        import bitsandbytes.functional as honest

        return honest.dequantize_4bit(packed, state)


class Swapped(Wrong):
    def dequantize_4bit(self, packed, state):
        return super().dequantize_4bit((packed >> 4) | (packed << 4), state)


class NotFinite(Wrong):
    def dequantize_4bit(self, packed, state):
        return super().dequantize_4bit(packed, state) * float("nan")


@pytest.mark.parametrize(
    ("functional", "status"),
    [
        (Wrong(), "ok"),
        (Wrong(quant_type="fp4"), "problem"),
        (Wrong(blocksize=128), "problem"),
        (Swapped(), "problem"),
        (NotFinite(), "problem"),
    ],
)
def test_nf4_must_lose_what_nf4_loses(functional, status):
    assert nf4.round_trip(functional, "cpu").status == status


@pytest.mark.parametrize("package", ["transformers", "bitsandbytes"])
def test_a_package_that_is_there_and_does_not_load_is_a_problem(monkeypatch, package):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == package:
                raise OSError("libcudart.so.13: cannot open shared object file")

    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    check = {"transformers": nf4.check_transformers, "bitsandbytes": lambda: nf4.check_bitsandbytes("cpu")}[package]
    (finding,) = findings_of(package, check)
    assert (finding.name, finding.status) == (package, "problem")
    assert "libcudart.so.13" in finding.found


# --- the CPU ---


def test_the_kernels_of_this_cpu_are_measured_and_what_was_set_stays():
    before = torch.get_float32_matmul_precision()
    findings = by_name(cpu.check_kernels())
    products = findings["float32 products"]
    assert torch.get_float32_matmul_precision() == before
    assert products.status == "ok"
    assert 0 < products.facts["relative_error"]["highest"] <= kernels.EXACT
    assert all(0.1 < speed < 1e5 for speed in products.facts["gflops"].values())
    assert findings["bfloat16 products"].facts["gflops"] > 0.1


def test_a_fast_kernel_that_is_not_exact_is_not_taken_and_a_plain_one_that_is_not_is_a_problem():
    speeds = {"highest": 50.0, "medium": 200.0}
    amx = cpu.judge_float32({"highest": 1e-7, "medium": 1e-3}, speeds, "highest")
    assert amx.status == "ok"
    assert "not exact" in amx.means
    assert "the plain one is taken" in amx.means
    assert "it is taken" in cpu.judge_float32({"highest": 1e-7, "medium": 1e-7}, speeds, "medium").means
    assert cpu.judge_float32({"highest": 1e-3, "medium": 1e-3}, speeds, "highest").status == "problem"


@pytest.mark.parametrize(
    ("threads", "usable", "quota", "said", "status", "words"),
    [
        (8, 8, None, None, "ok", "8 threads"),
        (1, 8, None, "1", "note", "7 of 8 cores stay idle"),
        (64, 64, 2.0, None, "note", "wait for each other"),
        (2, 64, 2.0, "2", "ok", "OMP_NUM_THREADS=2"),
    ],
)
def test_threads_are_held_against_the_cores_that_there_are(threads, usable, quota, said, status, words):
    finding = cpu.judge_threads(threads=threads, usable=usable, quota=quota, said=said, there="64 logical")
    assert (finding.status, bool(finding.remedy)) == (status, status == "note")
    assert words in finding.means


def test_limits_of_control_groups_are_read_in_both_versions_the_tightest_counts(tmp_path):
    def write(folder: Path, **files: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text + "\n")

    own = tmp_path / "own"
    own.write_text("0::/user/job\n")
    assert read_limits(own, tmp_path / "none") == Limits(None, None, None)
    write(tmp_path / "v2", cpu__max="max 100000", memory__max="max")
    write(tmp_path / "v2/user", cpu__max="250000 100000", memory__max="8000", memory__current="1000")
    stat = "anon 1\ninactive_file 500"
    write(
        tmp_path / "v2/user/job",
        cpu__max="400000 100000",
        memory__max="9000",
        memory__current="7000",
        memory__stat=stat,
    )
    assert read_limits(own, tmp_path / "v2") == Limits(2.5, 8000, 2500)
    own.write_text("4:memory:/docker/on-the-host\n3:cpu,cpuacct:/docker/on-the-host\n")
    write(tmp_path / "v1/memory", memory__limit_in_bytes="5000", memory__usage_in_bytes="2000")
    write(tmp_path / "v1/cpu,cpuacct", cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000")
    assert read_limits(own, tmp_path / "v1") == Limits(1.5, 5000, 3000)
    write(tmp_path / "v1/memory", memory__limit_in_bytes=str(2**63 - 4096))
    write(tmp_path / "v1/cpu,cpuacct", cpu__cfs_quota_us="-1")
    assert read_limits(own, tmp_path / "v1") == Limits(None, None, None)


def test_too_little_memory_is_noted(monkeypatch):
    monkeypatch.setattr(cpu, "available_bytes", lambda: 2 * 10**9)
    (finding,) = cpu.check_memory()
    assert (finding.status, "--compute-dtype bfloat16" in finding.remedy) == ("note", True)


# --- disk ---


def test_a_disk_without_room_is_a_problem_and_what_is_there_already_needs_none(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 10**8))
    folders = (tmp_path / "cache", tmp_path / "runs", tmp_path / "models")
    findings = by_name(disk.check_room(*folders, "float32"))
    assert [findings[name].status for name in ("cache", "models", "runs")] == ["problem", "problem", "ok"]
    assert "--cache-dir" in findings["cache"].remedy
    assert 9e8 < findings["cache"].facts["needed_bytes"] < 1.1e9
    wanted = set(disk.default_sets().items())
    assert (("cola", "train", 20, "mean"), 8551) in wanted
    whole = iter(sorted(wanted))
    monkeypatch.setattr(disk, "list_entries", lambda folder: [None] * len(wanted))
    monkeypatch.setattr(disk, "_kind_of", lambda entry: next(whole))
    assert by_name(disk.check_room(*folders, "float32"))["cache"].status == "ok"


def test_places_in_which_nothing_can_be_kept_are_problems_even_for_root(tmp_path, monkeypatch):
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to(tmp_path / "gone")
    for wrong in (file, file / "x" / "y", link):
        found = disk.unusable("cache", wrong)
        assert (found.status, found.found) == ("problem", f"{wrong if wrong == link else file} is not a folder")
        assert "--cache-dir" in found.remedy
    assert list(disk.check_files(file)) == []
    refused = by_name(disk.check_room(tmp_path, Path("/proc/x"), file / "x", "float32"))
    assert {name: each.status for name, each in refused.items()} == {
        "cache": "ok",
        "models": "problem",
        "runs": "problem",
    }
    assert "nothing can be written in /proc (proc)" in refused["runs"].found
    assert "--runs-dir" in refused["runs"].remedy
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 0))
    assert by_name(disk.check_room(*[tmp_path] * 3, "float32"))["runs"].remedy.startswith("make room")
    assert sorted(tmp_path.iterdir()) == [file, link]


def test_the_file_system_is_tried_and_nothing_of_it_stays(tmp_path):
    findings = by_name(disk.check_files(tmp_path / "not" / "yet"))
    assert {name: each.status for name, each in findings.items()} == {"memory maps": "ok", "locks": "ok"}
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_or_with_locks_that_nobody_sees_is_a_problem(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(
            fcntl, "lockf", lambda *args: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks available"))
        )
        locks = by_name(disk.check_files(tmp_path))["locks"]
    assert (locks.status, "No locks available" in locks.found, "nolock" in locks.remedy) == ("problem", True, True)
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "lockf", lambda *args: None)
        locks = by_name(disk.check_files(tmp_path))["locks"]
    assert (locks.status, "another process does not see them" in locks.found) == ("problem", True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_gives_back_something_else_or_takes_nothing_is_a_problem(tmp_path, monkeypatch):
    other = ShardData(np.zeros((64, disk.HIDDEN_SIZE), np.float32), None, "float32")
    with monkeypatch.context() as patched:
        patched.setattr(disk, "map_shard", lambda *args: other)
        assert by_name(disk.check_files(tmp_path))["memory maps"].status == "problem"
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(disk, "write_shard", lambda *args: (_ for _ in ()).throw(full))
    (finding,) = disk.check_files(tmp_path)
    assert (finding.status, finding.remedy) == ("problem", "make room")
    assert "No space left" in finding.found
    assert list(tmp_path.iterdir()) == []


def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"a / ext4 rw 0 0\nb {tmp_path} nfs4 rw 0 0\nc {tmp_path}x tmpfs rw 0 0\n")
    assert disk.file_system(tmp_path / "cache", mounts) == "nfs4"
    assert disk.file_system(Path("/"), mounts) == "ext4"
    assert disk.file_system(tmp_path, tmp_path / "none") == "unknown"


def test_leftovers_are_noted(tmp_path):
    places = (CacheConfig(tmp_path / "cache").cache_dir, tmp_path / "runs", tmp_path / "models")
    assert next(disk.check_leftovers(*places)).status == "ok"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / ".smollm2.host.1.0123abcd.partial").write_bytes(b"x" * 2000)
    finding = next(disk.check_leftovers(*places))
    assert (finding.status, finding.facts["size_bytes"]) == ("note", 2000)
    assert "pipeline cache gc" in finding.remedy


# --- versions ---

REQUIRES = ("torch>=2.6", "h5py>=3.12", "transformers<6,>=5.5; extra == 'extract'", "pytest>=8; extra == 'dev'")


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({"torch": "2.13.0+cpu", "h5py": "3.16.0", "transformers": "5.23.0"}, {}),
        ({"torch": "2.13.0", "h5py": "3.16.0"}, {"packages of stage one": ("note", "extract")}),
        ({"torch": "2.13.0", "h5py": "3.16.0", "transformers": "6.0.1"}, {"transformers": ("problem", "extract")}),
        ({"torch": "2.5.1", "h5py": "3.16.0", "transformers": "5.5.0"}, {"torch": ("problem", "setup-cpu")}),
        ({"torch": "2.14.0.dev1", "transformers": "5.5.0"}, {"packages of stage two": ("problem", "setup-cpu")}),
    ],
)
def test_a_version_out_of_range_and_a_base_that_is_not_whole_are_problems(installed, expected):
    findings = list(judge_packages(REQUIRES, installed.get))
    worse = {each.name: each for each in findings if each.status != "ok"}
    assert set(worse) == set(expected)
    for name, (status, word) in expected.items():
        assert worse[name].status == status
        assert word in worse[name].remedy
    assert not any("pytest" in str(each) for each in findings)


def test_another_python_than_the_project_is_for_is_a_problem():
    assert judge_python("3.11.7", ">=3.11").status == "ok"
    assert judge_python("3.10.2", ">=3.11").status == "problem"


# --- GLUE and the embedded backbone ---


def test_glue_that_is_missing_is_noted_and_glue_that_is_broken_is_a_problem(small_glue, tmp_path):
    assert {each.status for each in check_glue(tmp_path / "none")} == {"note"}
    assert all("GLUE_DIR=" in each.remedy for each in check_glue(tmp_path / "none"))
    cut = by_name(check_glue(small_glue))["GLUE's SST-2"]  # a download that was broken off has too few rows
    assert (cut.status, "67,349 rows in train" in cut.means) == ("problem", True)
    (small_glue / "SST-2" / "dev.tsv").unlink()
    (small_glue / "CoLA" / "train.tsv").write_text("gj04\t1\tNo fourth column.\n")
    findings = by_name(check_glue(small_glue))
    assert "dev.tsv" in findings["GLUE's SST-2"].found
    assert "train.tsv, row 1" in findings["GLUE's CoLA"].found
    assert {each.status for each in findings.values()} == {"problem"}


def test_glue_with_all_its_rows_is_fine_without_the_tests_too(tmp_path):
    (tmp_path / "CoLA").mkdir()
    for file, split in (("train.tsv", "train"), ("dev.tsv", "validation")):
        rows = (f"gj04\t{n % 2}\t\tSentence {n}.\n" for n in range(GLUE_ROWS["cola", split]))
        (tmp_path / "CoLA" / file).write_text("".join(rows))
    findings = by_name(check_glue(tmp_path))
    assert (findings["GLUE's CoLA"].status, findings["GLUE's SST-2"].status) == ("ok", "note")


def test_the_embedded_backbone_is_converted_or_to_be_converted_or_missing(tmp_path, monkeypatch):
    assert "first use" in next(check_embedded(tmp_path)).means
    monkeypatch.setattr("pipeline.backbone.embedded.PACKAGE", "no_such_package")
    missing = next(check_embedded(tmp_path))
    assert (missing.status, "make setup" in missing.remedy) == ("note", True)
    (tmp_path / "smollm2-135m").mkdir()
    assert next(check_embedded(tmp_path)).status == "ok"
