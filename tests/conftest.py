"""What all rooms' tests share: the sample corpora and a tiny real backbone."""

import os
from pathlib import Path

import pytest

from tests.tiny_backbone import make_tiny_backbone, write_small_glue

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("COLUMNS", None)  # whoever starts the tests may have set it
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does: tests may share their cores
ROOT = Path(__file__).parent.parent


LONGEST = ("test_readme.py", "test_run.py", "test_catalogue.py", "test_new_process.py")
"""Files of one or a few long tests: begun last, they would be waited for."""


def pytest_collection_modifyitems(items):
    """Longest files first, all else as it was collected."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def own_notes(tmp_path_factory):
    """What the cache notes of its files: not where the person who runs the tests has theirs."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("notes"))


@pytest.fixture(scope="session")
def sample_dir():
    return ROOT / "data" / "sample"


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory, sample_dir):
    """A folder as save_pretrained writes it."""
    return make_tiny_backbone(tmp_path_factory.mktemp("models") / "tiny-llama", sample_dir)


@pytest.fixture(scope="session")
def save_adapter(tiny_backbone):
    """Save a LoRA adapter of the tiny backbone as peft does, with weights that matter: `save_adapter(folder, r=4)`."""
    import warnings

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    def save(folder, *, seed=0, backbone=tiny_backbone, **settings):
        model = AutoModelForCausalLM.from_pretrained(backbone)
        usual = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft's own
            torch.manual_seed(seed)
            adapted = get_peft_model(model, LoraConfig(**{**usual, **settings}))
            with torch.no_grad():
                for weights in (p for n, p in adapted.named_parameters() if "lora_A" in n or "lora_B" in n):
                    weights.copy_(torch.randn_like(weights) * 0.2)
            adapted.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def make_adapter(save_adapter, tmp_path):
    """The same, by a name: `make_adapter("name", r=4)`."""

    def make(name="adapter", **settings):
        return save_adapter(tmp_path / name, **settings)

    return make


@pytest.fixture
def small_glue(tmp_path, sample_dir):
    """A GLUE folder with a few rows of the sample of each split."""
    return write_small_glue(tmp_path / "glue", sample_dir)


@pytest.fixture(scope="session")
def s3_url():
    """A real S3 server."""
    from tests.cache.servers import s3_server

    with s3_server() as url:
        yield url


@pytest.fixture
def with_s3(s3_url, monkeypatch):
    """A user with credentials, and an empty bucket."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="features")
    yield client
    for entry in client.list_objects_v2(Bucket="features").get("Contents", []):
        client.delete_object(Bucket="features", Key=entry["Key"])
    client.delete_bucket(Bucket="features")
    client.close()
