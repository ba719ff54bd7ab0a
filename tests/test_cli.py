"""The command line: one clear message and exit code 2 for every kind of bad input; JSON alone on standard output."""

import io
import json
import shutil
import subprocess
import sys
import time

import pytest

from pipeline import cli


@pytest.fixture
def command(monkeypatch, capsys, tmp_path, tiny_backbone, small_glue):
    """Run `pipeline <words>` on the tiny backbone and a few real rows; give exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def run(*words, backbone=tiny_backbone):
        if words[0] in ("extract", "heads") and "--backbone" not in words and backbone:
            words = (*words, "--backbone", str(backbone))
        if words[0] in ("extract", "data") and "--glue-dir" not in words:
            words = (*words, "--glue-dir", str(small_glue))
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


def refused(result, *parts):
    """Exit code 2, nothing on standard output, and one message with all of `parts` in it."""
    code, out, err = result
    assert code == 2, err
    assert out == ""
    message = err[err.index("pipeline: ") :]
    assert message.count("pipeline: ") == 1
    assert "Traceback" not in err
    for part in parts:
        assert part in message, message


def replace_line(path, number, text):
    lines = path.read_text("utf-8").split("\n")
    lines[number] = text
    path.write_text("\n".join(lines), "utf-8")


def test_a_label_that_is_no_class(command, small_glue):
    replace_line(small_glue / "CoLA" / "train.tsv", 4, "agr\t7\t\tThe cat sleeps.")
    refused(command("extract"), "label is not a class", "train.tsv, row 5", "0 (unacceptable) | 1 (acceptable)", "'7'")


def test_an_empty_sentence(command, small_glue):
    replace_line(small_glue / "SST-2" / "dev.tsv", 2, " \t1")
    refused(command("extract"), "sentence is empty", "dev.tsv, row 3")


def test_a_file_with_the_wrong_columns(command, small_glue):
    replace_line(small_glue / "SST-2" / "train.tsv", 0, "text\tlabel")
    refused(command("extract"), "wrong columns", "train.tsv", "sentence, label", "text, label")


def test_a_row_with_the_wrong_number_of_columns(command, small_glue):
    replace_line(small_glue / "CoLA" / "dev.tsv", 3, "agr\t1\tThe cat sleeps.")
    refused(command("extract"), "wrong number of columns", "dev.tsv, row 4", "4 (source, label, mark, sentence)")


def test_a_sentence_beyond_the_limit_and_truncation_on_demand(command):
    words = ("extract", "--prompt", "Say: {}", "--max-length", 16)
    refused(command(*words), "longer than the limit", "at most 16 tokens", "--truncation")
    code, out, err = command(*words, "--truncation", "--json")
    assert code == 0
    records = json.loads(out)
    assert sum(record["truncated"] for record in records) > 0
    assert "sentences cut to 16 tokens" in err


def test_two_files_that_disagree(command, tmp_path):
    folder = tmp_path / "own" / "cola"
    folder.mkdir(parents=True)
    rows = "sentence,label\n" + "".join(f"Sentence number {n}.,{n % 2}\n" for n in range(30))
    for name in ("train.csv", "validation.csv", "dev.csv"):
        (folder / name).write_text(rows)
    words = ("extract", "--tasks", "cola", "--data", tmp_path / "own")
    refused(command(*words), "two files disagree", "validation.csv, dev.csv")
    (folder / "dev.csv").unlink()
    (folder / "validation.csv").write_text("sentence\nNo label here.\n")
    refused(command(*words), "validation.csv", "label")
    (folder / "validation.csv").write_text(rows)
    assert command(*words)[0] == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--tasks", "mnli"), ("no such task", "cola | sst2", "mnli")),
        (("--layers", "99"), ("no such layer", "99")),
        (("--layers", "upper"), ("layer is not a number", "upper")),
        (("--poolings", "max"), ("no such pooling", "last | mean | first | tokens", "max")),
        (("--backbone", "gpt-17"), ("no such backbone", "smollm2-135m", "gpt-17")),
        (("--backbone", "org/model"), ("Hub cannot be reached", "org/model")),
        (("--prompt", "no slot"), ("slot {} exactly once", "no slot")),
        (("--shard-rows", "-1", "--token-budget", "-3"), ("shard_rows", "token_budget")),
        (("--quantization", "nf3"), ("nf3",)),
        (("--splits", "dev"), ("dev",)),
        (("--no-such-option",), ("no-such-option",)),
        (("--device", "cuda:9"), ("no such device", "cuda:9")),
    ],
    ids=lambda value: value[0].strip("-") if isinstance(value, tuple) and value[0].startswith("--") else "",
)
def test_what_does_not_exist_is_one_message(command, words, parts):
    refused(command("extract", *words), *parts)


def test_all_errors_of_a_config_are_said_at_once(command):
    refused(command("heads", "--held-out", "0.9", "--seed", "-1", "--params", "C"), "held_out", "seed", "params")


def test_no_glue_names_the_three_ways_to_get_it(command, small_glue):
    shutil.rmtree(small_glue / "SST-2")
    refused(command("extract"), "SST-2 is not there", "make data", "GLUE_DIR=", "DATA=sample")


def test_features_that_are_not_there_name_the_nearest(command):
    refused(command("heads"), "no features of cola/train")
    assert command("extract", "--tasks", "cola", "--quantization", "none")[0] == 0
    refused(command("heads", "--tasks", "cola"), "nearest is", "quantization.type", "nf4", "none")
    assert command("extract", "--tasks", "cola", "--layers", "1", "--poolings", "mean")[0] == 0
    refused(command("heads", "--tasks", "cola", "--views", "L1-last"), "pooling", "last", "mean")


def test_unknown_heads_and_settings(command):
    assert command("extract", "--tasks", "cola")[0] == 0
    refused(command("heads", "--tasks", "cola", "--heads", "transformer"), "no such head", "logreg | svm | ridge")
    words = ("heads", "--tasks", "cola", "--heads", "LinearSVC", "--params", "gamma=2")
    refused(command(*words), "no such setting", "gamma")


def test_the_road_from_sentences_to_scores_with_json_alone_on_standard_output(command, tmp_path):
    code, out, _ = command("extract", "--json")
    assert code == 0
    features = json.loads(out)
    assert {(r["task"], r["split"]) for r in features} == {
        (task, split) for task in ("cola", "sst2") for split in ("train", "validation", "test")
    }
    code, out, _ = command("heads", "--json", "--heads", "logreg", "mlp", "RidgeClassifier")
    assert code == 0
    runs = json.loads(out)
    assert len(runs) == 6
    for run in runs:
        (task,) = run["tasks"]
        assert set(run["scores"][task]["validation"]) >= {"mcc", "accuracy", "balanced_accuracy", "f1"}
        assert "test" not in run["scores"][task]
        assert (tmp_path / "data" / "runs" / run["run"] / "predictions.parquet").is_file()
    _, out, _ = command("runs", "ls", "--json")
    assert {run["run"] for run in json.loads(out)} == {run["run"] for run in runs}
    _, out, _ = command("runs", "show", runs[0]["run"], "--json")
    shown = json.loads(out)
    assert shown.pop("saved")["cola"]["shared_by"] == 3
    assert shown == runs[0]
    costs = shown["costs"]["cola"]
    assert 0 < costs["backbone_seconds"] < costs["seconds"]
    assert costs["reading_seconds"] > 0
    _, out, _ = command("cache", "ls", "--json")
    listed = json.loads(out)
    assert {r["fingerprint"] for r in listed} == {r["fingerprint"] for r in features}
    _, out, _ = command("cache", "show", features[0]["name"], "--json")
    assert json.loads(out)["identity"]["prompt"].count("{}") == 1
    for words in (
        ("runs", "ls"),
        ("cache", "ls"),
        ("runs", "show", runs[0]["run"]),
        ("cache", "show", features[0]["name"]),
    ):
        code, out, _ = command(*words)
        assert code == 0
        assert out.count("\n") > 3


def test_settings_come_from_a_toml_file_and_the_command_line_wins(command, tmp_path):
    (tmp_path / "settings.toml").write_text('[extract]\ntasks = ["cola"]\nlayers = ["1"]\npoolings = ["first"]\n')
    _, out, _ = command("extract", "--config", "settings.toml", "--splits", "test", "--json")
    assert [record["name"].split("-")[3:5] for record in json.loads(out)] == [["L1", "first"]]
    _, out, _ = command("extract", "--config", "settings.toml", "--splits", "test", "--layers", "2", "--json")
    assert [record["name"].split("-")[3:5] for record in json.loads(out)] == [["L2", "first"]]
    refused(command("extract", "--config", "missing.toml"), "settings file is not there")
    (tmp_path / "settings.toml").write_text("[extract\n")
    refused(command("extract", "--config", "settings.toml"), "not TOML")
    (tmp_path / "settings.toml").write_text("[extract]\nlayer = 3\n")
    assert command("extract", "--config", "settings.toml")[0] == 2


def test_a_task_of_ones_own_from_a_toml_file_and_csv(command, tmp_path):
    (tmp_path / "topic.toml").write_text(
        'name = "topic"\nlabels = ["animals", "food", "cars"]\nprompt = "Topic: {}"\n'
        'views = ["L0.5-mean", "L-1-last"]\nhead_view = ["L0.5-mean"]\ntext_column = "text"\n'
    )
    words = {
        "animals": ("cat", "dog", "horse"),
        "food": ("bread", "soup", "cheese"),
        "cars": ("engine", "wheel", "brake"),
    }
    folder = tmp_path / "own"
    folder.mkdir()
    for split, rows in (("train", 40), ("validation", 12)):
        lines = [f"The {w[n % 3]} of day {split} {n},{label}" for n in range(rows) for label, w in words.items()]
        (folder / f"{split}.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    common = ("--tasks", "topic", "--task-files", "topic.toml", "--data", folder)
    assert command("extract", *common)[0] == 0
    code, out, err = command("heads", *common, "--heads", "logreg", "linear", "--json")
    assert code == 0, err
    assert all(run["scores"]["topic"]["validation"]["accuracy"] > 0.34 for run in json.loads(out))


def test_heads_train_on_the_folder_that_was_named_and_on_no_other(command, tmp_path):
    """Two folders, and one of them edited: sentences and labels decide which features are taken."""

    def write(folder, rows):
        (tmp_path / folder / "cola").mkdir(parents=True, exist_ok=True)
        for split, first in (("train", 0), ("validation", 100)):
            lines = [f"{text} number {first + n}.,{label}" for n, (text, label) in enumerate(rows * 20)]
            (tmp_path / folder / "cola" / f"{split}.csv").write_text("sentence,label\n" + "\n".join(lines) + "\n")

    def heads(folder):
        return command("heads", "--tasks", "cola", "--data", tmp_path / folder, "--heads", "logreg", "--json")

    def extract(folder):
        assert command("extract", "--tasks", "cola", "--data", tmp_path / folder)[0] == 0

    write("one", [("A cat", 1), ("A stone", 0)])
    write("other", [("A dog", 1), ("A house", 0)])
    extract("other")
    refused(heads("one"), "no such features of cola/train", "texts")
    extract("one")
    for folder in ("one", "other"):
        code, out, err = heads(folder)
        assert code == 0, err
        assert json.loads(out)[0]["config"]["data"] == str(tmp_path / folder)
    write("one", [("A cat", 0), ("A stone", 1)])
    refused(heads("one"), "labels in the cache are not those of the files", "one/cola/train.csv", "pipeline extract")
    extract("one")
    assert heads("one")[0] == 0
    code, _, err = heads("elsewhere")  # as on a machine that has the cache alone
    assert code == 2
    assert "2 feature sets of cola/train match, which differ in texts" in err


def test_a_pulled_cache_trains_the_same_heads_elsewhere(command, tmp_path, monkeypatch):
    command("extract", "--tasks", "cola")
    _, out, _ = command("heads", "--tasks", "cola", "--heads", "logreg", "--json")
    code, pushed, err = command("cache", "push", tmp_path / "remote", "--json")
    assert code == 0
    assert {record["status"] for record in json.loads(pushed)} == {"copied"}
    assert "push: done, " in err
    refused(command("cache", "pull", tmp_path / "remote", "--tasks", "colla"), "colla", "did you mean cola?")
    (tmp_path / "cpu-machine").mkdir()
    monkeypatch.chdir(tmp_path / "cpu-machine")
    code, pulled, _ = command("cache", "pull", f"file://{tmp_path}/remote", "--splits", "train", "validation", "--json")
    assert code == 0
    assert {record["split"] for record in json.loads(pulled)} == {"train", "validation"}
    _, again, _ = command("heads", "--tasks", "cola", "--heads", "logreg", "--json")
    assert json.loads(again)[0]["scores"] == json.loads(out)[0]["scores"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("cache", "pull", "gopher://host/x"), ("nobody knows this protocol", "gopher", "sftp://")),
        (("cache", "pull", "nowhere"), ("there is no such place", "nowhere")),
        (("cache", "pull", "."), ("there are no feature sets", "manifest.json")),
        (("cache", "push", "elsewhere"), ("there is no such place", "data/cache")),
        (("cache", "pull", ""), ("no place is named",)),
        (("cache", "pull", __file__), ("this is a file, not a folder", "test_cli.py")),
        (("cache", "push", f"{__file__}/inner"), ("this is a file, not a folder", "test_cli.py")),
        (("cache", "verify", "--cache-dir", "nowhere"), ("there is no such cache", "nowhere")),
        (("cache", "pull", "hf://datasets/org/name"), ("cannot be reached", "HF_HUB_OFFLINE")),
        (("cache", "push", "-x", "."), ("-x",)),
        (("cache", "pull"), ("REMOTE",)),
    ],
)
def test_a_place_that_cannot_be_used_is_one_message(command, words, parts):
    refused(command(*words), *parts)


@pytest.mark.parametrize(
    "words", [("cache", "ls", "--cache-dir"), ("runs", "ls", "--runs-dir"), ("runs", "saved", "--runs-dir")]
)
def test_a_list_of_nothing_is_one_message_and_no_table(command, tmp_path, words):
    code, out, err = command(*words, "nowhere")
    assert (code, out, err) == (0, "", "there is no folder nowhere\n")
    code, out, err = command(*words, tmp_path, "--json")
    assert (code, json.loads(out)) == (0, [])
    assert "yet: pipeline " in err


def test_a_pull_that_is_stopped_goes_on(command, tmp_path, monkeypatch):
    from pipeline.cache.remote.folder import Folder

    command("extract", "--tasks", "cola", "--splits", "train", "validation", "--layers", "1", "--poolings", "mean")
    command("cache", "push", tmp_path / "remote")
    fetch, fetched = Folder.fetch, []

    def stopped(self, name, *words):
        if len(fetched) == 3:
            raise KeyboardInterrupt
        fetched.append(name)
        return fetch(self, name, *words)

    monkeypatch.setattr(Folder, "fetch", stopped)
    code, out, err = command("cache", "pull", tmp_path / "remote", "--cache-dir", "here", "--json")
    assert (code, out) == (130, "")
    assert err.endswith("pipeline: stopped; the same command goes on from what is whole\n")
    monkeypatch.setattr(Folder, "fetch", fetch)
    _, out, _ = command("cache", "pull", tmp_path / "remote", "--cache-dir", "here", "--json")
    assert sum(record["skipped"] for record in json.loads(out)) == 3 + 2  # and the first set's seal and manifest
    assert not list((tmp_path / "here").rglob("*.partial"))


def test_help_answers_at_once_and_loads_nothing_heavy():
    began = time.perf_counter()
    words = [sys.executable, "-X", "importtime", "-m", "pipeline", "--help"]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    assert time.perf_counter() - began < 20  # a hang, not a speed: speed is measured elsewhere
    assert "extract" in result.stdout
    loaded = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines()}
    assert loaded.isdisjoint({"torch", "numpy", "transformers", "sklearn", "h5py", "pyarrow"})


def test_make_data_stores_the_hubs_glue_as_a_folder_or_says_why_not(command, tmp_path):
    refused(command("data", "--glue-dir", "empty"), "cannot be had from the Hub", "nyu-mll/glue", "GLUE_DIR=")
    code, out, _ = command("data", "--data", "glue", "--json")
    assert code == 0
    assert {(r["task"], r["split"], r["rows"]) for r in json.loads(out)} >= {
        ("cola", "train", 60),
        ("sst2", "test", 10),
    }


def test_damage_is_named_taken_out_of_use_and_written_again_alone(command, tmp_path):
    extract = ("extract", "--tasks", "cola", "--layers", "1", "--poolings", "mean", "last", "--shard-rows", "16")
    assert command(*extract)[0] == 0
    code, out, _ = command("cache", "verify", "--deep", "--json")
    assert code == 0
    assert {(record["status"], len(record["damages"])) for record in json.loads(out)} == {("sound", 0)}
    folder = next((tmp_path / "data" / "cache" / "cola" / "train").glob("*-mean-*"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("shard-00001.h5", "shard-00002.parquet"):
        content = bytearray(before[name])
        content[len(content) // 2] ^= 4
        (folder / name).write_bytes(content)
    assert command("cache", "verify")[0] == 0  # sizes and seals are as they were
    code, out, err = command("cache", "verify", "--deep", "--json")
    assert code == 2
    assert "damaged files: 2, of feature sets: 1" in err
    assert "shard 1 (shard-00001.h5)" in err
    assert "shard 2 (shard-00002.parquet)" in err
    assert [len(record["damages"]) for record in json.loads(out) if record["name"] == folder.name] == [2]
    code, _, err = command("cache", "verify")
    assert (code, "set aside as damaged, and not written again yet" in err) == (2, True)
    states = {record["name"]: record["state"] for record in json.loads(command("cache", "ls", "--json")[1])}
    assert states[folder.name] == "damaged"
    refused(command("heads", "--data", "glue", "--views", "L1-mean"), "no such features of cola/train")
    code, out, err = command(*extract, "--json")
    assert code == 0
    statuses = {record["name"]: record["status"] for record in json.loads(out)}
    assert statuses.pop(folder.name) == "resumed"
    assert set(statuses.values()) == {"present"}
    assert "2 of 4 shards are whole already" in err
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "passes.jsonl"}
    assert after == {name: content for name, content in before.items() if name != "passes.jsonl"}
    assert command("cache", "verify", "--deep")[0] == 0


def test_extract_hashes_what_is_there_on_demand(command, tmp_path):
    extract = ("extract", "--tasks", "sst2", "--splits", "train", "--layers", "1", "--poolings", "mean")
    assert command(*extract)[0] == 0
    (states,) = (tmp_path / "data" / "cache").rglob("shard-00000.h5")
    whole = states.read_bytes()
    states.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    code, out, _ = command(*extract, "--json")
    assert json.loads(out)[0]["status"] == "present"  # the same size
    code, out, err = command(*extract, "--verify", "--json")
    assert (code, json.loads(out)[0]["status"]) == (0, "written")
    assert "SHA-256 is not that of its seal" in err
    assert states.read_bytes() == whole


def test_canaries_are_computed_again_with_the_backbone_at_hand(command, tiny_backbone):
    assert command("extract", "--tasks", "cola", "--splits", "test", "--layers", "1", "--poolings", "mean")[0] == 0
    code, out, err = command("cache", "verify", "--deep", "--canaries", "--backbone", str(tiny_backbone), "--json")
    assert (code, json.loads(out)[0]["status"]) == (0, "sound")
    assert "10 canaries computed again" in err
    words = ("cache", "verify", "--canaries", "--backbone", str(tiny_backbone), "--quantization", "none")
    refused(command(*words), "did not come from this backbone", "quantization.type")


@pytest.fixture
def people(monkeypatch):
    """Put a person at the terminal who gives these answers, one a question."""

    def answer(*lines):
        terminal = io.StringIO("".join(f"{line}\n" for line in lines))
        terminal.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", terminal)

    monkeypatch.setattr(sys, "stdin", io.StringIO(""))  # by default there is nobody
    return answer


def names_in(out):
    return [record["name"] for record in json.loads(out)]


def test_two_feature_sets_are_compared_by_any_of_their_names(command):
    words = ("--tasks", "cola", "--splits", "test", "--layers", "1", "--json")
    [one] = json.loads(command("extract", *words, "--poolings", "mean")[1])
    [two] = json.loads(command("extract", *words, "--poolings", "last", "--prompt", "Say [b]this[/b]: {}")[1])
    for name in (
        two["name"],
        two["fingerprint"][:8],
        f"cola/test/{two['name']}",
        f"data/cache/cola/test/{two['name']}",
    ):
        code, out, _ = command("cache", "diff", one["fingerprint"], name, "--json")
        assert code == 0
        record = json.loads(out)
        assert [row["field"] for row in record["identity"]] == ["prompt", "pooling"]
        assert record["identity"][1] == {"field": "pooling", "a": "mean", "b": "last"}
    code, out, _ = command("cache", "diff", one["name"], two["name"])
    assert code == 0
    assert "identity: 2 fields differ" in out
    assert "Say [b]this[/b]: {}" in out
    code, out, _ = command("cache", "diff", one["name"], one["name"])
    assert code == 0
    assert out.count("equal") == 2
    refused(command("cache", "diff", one["name"], "nothing-such"), "no feature set of this name", "pipeline cache ls")


def test_a_feature_set_goes_when_a_person_agrees(command, people):
    command("extract", "--tasks", "cola", "--splits", "test", "--layers", "1", "--poolings", "mean", "last", "--json")
    _, out, _ = command("cache", "ls", "--json")
    one, two = names_in(out)
    refused(command("cache", "rm", one), "nobody to ask", f"cola/test/{one}", "--yes")
    refused(command("cache", "rm", "nosuch"), "no feature set of this name")
    refused(command("cache", "rm"), "which feature set is to go")
    people("n")
    code, out, err = command("cache", "rm", one, "--json")
    assert (code, json.loads(out)) == (0, [])
    assert f"cola/test/{one}: 10 rows" in err
    people("y")
    code, out, err = command("cache", "rm", one, "--json")
    assert (code, names_in(out)) == (0, [one])
    code, out, _ = command("cache", "rm", two, "--yes")
    assert "removed: 1 feature set," in out
    assert json.loads(command("cache", "ls", "--json")[1]) == []


def test_features_that_runs_refer_to_are_listed_so_and_kept(command, people):
    command("extract", "--tasks", "cola", "--layers", "1", "--poolings", "mean")
    _, out, _ = command("heads", "--tasks", "cola", "--views", "L1-mean", "--heads", "logreg", "--json")
    [run] = json.loads(out)
    listed = json.loads(command("cache", "ls", "--json")[1])
    assert {record["split"]: record["runs"] for record in listed} == {
        "train": [run["run"]], "validation": [run["run"]], "test": [run["run"]]
    }  # fmt: skip
    train = next(record["name"] for record in listed if record["split"] == "train")
    refused(command("cache", "rm", train), "runs refer to these features", run["run"], "--force")
    refused(command("cache", "rm", train, "--yes"), "runs refer to these features", run["run"], "--force")
    code, out, _ = command("cache", "rm", train, "--yes", "--force", "--json")
    assert (code, names_in(out)) == (0, [train])


def test_what_is_not_whole_is_collected_when_a_person_agrees(command, people, tmp_path):
    command("extract", "--tasks", "cola", "--splits", "test", "--layers", "1", "--poolings", "mean")
    [name] = names_in(command("cache", "ls", "--json")[1])
    (tmp_path / "data" / "cache" / "cola" / "test" / name / "manifest.json").unlink()
    for words, answers, status in (
        (("--dry-run",), (), "would be removed"),
        ((), (), "kept"),
        ((), ("n",), "kept"),
        ((), ("yes",), "removed"),
    ):
        if answers:
            people(*answers)
        code, out, _ = command("cache", "gc", *words, "--json")
        assert code == 0
        [record] = json.loads(out)
        assert (record["status"], record["rows"]) == (status, 10)
    assert command("cache", "gc", "--yes", "--json")[1].strip() == "[]"
    assert "nothing to collect" in command("cache", "gc")[1]


def test_an_adapter_is_named_by_its_folder_in_stage_one_and_by_its_digest_in_stage_two(command, make_adapter):
    common = ("--tasks", "cola", "--layers", "1", "--poolings", "mean")
    assert command("extract", *common)[0] == 0
    _, out, _ = command("extract", *common, "--adapter", make_adapter(), "--json")
    [name] = {record["name"] for record in json.loads(out) if record["split"] == "train"}
    digest = name.split("-lora-")[1][:8]
    train = {}
    for words in ((), ("--adapter", digest)):
        words = ("heads", "--tasks", "cola", "--views", "L1-mean", "--heads", "logreg", *words, "--json")
        [run] = json.loads(command(*words)[1])
        [train[run["config"]["adapter"]]] = run["features"]["cola"]["train"]
    assert set(train) == {None, digest}
    assert name.endswith(train[digest][:12])
    assert not name.endswith(train[None][:12])
    refused(command("heads", "--tasks", "cola", "--adapter", "my-lora"), "adapter: expected six or more hex digits")


def test_cache_show_says_the_passport_in_words(command):
    words = ("extract", "--tasks", "cola", "--splits", "validation", "--layers", "1", "--poolings", "mean", "--json")
    name = json.loads(command(*words)[1])[0]["name"]
    code, out, _ = command("cache", "show", name)
    assert code == 0
    for part in ("24 rows were computed again; 0.0001 was allowed", "each alone, unpadded", "in another batch"):
        assert part in out
    assert "relative difference up to" in out
    assert "0 NaN or infinite" in out
    assert out.index("passport") < out.index("identity") < out.index("beside it")
    assert "quantization.type" in out


def test_a_flipped_bit_in_an_index_is_mended_by_one_extract(command, tmp_path):
    extract = ("extract", "--tasks", "cola", "--splits", "train", "--layers", "1", "--poolings", "mean", "--json")
    assert command(*extract, "--shard-rows", 16)[0] == 0
    (index,) = (tmp_path / "data" / "cache").rglob("shard-00002.parquet")
    whole = index.read_bytes()
    index.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    code, out, err = command(*extract, "--shard-rows", 16)
    assert (code, json.loads(out)[0]["status"]) == (0, "resumed")
    assert "shard 2 (shard-00002.parquet)" in err
    assert index.read_bytes() == whole
    assert command("cache", "verify", "--deep")[0] == 0


def test_resuming_with_another_cut_goes_on_with_the_one_that_is_there(command, tmp_path):
    extract = ("extract", "--tasks", "cola", "--splits", "train", "--layers", "1", "--poolings", "mean", "--json")
    assert command(*extract, "--shard-rows", 16)[0] == 0
    (folder,) = (tmp_path / "data" / "cache" / "cola" / "train").iterdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "passes.jsonl"}
    (folder / "manifest.json").unlink()
    (folder / "shard-00003.json").unlink()
    code, _, err = command(*extract)
    assert code == 0
    assert "3 of 4 shards are whole already" in err
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "passes.jsonl"} == before


def test_renamed_classes_reach_the_manifest(command, tmp_path):
    rows = "text,label\n" + "".join(f"row number {n},{n % 2}\n" for n in range(8))
    for split in ("train", "validation"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{split}.csv").write_text(rows.replace("row", split))
    task = tmp_path / "topic.toml"
    names = []
    for labels in ('["animals", "food"]', '["food", "animals"]'):
        task.write_text(
            f'name = "topic"\nlabels = {labels}\nprompt = "Topic: {{}}"\nmetric = "accuracy"\n'
            'views = ["L1-mean"]\nhead_view = ["L1-mean"]\ntext_column = "text"\nlabel_column = "label"\n'
        )
        code, out, err = command(
            "extract", "--tasks", "topic", "--task-files", task, "--data", tmp_path / "mine", "--json"
        )
        assert code == 0, err
        name = json.loads(out)[0]["name"]
        names.append(json.loads(command("cache", "show", name, "--json")[1])["labels"])
    assert names == [["animals", "food"], ["food", "animals"]]
